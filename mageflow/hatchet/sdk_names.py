"""The names of the SDK that SDKs before 1.31 have in another module, or without the underscore.

The rest of mageflow uses the newer names. It imports the types from here; the attributes it finds on the classes of the
SDK, to which this module adds the newer names. Nothing is added to an SDK that has them.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from hatchet_sdk import Context, Worker
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.workflow import BaseWorkflow

__all__ = [
    "BulkPushEventWithMetadata",
    "ConcurrencyExpression",
    "DesiredWorkerLabel",
    "Priority",
    "RateLimit",
    "ScheduleTriggerWorkflowOptions",
    "StickyStrategy",
    "TriggerWorkflowOptions",
    "WorkflowRunTriggerConfig",
    "create_authorization_header",
]

_HAS_TYPES: Final = find_spec("hatchet_sdk.types") is not None

if TYPE_CHECKING or _HAS_TYPES:
    from hatchet_sdk.types.concurrency import ConcurrencyExpression
    from hatchet_sdk.types.labels import DesiredWorkerLabel
    from hatchet_sdk.types.priority import Priority
    from hatchet_sdk.types.rate_limit import RateLimit
    from hatchet_sdk.types.sticky import StickyStrategy
    from hatchet_sdk.types.trigger import (
        BulkPushEventWithMetadata,
        ScheduleTriggerWorkflowOptions,
        TriggerWorkflowOptions,
        WorkflowRunTriggerConfig,
    )
    from hatchet_sdk.utils.api_auth import create_authorization_header
else:
    from hatchet_sdk.clients.admin import (
        ScheduleTriggerWorkflowOptions,
        TriggerWorkflowOptions,
        WorkflowRunTriggerConfig,
    )
    from hatchet_sdk.clients.events import BulkPushEventWithMetadata
    from hatchet_sdk.labels import DesiredWorkerLabel
    from hatchet_sdk.metadata import get_metadata as create_authorization_header
    from hatchet_sdk.rate_limit import RateLimit
    from hatchet_sdk.runnables.types import ConcurrencyExpression, StickyStrategy

    Priority = int

_ONCE_PUBLIC: Final[dict[type[Any], tuple[str, ...]]] = {
    BaseWorkflow: ("client", "config"),
    Context: ("action", "dispatcher_client", "exit_flag", "workflow_input"),
    Task: ("fn", "is_async_function", "is_durable", "validators", "workflow"),
    Worker: ("action_registry", "ctx", "event_queue", "lifespan", "slot_config"),
}


def _alias(name: str) -> property:
    def read(self: object) -> Any:
        return getattr(self, name)

    def write(self: object, value: Any) -> None:
        setattr(self, name, value)

    return property(read, write)


if not _HAS_TYPES:
    for owner, names in _ONCE_PUBLIC.items():
        for each in names:
            setattr(owner, f"_{each}", _alias(each))
    setattr(Context, "task_run_id", _alias("step_run_id"))  # noqa: B010 - the type has it already
