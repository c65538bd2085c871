"""The client is a Hatchet client: the same methods, keywords and types as the installed SDK."""

import copy
import inspect
import re
import typing
from datetime import timedelta
from typing import Any

import pytest
from hatchet_sdk import Context, EmptyModel, Hatchet, Worker
from hatchet_sdk.client import Client
from hatchet_sdk.clients.admin import AdminClient
from hatchet_sdk.clients.events import EventClient
from hatchet_sdk.features.cron import CronClient
from hatchet_sdk.features.runs import RunsClient
from hatchet_sdk.features.scheduled import ScheduledClient
from hatchet_sdk.runnables.workflow import Workflow

from mageflow import HatchetMageflow, Mageflow
from mageflow.errors import ConfigurationError
from mageflow.hatchet import enqueue, options
from mageflow.hatchet.workflow import MageflowWorkflow


def keywords(method: Any) -> set[str]:
    return {name for name in inspect.signature(method).parameters if name != "self"}


@pytest.mark.parametrize(
    ("method", "typed", "explicit"),
    [
        (Hatchet.task, options.TaskOptions, {"name", "input_validator", "cron_input"}),
        (Hatchet.durable_task, options.DurableOptions, {"name", "input_validator", "cron_input"}),
        (Hatchet.batch_task, options.BatchOptions, {"name", "input_validator"}),
        (Hatchet.workflow, options.WorkflowOptions, {"name", "input_validator", "cron_input"}),
        (Workflow.task, options.StepOptions, {"name"}),
        (Workflow.durable_task, options.DurableStepOptions, {"name"}),
        (Workflow.batch_task, options.BatchStepOptions, {"name"}),
        (Workflow.on_failure_task, options.HookOptions, {"name"}),
        (Workflow.on_success_task, options.HookOptions, {"name"}),
    ],
)
def test_every_keyword_of_the_sdk_has_a_type_here(method: Any, typed: Any, explicit: set[str]) -> None:
    """A keyword that a new SDK adds, drops or renames fails this test, not a user's type checker."""
    assert set(typing.get_type_hints(typed)) | explicit == keywords(method)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        *(
            (getattr(Mageflow, name), getattr(Hatchet, name))
            for name in ("task", "durable_task", "batch_task", "workflow")
        ),
        *(
            (getattr(MageflowWorkflow, name), getattr(Workflow, name))
            for name in ("task", "durable_task", "batch_task", "on_failure_task", "on_success_task")
        ),
    ],
)
def test_methods_that_declare_show_the_sdks_signature(ours: Any, theirs: Any) -> None:
    """``help(client.task)`` lists every keyword, not ``**options``."""
    assert inspect.signature(ours) == inspect.signature(theirs)


def test_steps_of_a_workflow_take_options_by_position(mageflow_client: Mageflow, mageflow_hatchet: Hatchet) -> None:
    """The SDK does not make them keyword-only, so programs may pass them like this."""
    minutes = [timedelta(minutes=number) for number in (3, 4)]

    async def step(msg: EmptyModel, ctx: Context) -> dict[str, Any]:
        return {}

    for name, given in (
        ("task", ("step", *minutes, [], 2)),
        ("durable_task", ("step", *minutes, [], 2)),
        ("on_failure_task", ("step", *minutes, 2)),
        ("on_success_task", ("step", *minutes, 2)),
    ):
        made = [
            getattr(client.workflow(name="w"), name)(*given)(step) for client in (mageflow_client, mageflow_hatchet)
        ]
        assert [(each.schedule_timeout, each.execution_timeout, each.retries) for each in made] == [(*minutes, 2)] * 2


def test_what_holds_a_client_can_be_copied(mageflow_client: Mageflow) -> None:
    """As with the plain client: records are copied deeply by ``dataclasses.asdict`` and by pydantic."""
    workflow = mageflow_client.workflow(name="w")
    assert copy.deepcopy(mageflow_client) is mageflow_client
    assert copy.deepcopy([workflow])[0].name == "w"


@pytest.mark.parametrize("name", ["worker", "from_embedded", "stop_embedded", "aio_stop_embedded"])
def test_methods_with_plain_signatures_take_the_same_keywords(name: str) -> None:
    """A method that is overridden without typed options has the SDK's parameters in the SDK's order."""
    ours, theirs = inspect.signature(getattr(Mageflow, name)), inspect.signature(getattr(Hatchet, name))
    assert list(ours.parameters) == list(theirs.parameters)


@pytest.mark.parametrize(
    ("ours", "theirs", "methods"),
    [
        (enqueue.ObservedAdminClient, AdminClient, ["run_workflow", "aio_run_workflow", "run_workflows"]),
        (enqueue.ObservedAdminClient, AdminClient, ["aio_run_workflows", "schedule_workflow"]),
        (enqueue.ObservedRunsClient, RunsClient, ["create"]),
        (enqueue.ObservedScheduledClient, ScheduledClient, ["create"]),
        (enqueue.SourcedCronClient, CronClient, ["create"]),
    ],
)
def test_observed_methods_take_the_same_parameters(ours: Any, theirs: Any, methods: list[str]) -> None:
    """The SDK's own code calls these by position and by keyword."""
    for name in methods:
        expected = list(inspect.signature(getattr(theirs, name)).parameters)
        assert list(inspect.signature(getattr(ours, name)).parameters) == expected


@pytest.mark.parametrize(
    ("theirs", "through"),
    [
        (AdminClient.aio_schedule_workflow, "self.schedule_workflow"),
        (CronClient.aio_create, "self.create"),
        (ScheduledClient.aio_create, "self.create"),
        (RunsClient.aio_create, "self.create"),
    ],
)
def test_asynchronous_twins_still_go_through_the_synchronous_method(theirs: Any, through: str) -> None:
    """Observing the synchronous method is enough as long as the asynchronous one calls it."""
    assert through in inspect.getsource(theirs)


def test_event_methods_keep_the_order_the_observer_relies_on() -> None:
    """``options`` and ``additional_metadata`` may be given by position."""
    for name in ("push", "aio_push"):
        assert list(inspect.signature(getattr(EventClient, name)).parameters)[1:5] == [
            "event_key",
            "payload",
            "options",
            "additional_metadata",
        ]


def test_the_clients_the_sdk_makes_are_all_accounted_for() -> None:
    """A new feature client of the SDK may start runs: it must be examined before it is added here."""
    source = inspect.getsource(Client.__init__)
    known = {
        "admin", "cel", "config", "cron", "debug", "dispatcher", "event", "filters", "listener", "log_interceptor",
        "logs", "metrics", "rate_limits", "runs", "scheduled", "tenant", "webhooks", "workers", "workflow_listener",
        "workflows",
    }  # fmt: skip
    assert set(re.findall(r"^\s+self\.(\w+) = ", source, re.MULTILINE)) <= known


def test_a_mageflow_client_is_a_hatchet_client(mageflow_client: Mageflow) -> None:
    """``isinstance`` holds, and every public name of the SDK's client is there."""
    assert isinstance(mageflow_client, Hatchet)
    assert HatchetMageflow is Mageflow
    assert {name for name in dir(Hatchet) if not name.startswith("_")} <= set(dir(mageflow_client))
    workflow = mageflow_client.workflow(name="w")
    assert isinstance(workflow, MageflowWorkflow)
    assert isinstance(workflow, Workflow)


def test_the_given_client_and_lists_are_left_alone(mageflow_hatchet: Hatchet) -> None:
    """The given client, its config and the list of workflows are not changed."""
    config = mageflow_hatchet.config.model_copy(deep=False)
    inner = dict(vars(mageflow_hatchet._client))
    client = Mageflow(mageflow_hatchet)

    @client.task(name="t")
    async def t(msg: dict[str, Any]) -> dict[str, Any]:
        return msg

    workflows: list[Any] = [t]
    worker = client.worker("w", workflows=workflows)
    assert isinstance(worker, Worker)
    assert workflows == [t]
    assert isinstance(client.worker("no-workflows"), Worker)
    assert mageflow_hatchet.config == config
    assert dict(vars(mageflow_hatchet._client)) == inner


def test_what_is_no_hatchet_client_is_refused(mageflow_hatchet: Hatchet) -> None:
    """The error has the line to write."""
    with pytest.raises(ConfigurationError, match=r"write Mageflow\(Hatchet\(\)\), not Mageflow\(str\)"):
        Mageflow("redis://localhost")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="redis"):
        Mageflow(mageflow_hatchet, "http://localhost")
