"""A record and its members at one instant, for people to look at: where each stands, and what keeps it there.

This file owns the reading. It refuses to change anything: looking refreshes no TTL and claims nothing.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, cast, get_args

from pydantic import ValidationError

from mageflow.config import Settings
from mageflow.errors import SignatureInvalidError, SignatureNotFoundError
from mageflow.signatures import ENDED, FailureRecord, FlowMember, LastRun, Status, decode_member, lua_table
from mageflow.store.keys import Keys, RecordKeys
from mageflow.store.paths import MemberPath, join_member_key
from mageflow.store.records.entries import read_path
from mageflow.store.records.store import AnySignature
from mageflow.store.records.views import header_of, last_run_of, member_view, moment, record_view, status_of
from mageflow.store.redis.port import RedisPort
from mageflow.store.redis.scripts import Script
from mageflow.types import SignatureKind

__all__ = ["Description", "MemberDescription", "describe_record", "find_records"]

Role = Literal["step", "item", "run", "success callback", "error callback"]

_DESCRIBE: Final = Script(
    "describe",
    ("record", "defs", "runs", "results", "live", "outbox", "held", "due", "stats"),
    ("config", "path", "first", "limit"),
    prelude=lua_table(),
)


@dataclass(frozen=True, slots=True)
class MemberDescription:
    """A step, an item, a callback or a run, and what has become of it."""

    path: MemberPath
    """Its place in the record."""
    key: str
    role: Role
    task: str
    """The task's name; empty for a nested flow."""
    flow_key: str
    """Of a nested flow; empty for a task."""
    status: Status
    stage: str
    """The scripts' own, finer word: ``queued`` (decided, not known to be sent), ``sent`` (with Hatchet), ``held`` and
    so on; empty when it was not reached yet."""
    attempts: int
    last_run: LastRun | None
    last_error: FailureRecord | None
    traceparent: str
    """Of its last run."""
    changed_at: datetime | None
    values: dict[str, Any]
    """Bound values, or an item's own message."""
    result_bytes: int


@dataclass(frozen=True, slots=True)
class Description:
    """A record at one instant."""

    at: datetime
    """By the clock of Redis, like every time in it."""
    kind: SignatureKind
    path: MemberPath
    """The member that is described; the record's own path for the record as a whole."""
    record: str
    """The record's own key."""
    signature: AnySignature
    """The record, or the member that was asked for."""
    name: str
    started_at: datetime | None
    ended_at: datetime | None
    parent: str
    """Key of the flow's member this flow stands for; empty when it is nobody's."""
    expires_in_seconds: float
    """Until it is forgotten, unless something happens to it."""
    unsent: int
    """Decisions not known to be sent; above 0 for longer than the grace means that nobody delivers."""
    live: int
    """Members that Hatchet has or that run."""
    held: int
    """Members that wait for `resume`."""
    checked_in_seconds: float | None
    """When the reconciler looks at it next (negative: it is late); None when there is nothing to look after."""
    members: tuple[MemberDescription, ...]
    """In order, each followed by its callbacks."""
    first: int
    members_total: int
    """How many steps, items or runs there are, shown or not."""


async def describe_record(port: RedisPort, keys: Keys, key: str, *, first: int = 0, limit: int = 50) -> Description:
    """Look at a record or at one member of it. One round trip.

    Args:
        port: The way to Redis.
        keys: Of the namespace the key belongs to.
        key: As `Store.load` takes it.
        first: Number of the first step, item or run to show, from 0.
        limit: How many of them to show.

    Raises:
        SignatureNotFoundError: It expired, was removed, or never was.
        SignatureInvalidError: What is stored does not validate.
        StoreError: As `RedisPort.call`.
    """
    record = keys.parse(key)
    reply = await port.call(_DESCRIBE, record.all(), ("{}", str(record.member), first, limit))
    if reply is None:
        raise SignatureNotFoundError(key)
    flat, text, successes, errors, rows, ttl, now, unsent, live, held, due, total = cast("list[Any]", reply)
    header = header_of(flat)
    members = tuple(
        _member(record, read_path(record, path), definition, state, size)
        for path, definition, state, size in zip(rows[::4], rows[1::4], rows[2::4], rows[3::4], strict=True)
    )
    return Description(
        at=moment(now),
        kind=record.kind,
        path=record.member,
        record=record.record,
        signature=_signature(record, header, text, successes, errors, rows),
        name=header.get("name", ""),
        started_at=moment(header["started"]) if header.get("started") else None,
        ended_at=moment(header["ended"]) if header.get("ended") and header["st"] in ENDED else None,
        parent=header.get("parent", ""),
        expires_in_seconds=ttl / 1000,
        unsent=unsent,
        live=live,
        held=held,
        checked_in_seconds=(float(due) - now) / 1000 if due else None,
        members=members,
        first=first,
        members_total=total,
    )


async def find_records(port: RedisPort, settings: Settings, namespace: str, identity: str) -> list[str]:
    """Keys of what is stored under an id, as logs and spans carry it; usually one. One round trip per kind."""
    keys = Keys(settings.key_prefix, namespace)
    try:
        candidates = [keys.new(kind, identity).record for kind in get_args(SignatureKind)]
    except ValueError:
        return []
    return [each for each in candidates if await port.command("EXISTS", each, operation="find")]


def _signature(
    keys: RecordKeys, header: dict[str, str], text: str, successes: int, errors: int, rows: list[Any]
) -> AnySignature:
    if keys.member.is_record:
        return record_view(keys, header, text, successes, errors)
    state = rows[2] if rows else ""
    return member_view(keys, keys.member, header, text, successes, errors, state)


def _member(keys: RecordKeys, path: MemberPath, text: str, state_json: str, size: int) -> MemberDescription:
    key = join_member_key(keys.record, path)
    definition = decode_member(key, text)
    try:
        state: dict[str, Any] = json.loads(state_json) if state_json else {}
        # An epoch below zero says that it was told to wait before it was reached.
        stage = str(state.get("st", "")) if state.get("ep", 0) >= 0 else ""
        error = state.get("er")
        nested = isinstance(definition, FlowMember)
        return MemberDescription(
            path=path,
            key=key,
            role=_role(keys.kind, path),
            task="" if nested else definition.task,
            flow_key=definition.key if nested else "",
            status=Status.SUSPENDED if state.get("sus") and not stage else status_of(stage or "pending"),
            stage=stage,
            attempts=int(state.get("n") or 0),
            last_run=None if nested else last_run_of(state),
            last_error=FailureRecord.model_validate_json(error) if error else None,
            traceparent=str(state.get("tp") or ""),
            changed_at=moment(state["t"]) if state.get("t") else None,
            values=definition.message if nested else {**definition.kwargs, **definition.message},
            result_bytes=size,
        )
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise SignatureInvalidError(key, f"its state cannot be read ({type(error).__name__}: {error})") from error


def _role(kind: SignatureKind, path: MemberPath) -> Role:
    if path.callback_kind is not None:
        return "success callback" if path.callback_kind == "success" else "error callback"
    return "run" if path.is_user_run else "step" if kind == "chain" else "item"
