"""A record and its members at one instant, for people: the status of each, and what it waits for.

This module reads and changes nothing: it refreshes no TTL and claims nothing.
"""

from datetime import datetime
from typing import Any, Literal, NamedTuple, get_args

from mageflow._frozen import frozen
from mageflow.config import Settings
from mageflow.errors import SignatureNotFoundError
from mageflow.signatures import ENDED, FailureRecord, FlowMember, LastRun, Status, decode_member, deep_merge
from mageflow.store.keys import Keys, RecordKeys
from mageflow.store.paths import MemberPath, join_member_key
from mageflow.store.records.calls import call_record_script
from mageflow.store.records.declarations import DESCRIBE
from mageflow.store.records.entries import read_path
from mageflow.store.records.stored import StoredHeader, StoredState, moment
from mageflow.store.records.views import AnySignature, guarded, member_view, record_view
from mageflow.store.redis.port import RedisPort
from mageflow.types import SignatureKind

__all__ = ["Description", "MemberDescription", "describe_record", "find_records"]

Role = Literal["step", "item", "run", "success callback", "error callback"]


@frozen
class MemberDescription:
    """A step, an item, a callback or a user's run, with its state."""

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
    """The stored word, finer than the status: ``queued`` (decided, not known to be sent), ``sent`` (handed to Hatchet),
    ``held`` (waits for resume), or a status; empty when the member was not reached."""
    attempts: int
    last_run: LastRun | None
    last_error: FailureRecord | None
    traceparent: str
    """Of its last run."""
    changed_at: datetime | None
    decided_at: datetime | None
    """When its start was decided; None for a user's run."""
    admitted_at: datetime | None
    """When a worker began its first attempt."""
    stages: dict[str, float]
    """Seconds by stage of its attempts that ended, with ``queue``."""
    values: dict[str, Any]
    """Bound values, merged with an item's own message."""
    result_bytes: int


@frozen
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
    """The record, or the member that is described."""
    name: str
    started_at: datetime | None
    ended_at: datetime | None
    parent: str
    """Key of the member that this nested flow is; empty for a flow that is not nested."""
    expires_in_seconds: float
    """Until it expires, if nothing changes."""
    unsent: int
    """Entries of the outbox that are not known to be sent. Above 0 for longer than the grace: no worker sends them."""
    live: int
    """Members that were sent to Hatchet or run."""
    held: int
    """Members that wait for `resume`."""
    checked_in_seconds: float | None
    """Until a reconciler looks at it (negative: it is late); None when nothing has to be reconciled."""
    members: tuple[MemberDescription, ...]
    """In order, each followed by its callbacks."""
    first: int
    members_total: int
    """How many steps, items or runs there are, shown or not."""


class _DescribeReply(NamedTuple):
    """What ``describe.lua`` answers."""

    header: list[str]
    definition: str
    successes: int
    errors: int
    rows: list[Any]
    """Path, definition, state and size of the result of each member, in turn."""
    ttl_ms: int
    now_ms: int
    unsent: int
    live: int
    held: int
    due_ms: str
    total: int


async def describe_record(port: RedisPort, keys: Keys, key: str, *, first: int = 0, limit: int = 50) -> Description:
    """Describe a record, or one member of it. One round trip.

    Args:
        port: Connects to Redis.
        keys: Keys of the namespace that the key belongs to.
        key: Key of a record, or of a member (``<key>#<path>``).
        first: Number of the first step, item or run to show, from 0.
        limit: How many of them to show.

    Raises:
        SignatureNotFoundError: It expired, was removed, or never was.
        SignatureInvalidError: A stored document does not validate.
        StoreError: As `RedisPort.call`.
    """
    record = keys.parse(key)
    reply = await call_record_script(port, DESCRIBE, record, "{}", str(record.member), first, limit)
    if reply is None:
        raise SignatureNotFoundError(key)
    found = _DescribeReply(*reply)
    rows = found.rows

    def build() -> Description:
        header = StoredHeader.read(found.header)
        members = tuple(
            _member(record, read_path(record, path), definition, state, size)
            for path, definition, state, size in zip(rows[::4], rows[1::4], rows[2::4], rows[3::4], strict=True)
        )
        return Description(
            at=moment(found.now_ms),
            kind=record.kind,
            path=record.member,
            record=record.record,
            signature=_signature(record, header, found),
            name=header.name,
            started_at=header.started_at,
            ended_at=header.ended_at if header.status in ENDED else None,
            parent=header.parent,
            expires_in_seconds=found.ttl_ms / 1000,
            unsent=found.unsent,
            live=found.live,
            held=found.held,
            checked_in_seconds=(float(found.due_ms) - found.now_ms) / 1000 if found.due_ms else None,
            members=members,
            first=first,
            members_total=found.total,
        )

    return guarded(key, build)


async def find_records(port: RedisPort, settings: Settings, namespace: str, identity: str) -> list[str]:
    """Keys of the records with this id, as logs and spans carry it; usually one. One round trip per kind.

    Args:
        port: Connects to Redis.
        settings: For the key prefix.
        namespace: The Hatchet namespace.
        identity: The id.
    """
    keys = Keys(settings.key_prefix, namespace)
    try:
        candidates = [keys.new(kind, identity).record for kind in get_args(SignatureKind)]
    except ValueError:
        return []
    return [each for each in candidates if await port.command("EXISTS", each, operation="find")]


def _signature(keys: RecordKeys, header: StoredHeader, found: _DescribeReply) -> AnySignature:
    text, successes, errors = found.definition, found.successes, found.errors
    if keys.member.is_record:
        return record_view(keys, header, text, successes, errors)
    state = found.rows[2] if found.rows else ""
    return member_view(keys, keys.member, header, text, successes, errors, state)


def _member(keys: RecordKeys, path: MemberPath, text: str, state_json: str, size: int) -> MemberDescription:
    key = join_member_key(keys.record, path)
    definition = decode_member(key, text)
    nested = definition if isinstance(definition, FlowMember) else None
    bound = {} if isinstance(definition, FlowMember) else definition.kwargs
    explicit = definition.message if definition.message_set is None else definition.message_set

    def build() -> MemberDescription:
        state = StoredState.read(state_json)
        return MemberDescription(
            path=path,
            key=key,
            role=_role(keys.kind, path),
            task="" if isinstance(definition, FlowMember) else definition.task,
            flow_key=nested.key if nested else "",
            status=state.status,
            stage=state.stage,
            attempts=state.attempts,
            last_run=None if nested else state.last_run,
            last_error=state.error,
            traceparent=state.traceparent,
            changed_at=state.changed_at,
            decided_at=state.decided_at,
            admitted_at=state.admitted_at,
            stages=state.stages,
            values=deep_merge(definition.message, bound, explicit),
            result_bytes=size,
        )

    return guarded(key, build)


def _role(kind: SignatureKind, path: MemberPath) -> Role:
    if path.callback_kind is not None:
        return "success callback" if path.callback_kind == "success" else "error callback"
    return "run" if path.is_user_run else "step" if kind == "chain" else "item"
