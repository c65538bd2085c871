"""The private names of the SDK on clients, tasks and workflows as they are declared.

A program cannot declare its tasks without them, so what a newer SDK holds under another name is found by its type.
What runs an attempt is in ``compat.py``.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_origin

from hatchet_sdk import Hatchet
from hatchet_sdk.client import Client
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.types import WorkflowConfig
from hatchet_sdk.runnables.workflow import BaseWorkflow, Standalone, Workflow
from pydantic import PlainValidator, TypeAdapter, ValidationInfo

from mageflow.signatures import unpack_result

# pyright: reportPrivateUsage=false

__all__ = [
    "config_of",
    "debug_of",
    "default_metadata_of",
    "is_batch",
    "is_stub",
    "pool_of",
    "set_client",
    "set_input_type",
    "take_any_result",
    "taking_json",
    "task_of",
]

_JSON_OBJECT: TypeAdapter[Any] = TypeAdapter(dict[str, Any])
_BARE_TYPES = (int, float, str, bool, list, tuple, set, frozenset)
_STUBS_MODULE = "hatchet_sdk.features.stubs"


def debug_of(hatchet: Hatchet) -> bool:
    """Whether a client was made with ``debug``; its ``config`` may not contain it."""
    return bool(getattr(hatchet, _held_as(hatchet, "_client", Client)).debug)


def set_client(hatchet: Hatchet, client: Client) -> None:
    """Let a Hatchet client use this internal client."""
    setattr(hatchet, _held_as(hatchet, "_client", Client), client)


def _held_as(owner: object, name: str, kind: type[Any]) -> str:
    """The name of an attribute: ``name``, or in an SDK that has renamed it that of the only value of the type.

    Raises:
        AttributeError: There is none, or more than one.
    """
    if hasattr(owner, name):
        return name
    found = [each for each, value in vars(owner).items() if isinstance(value, kind)]
    if len(found) != 1:
        raise AttributeError(f"{type(owner).__name__} has no {name!r}")
    return found[0]


def task_of(standalone: Standalone[Any, Any]) -> Task[Any, Any]:
    """The task inside a stand-alone task."""
    task: Task[Any, Any] = getattr(standalone, _held_as(standalone, "_task", Task))
    return task


def taking_json(runnable: BaseWorkflow[Any]) -> BaseWorkflow[Any]:
    """A copy of a stand-alone task or a workflow whose runs take a dictionary of JSON values and send it as it is."""
    config = config_of(runnable).model_copy(update={"input_validator": _JSON_OBJECT})
    copied = copy.copy(runnable)
    held_as = _held_as(copied, "_config", WorkflowConfig)
    setattr(copied, held_as, config)
    if isinstance(copied, Standalone):
        inner = _held_as(copied, "_workflow", Workflow)
        setattr(copied, inner, copy.copy(getattr(copied, inner)))
        setattr(getattr(copied, inner), held_as, config)
        validator = _held_as(copied, "_output_validator", TypeAdapter)
        setattr(copied, validator, _unpacking(getattr(copied, validator)))
    return copied


def _unpacking(validator: TypeAdapter[Any]) -> TypeAdapter[Any]:
    """A validator of the result that a signed run packed, if it did."""

    def validate(output: Any, info: ValidationInfo) -> Any:
        result = unpack_result(output)
        # A result that is no object needs no type: its task may have none that Hatchet knows.
        return validator.validate_python(result, context=info.context) if result is output else result

    return TypeAdapter(Annotated[Any, PlainValidator(validate)])


def take_any_result(task: Task[Any, Any]) -> None:
    """Let signed runs of a task whose annotation names a number, a text or a list send that, packed.

    Plain runs of it fail as in Hatchet.
    """
    kind = task._validators.step_output._type
    if (get_origin(kind) or kind) in _BARE_TYPES:
        task._validators.step_output = TypeAdapter(Any)


def set_input_type(workflow: BaseWorkflow[Any], kind: Any) -> None:
    """Set the input type of a workflow that has none."""
    config_of(workflow).input_validator = TypeAdapter(kind)


def config_of(workflow: BaseWorkflow[Any]) -> WorkflowConfig:
    """A workflow's configuration, as declared (its ``name`` is not namespaced)."""
    config: WorkflowConfig = getattr(workflow, _held_as(workflow, "_config", WorkflowConfig))
    return config


def default_metadata_of(workflow: BaseWorkflow[Any]) -> Mapping[str, Any]:
    """What the declaration of a workflow gives each of its runs."""
    return config_of(workflow).default_additional_metadata


def pool_of(task: Task[Any, Any]) -> str:
    """The slots that the task takes: ``durable`` or ``default``."""
    return "durable" if getattr(task, "_is_durable", False) else "default"


def is_batch(task: Task[Any, Any]) -> bool:
    """Whether it is a batch task; SDKs before 1.37 have none."""
    return getattr(task, "batch", None) is not None


def is_stub(func: Callable[..., Any]) -> bool:
    """Whether the function is the placeholder of ``hatchet.stubs.task``. It is never called."""
    return getattr(func, "__module__", "") == _STUBS_MODULE
