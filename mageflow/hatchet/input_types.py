"""The type of a task's message: what an annotation says of it, and what cannot be one.

A message is a JSON object. The SDK takes any type, and then every run of the task fails.
"""

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.types import EmptyModel
from hatchet_sdk.runnables.workflow import BaseWorkflow, Standalone
from pydantic import BaseModel, PydanticUserError, TypeAdapter
from typing_extensions import is_typeddict

from mageflow.errors import DecorationError
from mageflow.hatchet import declaration_compat
from mageflow.invocation import alternatives, type_hints

__all__ = [
    "fits_no_message",
    "input_type",
    "is_message",
    "no_object",
    "refuse_input_type",
    "type_name",
    "unused_input_types",
]

_NO_OBJECTS = (int, float, complex, bool, str, bytes, bytearray, list, tuple, set, frozenset)


def input_type(annotation: object) -> Any | None:
    """The type to validate the message with; None if the annotation names none that the SDK can use."""
    kinds = alternatives(annotation)
    if len(kinds) != 1 or kinds[0] is EmptyModel:
        return None
    kind = kinds[0]
    if kind is dict or get_origin(kind) is dict:
        return kind
    if not isinstance(kind, type):
        return None
    if is_typeddict(kind):
        try:
            TypeAdapter(kind)
        except PydanticUserError:
            return dict[str, Any]  # typing.TypedDict before Python 3.12
        return kind
    return kind if issubclass(kind, BaseModel) or is_dataclass(kind) else None


def unused_input_types(runnables: Iterable[BaseWorkflow[Any]]) -> Iterator[tuple[str, str, str]]:
    """Find the tasks whose declaration gives them an ``EmptyModel`` although their function names another type.

    Hatchet declares ``(order: Order, ctx: Context)`` so, and mageflow does as Hatchet does.

    Yields:
        The name of the function, the type that it names, and what to write so that it gets it.
    """
    for runnable in runnables:
        if runnable.input_validator_type is not EmptyModel:
            continue
        for task in runnable.tasks:
            func = inspect.unwrap(task.fn)
            message = next(iter(inspect.signature(func).parameters), "")
            kind = input_type(type_hints(func).get(message))
            if kind is not None:
                name = type_name(kind)
                yield func.__qualname__, name, _declaration(runnable, task, name)


def _declaration(runnable: BaseWorkflow[Any], task: Task[Any, Any], kind: str) -> str:
    if not isinstance(runnable, Standalone):
        name = declaration_compat.config_of(runnable).name
        return f"client.workflow(name={name!r}, input_validator={kind})"
    durable = "durable_" if declaration_compat.pool_of(task) == "durable" else ""
    prefix = "batch_" if declaration_compat.is_batch(task) else durable
    return f"@client.{prefix}task(input_validator={kind}), or @client.with_ctx above the function"


def is_message(annotation: object) -> bool:
    """Whether the annotation is a type of messages, so that the parameter can only be the message."""
    return input_type(annotation) is not None


def type_name(kind: object) -> str:
    """The type as the user writes it."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def fits_no_message(kind: object) -> bool:
    """Whether no message can be of this type: it is a number, a text or a list."""
    return any((get_origin(kind) or kind) is each for each in _NO_OBJECTS)


def no_object(what: str) -> str:
    """The sentence about a type that no message fits."""
    return f"a message is an object, and {what}: write a model with this field, class Message(BaseModel)"


def refuse_input_type(decorator: str, validator: object) -> None:
    """Refuse an ``input_validator`` that no message can fit.

    Raises:
        DecorationError: It is text, an object of a model, or a type of numbers, texts or lists.
    """
    if isinstance(validator, str):
        raise DecorationError(
            decorator, repr(validator), f"input_validator is a type, not text: write input_validator={validator}"
        )
    if isinstance(validator, BaseModel):
        name = type(validator).__name__
        raise DecorationError(
            decorator, name, f"input_validator is a type, not an object of it: write input_validator={name}"
        )
    if fits_no_message(validator):
        name = type_name(validator)
        raise DecorationError(decorator, name, no_object(f"input_validator is {name}"))
