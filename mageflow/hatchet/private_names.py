"""The private names of the SDK that each hook needs, and which of them the installed SDK lacks.

A hook around attempts is installed when a task is declared, and uses most of its names only when a run arrives. So all
of them are looked for before: an SDK that has moved one runs its tasks without the hook.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Final

from hatchet_sdk import Context, DurableContext, Hatchet, Worker
from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.workflow import BaseWorkflow, Standalone

__all__ = ["missing_names", "require_names"]

_NAMES: Final[Mapping[str, Mapping[type[Any], tuple[str, ...]]]] = {
    "attempts": {
        Task: (
            "_unpack_dependencies_with_cleanup", "_fn", "_is_async_function", "_validators", "_workflow",
        ),
        Context: ("_action", "_dispatcher_client", "_exit_flag", "_set_cancellation_flag", "_workflow_input"),
        DurableContext: ("_spawn_children_no_wait",),
        BaseWorkflow: ("_create_action_name", "_get_workflow_input"),
        DispatcherClient: ("refresh_timeout", "aio_client"),
    },
    "declarations": {
        Hatchet: ("_client",),
        BaseWorkflow: ("_config",),
        Standalone: ("_output_validator", "_task", "_workflow"),
    },
    "workers": {
        Worker: ("_action_registry", "_ctx", "_event_queue", "_lifespan", "_slot_config", "exit_gracefully"),
    },
}  # fmt: skip


def require_names(hook: str) -> None:
    """Look for every name of a hook.

    Raises:
        AttributeError: The installed SDK lacks one; the text names the first.
    """
    for owner, names in _NAMES[hook].items():
        for name in names:
            if not _has(owner, name):
                raise AttributeError(f"{owner.__name__} has no {name!r}")


def missing_names() -> list[str]:
    """The names that the installed SDK lacks, as ``Owner.name``; for ``mageflow doctor``."""
    return [
        f"{owner.__name__}.{name}"
        for group in _NAMES.values()
        for owner, names in group.items()
        for name in names
        if not _has(owner, name)
    ]


def _has(owner: type[Any], name: str) -> bool:
    """Whether a class has a method, or a method that uses an attribute of this name."""
    return hasattr(owner, name) or any(
        name in each.__code__.co_names
        for kind in owner.__mro__
        for each in vars(kind).values()
        if inspect.isfunction(each)
    )
