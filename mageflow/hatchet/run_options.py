"""Keyword arguments of a signature's ``run`` methods: checked, and for a flow what its runs inherit of them."""

import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

from hatchet_sdk.runnables.workflow import Standalone

from mageflow.did_you_mean import hint
from mageflow.errors import ConfigurationError, SdkFeatureError
from mageflow.hatchet.sdk_names import ScheduleTriggerWorkflowOptions, TriggerWorkflowOptions
from mageflow.signatures import RunOptions

__all__ = ["check_schedule_options", "check_task_options", "flow_options", "run_call", "schedule_call"]

_RUN: Final = tuple(inspect.signature(Standalone.run).parameters)[2:]  # without self and input

_SCHEDULE: Final = tuple(inspect.signature(Standalone.schedule).parameters)[3:]  # without self, run_at and input

_TAKES_KEYWORDS: Final = "additional_metadata" in _RUN
"""Before 1.31 the SDK takes one object with the options instead."""

_OF_EVERY_SDK: Final = ("child_key", "additional_metadata", "priority")

_TASK_OPTIONS: Final = (
    _RUN if _TAKES_KEYWORDS else (*_RUN, "wait_for_result", *_OF_EVERY_SDK, "sticky", "desired_worker_id")
)

_SCHEDULE_OPTIONS: Final = _SCHEDULE if _TAKES_KEYWORDS else (*_SCHEDULE, *_OF_EVERY_SDK)

_NEWER: Final = {"desired_worker_labels"} - {*_TASK_OPTIONS}

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
        SdkFeatureError: The installed SDK has no such option yet.
    """
    for name in options:
        if name in _NEWER:
            raise SdkFeatureError(f"the option {name!r} of a run", version("hatchet-sdk"))
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


def run_call(method: str, options: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The method of the installed SDK that does ``run`` or ``aio_run`` with these options, and its keywords."""
    if _TAKES_KEYWORDS:
        return method, options
    name = method if options.get("wait_for_result", True) else f"{method}_no_wait"
    given = {each: value for each, value in options.items() if each not in {"options", "wait_for_result"}}
    return name, {"options": options.get("options") or TriggerWorkflowOptions(**given)}


def schedule_call(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keywords of the installed SDK that do ``schedule`` with these options."""
    if _TAKES_KEYWORDS:
        return options
    given = {each: value for each, value in options.items() if each != "options"}
    return {"options": options.get("options") or ScheduleTriggerWorkflowOptions(**given)}


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
