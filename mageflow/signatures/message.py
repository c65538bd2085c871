"""Where a task wants the previous result or the error: annotations users write in their input models. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self, get_args, get_origin, get_type_hints

from pydantic import AwareDatetime, BaseModel, ConfigDict

from mageflow.types import Outcome

__all__ = ["ERROR_FIELD", "RESULT_FIELD", "FailureRecord", "ReturnValue", "TaskError", "error_field", "result_field"]

RESULT_FIELD: Final = "mageflow_results"
"""Where the previous result goes when no field of the input model is annotated with `ReturnValue`."""

ERROR_FIELD: Final = "mageflow_error"
"""Where the error goes when no field of the input model is annotated with `TaskError`."""


class ReturnValue:
    """Marks the field of an input model that receives the previous step's result.

    Written ``data: ReturnValue[int]`` or ``data: Annotated[int, ReturnValue()]``. A success callback gets what the
    task returned, a chain step what the step before it returned, a swarm's success callback the list of results in
    task order (``null`` where an item failed). Without a marked field the value arrives as ``mageflow_results``.
    """

    def __class_getitem__(cls, annotation: Any) -> Any:
        return Annotated[annotation, cls()]


class FailureRecord(BaseModel):
    """Why an attempt failed, as it is stored.

    Attributes:
        type: The exception's class name; ``TaskTimedOut``, ``TaskCancelled``, ``TaskInterrupted``,
            ``TaskUnscheduled`` (no worker took it within its schedule timeout), ``WorkerLost``, ``UnknownTaskError``,
            ``FlowExpired`` or ``FlowUnavailable`` where there was no exception of the task's own.
        message: The exception's text.
        task: The failing task's name.
        attempt: Which attempt it was, from 1.
        outcome: ``failed``, ``timed_out``, ``cancelled`` or ``retried``.
        at: When, in UTC.
    """

    model_config = ConfigDict(frozen=True)

    type: str
    message: str = ""
    task: str = ""
    attempt: int = 1
    outcome: Outcome = "failed"
    at: AwareDatetime

    @classmethod
    def interrupted(cls, why: str) -> Self:
        """The error a signature or flow ends with when it is interrupted now."""
        return cls(type="TaskInterrupted", message=why, outcome="cancelled", at=datetime.now(UTC))


class TaskError(BaseModel):
    """What an error callback receives, in the field annotated with this class (else ``mageflow_error``).

    Attributes:
        type: The exception's class name; see `FailureRecord`.
        message: The exception's text.
        task: The failing task's name; for a swarm, of the failure that ended it.
        attempt: Which attempt it was, from 1.
        outcome: ``failed``, ``timed_out`` or ``cancelled``.
        at: When, in UTC.
        signature: Key of what failed: a signature, a step or a flow.
        original_message: The input the failing task (or the flow) was started with.
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


def result_field(model: object) -> str:
    """The field of an input model that wants the previous result; `RESULT_FIELD` when none is marked.

    >>> class Message(BaseModel):
    ...     data: ReturnValue[int]
    >>> result_field(Message)
    'data'
    """
    return _marked(model, RESULT_FIELD, _is_return_value)


def error_field(model: object) -> str:
    """The field of an input model that wants the error; `ERROR_FIELD` when none is annotated `TaskError`."""
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
    except (NameError, TypeError):  # a forward reference that cannot be resolved here marks nothing
        return default
    for name, annotation in hints.items():
        if any(wanted(each) for each in _parts(annotation)):
            fields = getattr(model, "model_fields", {})
            alias = getattr(fields.get(name), "validation_alias", None)
            return alias if isinstance(alias, str) else name
    return default


def _parts(annotation: object) -> list[object]:
    """An annotation and what it wraps: members of unions and ``Annotated``, not the insides of containers."""
    found = [annotation]
    if get_origin(annotation) is Annotated:
        found += [part for each in get_args(annotation) for part in ([each] if each is not annotation else [])]
        found += _parts(get_args(annotation)[0])
    elif type(None) in get_args(annotation):
        found += [part for each in get_args(annotation) for part in _parts(each)]
    return found
