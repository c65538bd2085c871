"""Stored documents as signatures: a header, a definition and a state become one frozen value."""

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from mageflow.errors import SignatureError, SignatureInvalidError
from mageflow.signatures import (
    ChainSignature,
    FlowDefinition,
    FlowMember,
    SwarmConfig,
    SwarmSignature,
    TaskDefinition,
    TaskSignature,
    decode_definition,
    decode_member,
)
from mageflow.store.keys import RecordKeys
from mageflow.store.paths import CallbackKind, MemberPath, join_member_key
from mageflow.store.records.stored import StoredHeader, StoredState

__all__ = ["AnySignature", "check_member", "guarded", "member_definition", "member_view", "record_view"]

AnySignature = TaskSignature | ChainSignature | SwarmSignature
_T = TypeVar("_T")

_UNREADABLE: Final = (
    ValidationError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError,
)  # fmt: skip
"""What reading a damaged document raises: wrong types, numbers that are no time, nesting without end."""


def record_view(keys: RecordKeys, header: StoredHeader, text: str, successes: int, errors: int) -> AnySignature:
    """A record as a signature.

    Args:
        keys: The record.
        header: Its header.
        text: Its definition, a JSON document.
        successes: How many success callbacks it has.
        errors: How many error callbacks it has.

    Raises:
        SignatureInvalidError: The stored documents do not validate.
    """
    definition = decode_definition(keys.record, text)
    if isinstance(definition, TaskDefinition):
        return _task_view(keys, MemberPath(), header, definition, successes, errors, "")
    return guarded(keys.record, lambda: _flow_view(keys, header, definition, successes, errors))


def member_view(
    keys: RecordKeys, path: MemberPath, header: StoredHeader, text: str, successes: int, errors: int, state: str
) -> TaskSignature:
    """A step, an item, a callback or a user's run as a signature.

    Args:
        keys: The record.
        path: The member.
        header: The record's header.
        text: The member's definition, a JSON document.
        successes: How many success callbacks it has.
        errors: How many error callbacks it has.
        state: Its state, a JSON document; empty when it was not reached.

    Raises:
        SignatureInvalidError: The stored documents do not validate, or the member is a nested flow.
    """
    return _task_view(keys, path, header, member_definition(keys, path, text), successes, errors, state)


def member_definition(keys: RecordKeys, path: MemberPath, text: str) -> TaskDefinition:
    """The definition of a member that is a task.

    Raises:
        SignatureInvalidError: It does not validate, or the member is a nested flow.
    """
    key = join_member_key(keys.record, path)
    definition = decode_member(key, text)
    if isinstance(definition, FlowMember):
        raise SignatureInvalidError(key, f"it stands for the flow {definition.key!r}: load that")
    return definition


def check_member(keys: RecordKeys, path: MemberPath, text: str) -> None:
    """Check that a definition is that of a task, as `member_definition` does, for a caller that needs no more of it.

    All runs of a signature have the same definition, so short texts that were found good are known again.

    Raises:
        SignatureInvalidError: It does not validate, or the member is a nested flow.
    """
    if len(text) > _KNOWN_CHARACTERS or not _is_task(text):
        member_definition(keys, path, text)


_KNOWN_CHARACTERS: Final = 4096


@functools.lru_cache(maxsize=256)
def _is_task(text: str) -> bool:
    try:
        return isinstance(decode_member("", text), TaskDefinition)
    except SignatureError:
        return False


def guarded(key: str, build: Callable[[], _T]) -> _T:
    """Build a value from stored fields.

    Raises:
        SignatureInvalidError: A field is missing or damaged.
    """
    try:
        return build()
    except _UNREADABLE as error:
        raise SignatureInvalidError(key, f"its state cannot be read ({type(error).__name__}: {error})") from error


def _task_view(
    keys: RecordKeys,
    path: MemberPath,
    header: StoredHeader,
    definition: TaskDefinition,
    successes: int,
    errors: int,
    state_json: str,
) -> TaskSignature:
    key = path.key(keys.record)
    # A user's run of a signature is shown with the status, attempts and history of the signature.
    is_record = keys.kind == "task" and (path.is_record or path.is_user_run)

    def build() -> TaskSignature:
        state = StoredState.read(state_json)
        return TaskSignature(
            key=key,
            task_name=definition.task,
            task_identifiers=definition.identifiers,
            kwargs=definition.kwargs,
            success_callbacks=_callbacks(keys, path, "success", successes),
            error_callbacks=_callbacks(keys, path, "error", errors),
            status=header.status if is_record else state.status,
            created_at=header.created_at,
            updated_at=state.changed_at or header.updated_at,
            attempts=header.attempts if is_record else state.attempts,
            last_run=state.last_run or (header.last_run if is_record else None),
            last_error=state.error or (header.error if is_record else None),
            traceparent=header.traceparent,
            history=header.history if is_record else (),
            flow_key="" if keys.kind == "task" else keys.record,
        )

    return guarded(key, build)


def _flow_view(
    keys: RecordKeys, header: StoredHeader, definition: FlowDefinition, successes: int, errors: int
) -> ChainSignature | SwarmSignature:
    common: dict[str, Any] = {
        "key": keys.record,
        "name": definition.name,
        "kwargs": definition.kwargs,
        "success_callbacks": _callbacks(keys, MemberPath(), "success", successes),
        "error_callbacks": _callbacks(keys, MemberPath(), "error", errors),
        "status": header.status,
        "created_at": header.created_at,
        "updated_at": header.updated_at,
        "attempts": header.attempts,
        "last_run": header.last_run,
        "last_error": header.error,
        "traceparent": header.traceparent,
        "history": header.history,
        "starts_at": header.starts_at,
    }
    if definition.kind == "chain":
        steps = tuple(MemberPath(index).key(keys.record) for index in range(header.total))
        return ChainSignature(**common, steps=steps, step=header.step)
    return SwarmSignature(
        **common,
        config=definition.config or SwarmConfig(),
        is_closed=header.is_closed,
        total=header.total,
        pending=header.total - header.next_item,
        running=header.running,
        succeeded=header.succeeded,
        failed=header.failed,
    )


def _callbacks(keys: RecordKeys, path: MemberPath, kind: CallbackKind, count: int) -> tuple[str, ...]:
    return tuple(path.callback(kind, index).key(keys.record) for index in range(count))
