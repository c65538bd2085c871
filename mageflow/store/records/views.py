"""Stored documents as signatures: the header, a definition and a state become one frozen value."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from mageflow.errors import SignatureInvalidError
from mageflow.signatures import (
    ChainSignature,
    FailureRecord,
    FlowDefinition,
    FlowMember,
    HistoryEntry,
    LastRun,
    Status,
    SwarmConfig,
    SwarmSignature,
    TaskDefinition,
    TaskSignature,
    decode_definition,
    decode_member,
)
from mageflow.store.keys import RecordKeys
from mageflow.store.paths import CallbackKind, MemberPath, join_member_key

__all__ = ["header_of", "last_run_of", "member_view", "moment", "record_view", "status_of", "task_view"]

_STATUS = {"queued": Status.PENDING, "sent": Status.PENDING, "held": Status.SUSPENDED}


def status_of(state: str) -> Status:
    """The status of a member, from the word the scripts keep for it."""
    return _STATUS.get(state) or Status(state)


def header_of(flat: Sequence[str]) -> dict[str, str]:
    """The flat list of a script's reply as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def record_view(
    keys: RecordKeys, header: dict[str, str], text: str, successes: int, errors: int
) -> TaskSignature | ChainSignature | SwarmSignature:
    """A record as a signature.

    Raises:
        SignatureInvalidError: The stored documents do not validate.
    """
    definition = decode_definition(keys.record, text)
    if isinstance(definition, TaskDefinition):
        return task_view(keys, MemberPath(), header, definition, successes, errors, "")
    return _guarded(keys.record, lambda: _flow_view(keys, header, definition, successes, errors))


def member_view(
    keys: RecordKeys, path: MemberPath, header: dict[str, str], text: str, successes: int, errors: int, state: str
) -> TaskSignature:
    """A step, an item, a callback or a user's run as a signature.

    Raises:
        SignatureInvalidError: The stored documents do not validate, or the member is a nested flow.
    """
    key = join_member_key(keys.record, path)
    definition = decode_member(key, text)
    if isinstance(definition, FlowMember):
        raise SignatureInvalidError(key, f"it stands for the flow {definition.key!r}: load that")
    return task_view(keys, path, header, definition, successes, errors, state)


def task_view(
    keys: RecordKeys,
    path: MemberPath,
    header: dict[str, str],
    definition: TaskDefinition,
    successes: int,
    errors: int,
    state_json: str,
) -> TaskSignature:
    """A task with what has become of it."""
    key = path.key(keys.record)

    def build() -> TaskSignature:
        state: dict[str, Any] = json.loads(state_json) if state_json else {}
        is_record = keys.kind == "task" and (path.is_record or path.is_user_run)
        last = (state.get("run") and state) or (json.loads(header.get("run") or "{}") if is_record else {})
        error = state.get("er") or (header.get("err") if is_record else None)
        reached = header["st"] if is_record else state.get("st", "pending")
        changed = state.get("t") or header["updated"]
        return TaskSignature(
            key=key,
            task_name=definition.task,
            task_identifiers=definition.identifiers,
            kwargs=definition.kwargs,
            success_callbacks=_callbacks(keys, path, "success", successes),
            error_callbacks=_callbacks(keys, path, "error", errors),
            status=status_of(reached),
            created_at=moment(header["created"]),
            updated_at=moment(changed),
            attempts=int(header.get("att") or 0) if is_record else int(state.get("n") or 0),
            last_run=last_run_of(last),
            last_error=FailureRecord.model_validate_json(error) if error else None,
            traceparent=header.get("trace") or "",
            history=_history(header) if is_record else (),
            flow_key="" if keys.kind == "task" else keys.record,
        )

    return _guarded(key, build)


def _flow_view(
    keys: RecordKeys, header: dict[str, str], definition: FlowDefinition, successes: int, errors: int
) -> ChainSignature | SwarmSignature:
    last = json.loads(header.get("run") or "{}")
    common: dict[str, Any] = {
        "key": keys.record,
        "name": definition.name,
        "kwargs": definition.kwargs,
        "success_callbacks": _callbacks(keys, MemberPath(), "success", successes),
        "error_callbacks": _callbacks(keys, MemberPath(), "error", errors),
        "status": Status(header["st"]),
        "created_at": moment(header["created"]),
        "updated_at": moment(header["updated"]),
        "attempts": int(header.get("att") or 0),
        "last_run": last_run_of(last),
        "last_error": FailureRecord.model_validate_json(header["err"]) if header.get("err") else None,
        "traceparent": header.get("trace") or "",
        "history": _history(header),
    }
    total = int(header["total"])
    if definition.kind == "chain":
        steps = tuple(MemberPath(index).key(keys.record) for index in range(total))
        return ChainSignature(**common, steps=steps, step=int(header["step"]))
    reached = int(header["next"])
    return SwarmSignature(
        **common,
        config=definition.config or SwarmConfig(),
        is_closed=header["closed"] == "1",
        total=total,
        pending=total - reached,
        running=int(header["running"]),
        succeeded=int(header["ok"]),
        failed=int(header["bad"]),
    )


def _callbacks(keys: RecordKeys, path: MemberPath, kind: CallbackKind, count: int) -> tuple[str, ...]:
    return tuple(path.callback(kind, index).key(keys.record) for index in range(count))


def moment(milliseconds: str | float) -> datetime:
    """A time of the scripts, which count milliseconds since the epoch by the clock of Redis."""
    return datetime.fromtimestamp(float(milliseconds) / 1000, UTC)


def last_run_of(found: dict[str, Any]) -> LastRun | None:
    """The run a state or a header names, if it names one."""
    if not found.get("run"):
        return None
    return LastRun(workflow_run_id=found["run"], task_run_id=found.get("step") or "", worker_id=found.get("wk") or "")


def _history(header: dict[str, str]) -> tuple[HistoryEntry, ...]:
    return tuple(
        HistoryEntry(at=moment(each["at"]), status=Status(each["status"]), by=each["by"], why=each["why"])
        for each in json.loads(header.get("hist") or "[]")
    )


def _guarded(key: str, build: Any) -> Any:
    try:
        return build()
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise SignatureInvalidError(key, f"its state cannot be read ({type(error).__name__}: {error})") from error
