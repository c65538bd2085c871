"""Builds the input of a run from what a script decided. Pure.

A script passes user data on as text and does not parse it. This module merges the parts, the last one strongest (the
rules are in `mageflow.signatures.merge`):

===================== ============================================================================================
A chain's first step  the chain's whole message, the chain's bound values, the step's, what the message has set
A later step          the chain's bound values, the step's, the previous result in its field
A swarm's item        the swarm's whole message, the item's, the swarm's bound values, the item's, what the message of
                      the swarm has set, what the item's has
A success callback    the callback's bound values, the result in its field
An error callback     the input that failed, the callback's bound values, the error in its field
===================== ============================================================================================

The first step of a nested chain, and every item of a nested swarm, also receives the previous result or the error that
the parent flow carries over, in the field for it.
"""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

from mageflow.errors import SignatureInvalidError
from mageflow.signatures import (
    FailureRecord,
    FlowDefinition,
    FlowMember,
    MemberDefinition,
    RunOptions,
    SentMessage,
    TaskDefinition,
    TaskError,
    decode_definition,
    decode_member,
    deep_merge,
)
from mageflow.store import Decision, DedupeKey, FlowPlace, MemberEntry, MemberPath, StartRequest, join_member_key
from mageflow.types import DispatchRun, Source

__all__ = ["build_item_input", "build_nested_start", "build_run", "flow_name"]

_MOST_CHARACTERS: Final = 3_000_000
"""Of an error callback's input, about; Hatchet takes messages up to 4 MB."""


def flow_name(decision: Decision) -> str:
    """The name of the flow of a decision; empty for a task signature and for an unreadable definition."""
    if decision.keys.kind == "task" or not decision.definition_json:
        return ""
    try:
        definition = decode_definition(decision.keys.record, decision.definition_json)
    except SignatureInvalidError:
        return ""  # sending its members reports the damage
    return definition.name if isinstance(definition, FlowDefinition) else ""


def build_run(decision: Decision, entry: MemberEntry, name: str, *, fanout_limit: int = 128) -> DispatchRun:
    """The run to dispatch for an outbox entry of a flow with this name; empty for a task signature.

    Items of a swarm larger than ``fanout_limit`` start traces of their own, with a link to the start of the flow:
    ``link`` then equals ``traceparent``.

    Raises:
        SignatureInvalidError: The stored definition does not validate, or the stored input is not JSON.
    """
    keys = decision.keys
    member_key = join_member_key(keys.record, entry.path)
    definition = decode_member(member_key, entry.definition_json)
    if isinstance(definition, FlowMember):
        raise SignatureInvalidError(member_key, "a flow is stored where a task is expected")
    options = RunOptions.read(member_key, entry.options_json)
    is_rerun = entry.role == "rerun"
    is_callback = entry.role in {"success", "error"}
    is_own_trace = entry.role == "item" and decision.member_count > fanout_limit
    source: Source = "callback" if is_callback else "signature" if keys.kind == "task" else keys.kind
    return DispatchRun(
        task_name=definition.task,
        input_json=entry.input_json or "{}" if is_rerun else _input_json(decision, entry, definition),
        signature_key=entry.path.key(keys.record),
        dedupe_key=str(DedupeKey(keys.record, entry.path, entry.epoch)),
        source=source,
        flow="" if keys.kind == "task" else str(FlowPlace(keys.kind, keys.id, entry.path, name)),
        traceparent=decision.traceparent,
        link=decision.traceparent if is_own_trace else entry.link,
        priority=options.priority,
        metadata=options.metadata,
    )


def build_item_input(decision: Decision, path: MemberPath, definition: TaskDefinition) -> dict[str, Any]:
    """The input that an item of a swarm gets, from what is stored of the swarm.

    Args:
        decision: The definition and the message of the swarm, and what its parent handed to it.
        path: The item.
        definition: Of the item.

    Raises:
        SignatureInvalidError: The stored input cannot be read.
    """
    entry = MemberEntry(
        field=str(path),
        epoch=0,
        path=path,
        starts="run",
        definition_json="",
        role="item",
        value_json="",
        input_json="",
        link="",
    )
    with _readable(join_member_key(decision.keys.record, path)):
        return _input(decision, entry, definition)


def build_nested_start(decision: Decision, entry: MemberEntry) -> StartRequest:
    """The nested flow to start for an outbox entry.

    Raises:
        SignatureInvalidError: The stored definition does not validate, or the stored input is not JSON.
    """
    member_key = join_member_key(decision.keys.record, entry.path)
    definition = decode_member(member_key, entry.definition_json)
    if isinstance(definition, TaskDefinition):
        raise SignatureInvalidError(member_key, "a task is stored where a flow is expected")
    with _readable(member_key):
        parent_value = decision.parent_value_json
        if entry.role == "success" or (entry.role == "step" and entry.value_json):
            parent_value = f'{{"result":{entry.value_json}}}'
        elif entry.role == "error":
            parent_value = json.dumps({"error": _error(decision, entry)})
        whole, explicit = {}, {}
        if entry.role in {"step", "item"}:
            is_first = entry.role == "item" or not entry.value_json
            messages = _messages(decision, definition) if is_first else ()
            # Values that the outer flow binds are weaker than those that the nested flow binds.
            whole = deep_merge(*(each.whole for each in messages), _bound_values(decision))
            explicit = deep_merge(*(each.explicit for each in messages))
    return StartRequest(
        key=definition.key,
        message_json=json.dumps(whole),
        message_set_json=json.dumps(explicit),
        parent_value_json=parent_value,
        parent=member_key,
        options_json=entry.options_json,
        handed_ms=entry.handed_ms,
    )


@contextmanager
def _readable(member_key: str) -> Generator[None]:
    """Report stored JSON that cannot be read, because it was damaged, as a typed error with the key."""
    try:
        yield
    except ValueError as error:  # of json, and of pydantic
        raise SignatureInvalidError(member_key, f"its stored input cannot be read ({error})") from error


def _input_json(decision: Decision, entry: MemberEntry, definition: TaskDefinition) -> str:
    with _readable(join_member_key(decision.keys.record, entry.path)):
        return json.dumps(_input(decision, entry, definition))


def _input(decision: Decision, entry: MemberEntry, definition: TaskDefinition) -> dict[str, Any]:
    def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
        others = definition.other_keys
        return deep_merge(*({others.get(key, key): value for key, value in layer.items()} for layer in layers))

    kwargs = definition.kwargs
    if entry.role == "success":
        return merged(kwargs, {definition.result_field: json.loads(entry.value_json)})
    if entry.role == "error":
        error = _error(decision, entry)
        if not definition.error_field:
            return error
        return merged(_object(entry.input_json), kwargs, {definition.error_field: error})
    if entry.role == "step" and entry.value_json:
        return merged(_bound_values(decision), kwargs, {definition.result_field: json.loads(entry.value_json)})
    messages = _messages(decision, definition)
    return merged(
        *(each.whole for each in messages),
        _bound_values(decision),
        kwargs,
        *(each.explicit for each in messages),
        _parent_value(decision, definition),
    )


def _messages(decision: Decision, definition: MemberDefinition) -> tuple[SentMessage, SentMessage]:
    """The message of the flow, and the member's own."""
    whole = _object(decision.message_json)
    explicit = _object(decision.message_set_json) if decision.message_set_json else whole
    own = definition.message if definition.message_set is None else definition.message_set
    return SentMessage(whole, explicit), SentMessage(definition.message, own)


def _parent_value(decision: Decision, definition: TaskDefinition) -> dict[str, Any]:
    value = _object(decision.parent_value_json)
    if "result" in value:
        return {definition.result_field: value["result"]}
    if "error" in value:
        return {definition.error_field: value["error"]} if definition.error_field else _mapping(value["error"])
    return {}


def _bound_values(decision: Decision) -> dict[str, Any]:
    definition = decode_definition(decision.keys.record, decision.definition_json)
    return dict(definition.kwargs) if isinstance(definition, FlowDefinition) else {}


def _error(decision: Decision, entry: MemberEntry) -> dict[str, Any]:
    owner = entry.path.owner or MemberPath()
    failure = (
        FailureRecord.model_validate_json(entry.value_json).model_dump() if entry.value_json else {"type": "Unknown"}
    )
    original = json.loads(entry.input_json) if entry.input_json else None
    # A callback's input has the message twice: in the error, and as the other fields.
    size = len(entry.failed_input_json) + 2 * len(entry.input_json)
    failed = json.loads(entry.failed_input_json) if entry.failed_input_json and size <= _MOST_CHARACTERS else None
    key = owner.key(decision.keys.record)
    error = TaskError.model_validate(
        {**failure, "signature": key, "original_message": original, "failed_input": failed}
    )
    return error.model_dump(mode="json")


def _object(text: str) -> dict[str, Any]:
    return _mapping(json.loads(text)) if text else {}


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
