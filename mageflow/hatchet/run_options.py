"""Keyword arguments of a signature's ``run`` methods: checked, and for a flow what its runs inherit of them."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

from hatchet_sdk.runnables.workflow import Standalone
from hatchet_sdk.types.trigger import TriggerWorkflowOptions

from mageflow.did_you_mean import hint
from mageflow.errors import ConfigurationError
from mageflow.signatures import RunOptions

__all__ = ["check_schedule_options", "check_task_options", "flow_options"]

_TASK_OPTIONS: Final = tuple(inspect.signature(Standalone.run).parameters)[2:]  # without self and input

_SCHEDULE_OPTIONS: Final = tuple(inspect.signature(Standalone.schedule).parameters)[3:]  # without self, run_at, input

_INHERITED: Final = ("additional_metadata", "priority")

_NOT_OF_FLOWS: Final = {
    "child_key": "its runs have no parent; each flow starts once already",
    "key": "its runs have no parent; each flow starts once already",
    "sticky": "its runs have no parent; declare sticky on the workflow of the step",
    "desired_worker_id": "its steps outlive a worker; give desired_worker_labels to the declaration of the task",
    "desired_worker_labels": "give them to the declaration of the task",
    "desired_worker_label": "give desired_worker_labels to the declaration of the task",
    "parent_id": "its runs have no parent",
    "parent_step_run_id": "its runs have no parent",
    "child_index": "its runs have no parent",
    "namespace": "set the namespace on the ClientConfig",
}


def check_task_options(options: Mapping[str, Any]) -> None:
    """Refuse what the SDK's ``run`` does not take.

    Raises:
        ConfigurationError: An option is unknown.
    """
    for name in options:
        if name not in _TASK_OPTIONS:
            raise ConfigurationError(f"a run has no option {name!r}{hint(name, _TASK_OPTIONS)}")


def check_schedule_options(options: Mapping[str, Any]) -> None:
    """Refuse what the SDK's ``schedule`` does not take.

    Raises:
        ConfigurationError: An option is unknown.
    """
    for name in options:
        if name not in _SCHEDULE_OPTIONS:
            raise ConfigurationError(f"a scheduled run has no option {name!r}{hint(name, _SCHEDULE_OPTIONS)}")


def flow_options(options: Mapping[str, Any]) -> RunOptions:
    """What every run of a chain or swarm is given. ``wait_for_result`` is left to the caller.

    Raises:
        ConfigurationError: An option is unknown, or means nothing for a flow.
    """
    given = {name: value for name, value in options.items() if name not in {"options", "wait_for_result"}}
    whole = options.get("options")
    if isinstance(whole, TriggerWorkflowOptions):  # as the SDK: an object counts alone
        given = {name: getattr(whole, name) for name in whole.model_fields_set}
    elif whole is not None:
        raise ConfigurationError(f"options must be TriggerWorkflowOptions, not {type(whole).__qualname__}")
    for name, value in given.items():
        if name in _INHERITED or (name in _NOT_OF_FLOWS and not value):
            continue
        if name in _NOT_OF_FLOWS:
            raise ConfigurationError(f"{name} means nothing for a chain or swarm: {_NOT_OF_FLOWS[name]}")
        known = (*_INHERITED, "wait_for_result")
        raise ConfigurationError(f"a run of a flow has no option {name!r}{hint(name, known)}")
    return RunOptions.checked(given.get("additional_metadata"), given.get("priority"))
