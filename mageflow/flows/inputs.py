"""Builds the input of a run from what a script decided. Pure.

A script passes user data on as text and does not parse it. This module merges the parts, the last one strongest (the
rules are in `mageflow.signatures.merge`):

===================== ============================================================================================
A chain's first step  the chain's bound values, the step's, the message the chain was run with
A later step          the chain's bound values, the step's, the previous result in its field
A swarm's item        the swarm's bound values, the item's, the message the swarm was run with, the item's own message
A success callback    the callback's bound values, the result in its field
An error callback     the input that failed, the callback's bound values, the error in its field
===================== ============================================================================================

The first step of a nested chain, and every item of a nested swarm, also receives the previous result or the error that
the parent flow carries over, in the field for it.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from mageflow.errors import SignatureInvalidError
from mageflow.signatures import (
    FailureRecord,
    FlowDefinition,
    FlowMember,
    TaskDefinition,
    TaskError,
    decode_definition,
    decode_member,
    deep_merge,
)
from mageflow.store import Decision, OutboxEntry, dedupe_key
from mageflow.types import DispatchRun, Source

__all__ = ["NestedStart", "build_nested_start", "build_run", "carry_result", "flow_name"]


@dataclass(frozen=True, slots=True)
class NestedStart:
    """A nested flow to start, and the arguments of its start."""

    key: str
    message_json: str
    carry_json: str
    parent: str


def carry_result(value_json: str) -> str:
    """A result in the form in which a nested flow receives it, as JSON text."""
    return f'{{"result":{value_json}}}'


def flow_name(decision: Decision) -> str:
    """The name of the flow of a decision; empty for a task signature and for an unreadable definition."""
    if decision.keys.kind == "task" or not decision.definition_json:
        return ""
    try:
        definition = decode_definition(decision.keys.record, decision.definition_json)
    except SignatureInvalidError:
        return ""  # sending its members reports the damage
    return definition.name if isinstance(definition, FlowDefinition) else ""


def build_run(decision: Decision, entry: OutboxEntry, *, fanout_limit: int = 128) -> DispatchRun:
    """The run to dispatch for an outbox entry.

    Items of a swarm larger than ``fanout_limit`` start traces of their own, with a link to the start of the flow:
    ``link`` then equals ``traceparent``.

    Raises:
        SignatureInvalidError: The stored definition does not validate, or the stored input is not JSON.
    """
    keys = decision.keys
    member_key = f"{keys.record}#{entry.path}"
    definition = decode_member(member_key, entry.definition_json)
    if isinstance(definition, FlowMember):
        raise SignatureInvalidError(member_key, "a flow is stored where a task is expected")
    is_rerun = entry.role == "rerun"
    is_callback = entry.role in {"success", "error"}
    is_own_trace = entry.role == "item" and int(decision.facts.get("total", 0)) > fanout_limit
    source: Source = "callback" if is_callback else "signature" if keys.kind == "task" else keys.kind
    return DispatchRun(
        task_name=definition.task,
        input_json=entry.extra or "{}" if is_rerun else _input_json(decision, entry, definition),
        signature_key=keys.record if is_rerun else member_key,
        dedupe_key=dedupe_key(keys, entry.path, entry.epoch),
        source=source,
        flow="" if keys.kind == "task" else f"{keys.kind}:{keys.id}:{entry.path}",
        traceparent=decision.traceparent,
        link=decision.traceparent if is_own_trace else entry.link,
    )


def build_nested_start(decision: Decision, entry: OutboxEntry) -> NestedStart:
    """The nested flow to start for an outbox entry.

    Raises:
        SignatureInvalidError: The stored definition does not validate, or the stored input is not JSON.
    """
    member_key = f"{decision.keys.record}#{entry.path}"
    definition = decode_member(member_key, entry.definition_json)
    if isinstance(definition, TaskDefinition):
        raise SignatureInvalidError(member_key, "a task is stored where a flow is expected")
    with _readable(member_key):
        carry = ""
        if entry.role == "success" or (entry.role == "step" and entry.value_json):
            carry = carry_result(entry.value_json)
        elif entry.role == "error":
            carry = json.dumps({"error": _error(decision, entry)})
        elif decision.carry_json:
            carry = decision.carry_json
        message: dict[str, Any] = {}
        if entry.role in {"step", "item"}:
            first = _object(decision.message_json) if entry.role == "item" or not entry.value_json else {}
            message = deep_merge(_bound_values(decision), first, definition.message)
    return NestedStart(
        key=definition.key,
        message_json=json.dumps(message),
        carry_json=carry,
        parent=member_key,
    )


@contextmanager
def _readable(member_key: str) -> Generator[None]:
    """Report stored JSON that cannot be read, because it was damaged, as a typed error with the key."""
    try:
        yield
    except ValueError as error:  # of json, and of pydantic
        raise SignatureInvalidError(member_key, f"its stored input cannot be read ({error})") from error


def _input_json(decision: Decision, entry: OutboxEntry, definition: TaskDefinition) -> str:
    with _readable(f"{decision.keys.record}#{entry.path}"):
        return json.dumps(_input(decision, entry, definition))


def _input(decision: Decision, entry: OutboxEntry, definition: TaskDefinition) -> dict[str, Any]:
    kwargs = definition.kwargs
    if entry.role == "success":
        return deep_merge(kwargs, {definition.result_field: json.loads(entry.value_json)})
    if entry.role == "error":
        return deep_merge(_object(entry.extra), kwargs, {definition.error_field: _error(decision, entry)})
    if entry.role == "step" and entry.value_json:
        return deep_merge(_bound_values(decision), kwargs, {definition.result_field: json.loads(entry.value_json)})
    return deep_merge(
        _bound_values(decision),
        kwargs,
        _object(decision.message_json),
        definition.message,
        _carried_values(decision, definition),
    )


def _carried_values(decision: Decision, definition: TaskDefinition) -> dict[str, Any]:
    carry = _object(decision.carry_json)
    if "result" in carry:
        return {definition.result_field: carry["result"]}
    return {definition.error_field: carry["error"]} if "error" in carry else {}


def _bound_values(decision: Decision) -> dict[str, Any]:
    definition = decode_definition(decision.keys.record, decision.definition_json)
    return dict(definition.kwargs) if isinstance(definition, FlowDefinition) else {}


def _error(decision: Decision, entry: OutboxEntry) -> dict[str, Any]:
    owner = entry.path.rpartition(".")[0]
    key = decision.keys.record if not owner or owner.startswith("@") else f"{decision.keys.record}#{owner}"
    facts = (
        FailureRecord.model_validate_json(entry.value_json).model_dump() if entry.value_json else {"type": "Unknown"}
    )
    original = json.loads(entry.extra) if entry.extra else None
    error = TaskError.model_validate({**facts, "signature": key, "original_message": original})
    return error.model_dump(mode="json")


def _object(text: str) -> dict[str, Any]:
    return _mapping(json.loads(text)) if text else {}


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
