"""The fields of an input model that receive the previous result and the error. Pure, no I/O."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self, cast, get_args, get_origin, get_type_hints

from pydantic import AwareDatetime, BaseModel, ConfigDict

from mageflow.error_text import STORED_CHARACTERS, clipped
from mageflow.signatures.sent import input_key
from mageflow.types import Outcome

__all__ = [
    "ERROR_FIELD",
    "RESULT_FIELD",
    "FailureRecord",
    "ReturnValue",
    "TaskError",
    "error_field",
    "pack_result",
    "result_field",
    "unpack_result",
]

RESULT_FIELD: Final = "mageflow_results"
"""The field that receives the previous result if no field of the input model is annotated `ReturnValue`."""

ERROR_FIELD: Final = "mageflow_error"
"""The field that receives the error if no field of the input model is annotated `TaskError`."""


_PACKED: Final = "mageflow_result"


def pack_result(value: object) -> dict[str, Any]:
    """A result that is no object, such as a number, as the object that Hatchet takes."""
    return {_PACKED: value}


def unpack_result(output: Any) -> Any:
    """The result of a task from its output in Hatchet: the value that was packed, else the output as it is."""
    if isinstance(output, dict):
        found = cast("dict[str, Any]", output)
        if found.keys() == {_PACKED}:
            return found[_PACKED]
    return output


class ReturnValue:
    """Marks the field of an input model that receives the previous result.

    Write ``data: ReturnValue[int]`` or ``data: Annotated[int, ReturnValue()]``. The field has the type in the brackets.
    If several fields are marked, the first one receives the value; if none is, it arrives in ``mageflow_results``.

    The value is, as JSON:

    - for a step of a chain: the result of the step before;
    - for a success callback of a task or a chain: the result of the task or of the last step;
    - for a success callback of a swarm: the list of results in task order, with ``null`` where an item failed;
    - for the first step of a nested chain and every item of a nested swarm: the result the parent flow carries over.
    """

    def __class_getitem__(cls, annotation: Any) -> Any:
        return Annotated[annotation, cls()]


class FailureRecord(BaseModel):
    """The stored error of an attempt.

    Attributes:
        type: Class name of the exception. If the task raised none: ``TaskTimedOut``, ``TaskCancelled``,
            ``TaskInterrupted``, ``TaskUnscheduled`` (no worker took the run within its schedule timeout),
            ``WorkerLost``, ``UnknownTaskError`` (no worker has declared the task), ``FlowExpired`` (a nested flow
            expired or was removed while it ran) or ``FlowUnavailable`` (a nested flow could not be started).
        message: Text of the exception, at most about 32,768 characters.
        task: Name of the task that failed.
        attempt: Number of the attempt, from 1.
        outcome: ``failed``, ``timed_out``, ``cancelled`` or ``retried``.
        at: When it failed, in UTC.
    """

    model_config = ConfigDict(frozen=True)

    type: str
    message: str = ""
    task: str = ""
    attempt: int = 1
    outcome: Outcome = "failed"
    at: AwareDatetime

    @classmethod
    def without_task(cls, kind: str, message: str) -> Self:
        """The error, found now, of something that failed outside of a task function."""
        return cls(type=kind, message=message, at=datetime.now(UTC))

    @classmethod
    def interrupted(cls, why: str) -> Self:
        """The error of a signature or flow that is interrupted now."""
        return cls(
            type="TaskInterrupted", message=clipped(why, STORED_CHARACTERS), outcome="cancelled", at=datetime.now(UTC)
        )


class TaskError(BaseModel):
    """The error that an error callback receives.

    Annotate the message of the callback with this class, ``async def on_error(error: TaskError)``, or a field of its
    input model: ``error: TaskError``. Else the error arrives in the field ``mageflow_error``. The other fields of the
    callback's input are those of the failed input.

    Attributes:
        type: Class name of the exception. If the task raised none: ``TaskTimedOut``, ``TaskCancelled``,
            ``TaskInterrupted``, ``TaskUnscheduled`` (no worker took the run within its schedule timeout),
            ``WorkerLost``, ``UnknownTaskError`` (no worker has declared the task), ``FlowExpired`` (a nested flow
            expired or was removed while it ran) or ``FlowUnavailable`` (a nested flow could not be started).
        message: Text of the exception, at most about 32,768 characters; the ``why`` of an interruption.
        task: Name of the task that failed; for a flow, the task whose failure ended it.
        attempt: Number of the attempt, from 1.
        outcome: ``failed``, ``timed_out`` or ``cancelled``.
        at: When it failed, in UTC.
        signature: Key of the signature, the member or the flow that failed.
        original_message: Input of the failed task; for a flow, the message it was started with.
        failed_input: For a flow, the input of the step or item whose failure ended it, also in a nested flow. None for
            a task, if no input is known (an interrupted flow, a flow that could not be started), and if the error would
            be larger than 3,000,000 characters with it.
    """

    model_config = ConfigDict(frozen=True)

    type: str
    message: str = ""
    task: str = ""
    attempt: int = 1
    outcome: Outcome = "failed"
    at: datetime | None = None
    signature: str = ""
    original_message: Any = None
    failed_input: Any = None


def result_field(model: object) -> str:
    """The field of an input model that receives the previous result; `RESULT_FIELD` if none is marked.

    >>> class Message(BaseModel):
    ...     data: ReturnValue[int]
    >>> result_field(Message)
    'data'
    """
    return _marked(model, RESULT_FIELD, _is_return_value)


def error_field(model: object) -> str:
    """The field of an input model that receives the error; `ERROR_FIELD` if none is annotated `TaskError`.

    Empty if the model is `TaskError`: the error is the whole input.
    """
    if isinstance(model, type) and issubclass(model, TaskError):
        return ""
    return _marked(model, ERROR_FIELD, _is_task_error)


def _is_return_value(part: object) -> bool:
    return isinstance(part, ReturnValue) or part is ReturnValue


def _is_task_error(part: object) -> bool:
    return part is TaskError


def _marked(model: object, default: str, wanted: Callable[[object], bool]) -> str:
    if not isinstance(model, type):
        return default
    try:
        hints = get_type_hints(model, include_extras=True)
    except (NameError, TypeError):  # a forward reference that cannot be resolved marks no field
        return default
    for name, annotation in hints.items():
        if any(wanted(each) for each in _parts(annotation)):
            return input_key(model, name)
    return default


def _parts(annotation: object) -> list[object]:
    """An annotation and the parts of its unions and ``Annotated``; containers are not opened."""
    found = [annotation]
    if get_origin(annotation) is Annotated:
        found += [part for each in get_args(annotation) for part in ([each] if each is not annotation else [])]
        found += _parts(get_args(annotation)[0])
    elif type(None) in get_args(annotation):
        found += [part for each in get_args(annotation) for part in _parts(each)]
    return found
