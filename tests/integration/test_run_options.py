"""What a run of a signature or flow is given arrives in every run that belongs to it; what is unknown is an error.

The table of ``docs/signatures.md`` is the list of the cases here.
"""

import asyncio
import inspect
import re
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hatchet_sdk import Context
from hatchet_sdk.runnables.workflow import Standalone
from hatchet_sdk.types.priority import Priority
from hatchet_sdk.types.trigger import TriggerWorkflowOptions
from pydantic import AliasChoices, BaseModel, Field
from typing_extensions import TypedDict

from mageflow import AcceptParams, Settings, SwarmConfig
from mageflow.errors import ConfigurationError, FlowDefinitionError
from mageflow.hatchet.run_options import flow_options
from mageflow.testing import capture_logs
from tests.integration.conftest import until

GIVEN = {"tenant": "acme", "trace": {"deep": [1, 2]}}
OPTIONS: dict[str, Any] = {"additional_metadata": GIVEN, "priority": Priority.HIGH}


class Message(BaseModel):
    x: int = 0
    fails: bool = False


class Seen:
    """Tasks that note which metadata and priority their runs had."""

    def __init__(self, client: Any) -> None:
        self.runs: dict[str, list[tuple[Any, int]]] = {}
        self.tasks = {name: self._task(client, name) for name in ("one", "two", "then", "catch", "nested")}
        self.tasks["own"] = self._task(
            client, "own", default_additional_metadata={"team": "ships"}, default_priority=Priority.MEDIUM
        )

    def _task(self, client: Any, name: str, **options: Any) -> Any:
        async def task(msg: Message, ctx: Context) -> dict[str, Any]:
            given = {key: value for key, value in ctx.additional_metadata.items() if key in {"tenant", "trace", "team"}}
            self.runs.setdefault(name, []).append((given, ctx.priority))
            if msg.fails and name == "one":
                raise ValueError("as planned")
            return {"from": name}

        return client.task(name=name, **options)(client.with_ctx(task))

    def __getattr__(self, name: str) -> Any:
        return self.tasks[name]


@pytest.fixture
def client(make_observed, mageflow_redis):
    return make_observed(mageflow_redis.url, param_config=AcceptParams.NO_CTX).client


@pytest.fixture
def seen(client, mageflow_worker) -> Seen:
    seen = Seen(client)
    mageflow_worker.in_process(client, "options", workflows=list(seen.tasks.values()))
    return seen


async def test_metadata_and_priority_reach_every_run_of_a_flow(client, seen):
    """Steps, items, callbacks of all of them, and the runs of nested flows."""
    inner = await client.swarm([seen.nested, seen.nested], closed=True, success_callbacks=[seen.then])
    step = await client.sign(seen.one, success_callbacks=[seen.then])
    chain = await client.chain([step, inner, seen.two], success=[await client.sign(seen.then)])

    await chain.aio_run(**OPTIONS)
    await until(lambda: len(seen.runs.get("then", [])) == 3)

    assert {name: len(runs) for name, runs in seen.runs.items()} == {"one": 1, "nested": 2, "two": 1, "then": 3}
    assert seen.runs
    assert all(run == (GIVEN, 3) for runs in seen.runs.values() for run in runs)


async def test_metadata_and_priority_reach_the_callbacks_of_a_signature(client, seen):
    """Success and error, callbacks of callbacks, and each run of a signature hands on its own."""
    last = await client.sign(seen.two, success_callbacks=[await client.chain([seen.nested, seen.nested])])
    signature = await client.sign(seen.one, success_callbacks=[last], error_callbacks=[seen.catch])

    await asyncio.gather(signature.aio_run(**OPTIONS), signature.aio_run(additional_metadata={"tenant": "other"}))
    await until(lambda: len(seen.runs.get("nested", [])) == 2)
    with pytest.raises(Exception, match="as planned"):
        await signature.aio_run({"fails": True}, additional_metadata=GIVEN, priority=Priority.MEDIUM)
    await until(lambda: "catch" in seen.runs)

    assert sorted(seen.runs["two"], key=lambda run: run[1]) == [({"tenant": "other"}, 1), (GIVEN, 3)]
    assert seen.runs["nested"] in ([(GIVEN, 3)] * 2, [({"tenant": "other"}, 1)] * 2)  # a chain runs once
    assert seen.runs["catch"] == [(GIVEN, 2)]


async def test_what_a_task_declares_holds_where_nothing_is_given(client, seen):
    """Default metadata and priority of a declaration hold for steps and callbacks; what the run is given wins."""
    chain = await client.chain([seen.one, seen.own])
    await chain.aio_run(additional_metadata={"tenant": "acme"})
    strict = await client.chain([seen.one, seen.own])
    await strict.aio_run(additional_metadata={"team": "mine"}, priority=Priority.HIGH)

    assert seen.runs["own"] == [({"team": "ships", "tenant": "acme"}, 2), ({"team": "mine"}, 3)]
    assert seen.runs["one"] == [({"tenant": "acme"}, 1), ({"team": "mine"}, 3)]


async def test_options_survive_a_suspension(client, seen):
    """What a suspended flow is started with, and what a held run was given, is kept until resume."""
    chain = await client.chain([seen.one, seen.two])
    signature = await client.sign(seen.nested, success_callbacks=[seen.then])
    await chain.suspend()
    await signature.suspend()
    await chain.aio_run_no_wait(**OPTIONS)
    with suppress(Exception):  # the run is held, and ends as cancelled in Hatchet
        await signature.aio_run(**OPTIONS)
    assert not seen.runs

    await chain.resume()
    await signature.resume()
    await until(lambda: {"two", "then"} <= seen.runs.keys())

    assert seen.runs
    assert all(run == (GIVEN, 3) for runs in seen.runs.values() for run in runs)


async def test_a_flow_can_be_started_without_waiting(client, seen):
    """``wait_for_result=False``, as the SDK's ``run`` takes it, and the SDK's object of options."""
    chain = await client.chain([seen.one, seen.two])

    reference = await chain.aio_run(wait_for_result=False, options=TriggerWorkflowOptions(**OPTIONS))

    assert reference is chain
    await until(lambda: "two" in seen.runs)
    assert seen.runs == {"one": [(GIVEN, 3)], "two": [(GIVEN, 3)]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priorty": 3}, "no option 'priorty'; did you mean 'priority'?"),
        ({"additional_metadata": {"a": object()}}, "additional_metadata cannot be stored as JSON"),
        ({"additional_metadata": "tenant"}, "additional_metadata cannot be used"),
        ({"priority": 4}, "priority cannot be used"),
        ({"sticky": True}, "sticky means nothing for a chain or swarm"),
        ({"child_key": "a"}, "child_key means nothing for a chain or swarm"),
        ({"options": TriggerWorkflowOptions(key="a")}, "key means nothing for a chain or swarm"),
        ({"desired_worker_id": "a"}, "desired_worker_id means nothing for a chain or swarm"),
        ({"desired_worker_labels": [1]}, "desired_worker_labels means nothing for a chain or swarm"),
    ],
)
async def test_what_a_flow_cannot_use_is_refused(client, seen, options, message):
    """Nothing starts. Before, every option of a flow was ignored."""
    chain = await client.chain([seen.one, seen.two])

    with pytest.raises(ConfigurationError, match=re.escape(message)):
        await chain.aio_run(**options)

    assert (await client.load_signature(chain.key)).status == "pending"


async def test_an_unknown_option_of_a_signature_is_refused(client, seen):
    """The same error for every method."""
    signature = await client.sign(seen.one)

    for run in (signature.aio_run, signature.aio_run_no_wait):
        with pytest.raises(ConfigurationError, match="did you mean 'priority'"):
            await run(priorty=3)
    for run in (signature.run, signature.run_no_wait):
        with pytest.raises(ConfigurationError, match="did you mean 'child_key'"):
            run(childkey="a")


async def test_a_child_key_of_a_signature_reaches_hatchet(client, mageflow_worker):
    """A signature runs with the SDK's own method: a second child with the same key is the first one again."""
    ran: list[int] = []

    @client.task(name="child")
    async def child(msg: Message) -> dict[str, Any]:
        ran.append(msg.x)
        return {"x": msg.x}

    @client.task(name="parent", execution_timeout=timedelta(seconds=30))
    async def parent(msg: Message) -> dict[str, Any]:
        signature = await client.sign(child)
        first = await signature.aio_run_no_wait({"x": 1}, child_key="same")
        again = await signature.aio_run_no_wait({"x": 2}, child_key="same")
        return {"runs": len({first.workflow_run_id, again.workflow_run_id})}

    mageflow_worker.in_process(client, "parents", workflows=[child, parent])

    assert await parent.aio_run(Message()) == {"runs": 1}
    await until(lambda: ran == [1])


def test_the_table_of_the_page_lists_every_option():
    """Each keyword of the SDK's ``run``, once; what is refused there is refused by the code."""
    page = (Path(__file__).parents[2] / "docs" / "signatures.md").read_text()
    section = page.split("## Options of a run", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", section, re.MULTILINE))

    assert list(rows) != []
    assert sorted(rows) == sorted(set(inspect.signature(Standalone.run).parameters) - {"self", "input"})
    refused = {name for name, where in rows.items() if where == "refused"}
    for name in sorted(rows.keys() - {"options", "wait_for_result"}):
        value = {"additional_metadata": {}, "priority": 1}.get(name, "x")
        with pytest.raises(ConfigurationError) if name in refused else nullcontext():
            flow_options({name: value})


# -- unknown names -------------------------------------------------------------------------------------------------


@dataclass
class Row:
    number: int = 0


class Shape(TypedDict, total=False):
    edges: int


class Aliased(BaseModel):
    order: int = Field(default=0, validation_alias=AliasChoices("orderNumber", "order_number"))


async def test_a_value_bound_to_no_field_is_refused(client):
    """For a pydantic model with aliases, a dataclass and a TypedDict; for one task and for a flow of several."""

    @client.task(name="rows")
    async def rows(msg: Row) -> None: ...

    @client.task(name="shapes", input_validator=Shape)
    async def shapes(msg: Shape) -> None: ...

    @client.task(name="aliases")
    async def aliases(msg: Aliased) -> None: ...

    for task, wrong, meant in ((rows, "nummber", "number"), (shapes, "edgse", "edges"), (aliases, "orderNumbr", None)):
        with pytest.raises(FlowDefinitionError, match=f"no field '{wrong}'; did you mean '{meant or 'orderNumber'}'"):
            await client.sign(task, **{wrong: 1})
    await client.sign(aliases, orderNumber=1)
    await client.sign("not-declared-here", anything=1)

    await client.chain([rows, shapes], edges=1)  # one of the steps has it
    with pytest.raises(FlowDefinitionError, match="every member of 'chain:rows' has no field 'edgs'; did you mean"):
        await client.chain([rows, shapes], edgs=1)
    with pytest.raises(FlowDefinitionError, match="did you mean 'closed'"):
        await client.swarm([rows], cloosed=True)
    await client.swarm([rows, "not-declared-here"], anything=1)
    await client.swarm(shared=1)  # its items are not known yet


def test_a_misspelt_field_of_a_configuration_is_an_error():
    """`SwarmConfig` and `Settings`. Stored documents of a later release may have more fields."""
    with pytest.raises(ConfigurationError, match="no field 'max_concurency'; did you mean 'max_concurrency'"):
        SwarmConfig(max_concurency=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="no field 'metrics_prot'; did you mean 'metrics_port'"):
        Settings(metrics_prot=1)  # type: ignore[call-arg]


def test_a_misspelt_variable_of_the_environment_is_a_warning(monkeypatch):
    """A program may share its environment with another release, so this is no error."""
    monkeypatch.setenv("MAGEFLOW_METRICS_PROT", "1")
    monkeypatch.setenv("mageflow_key_prefix", "as-good-as-in-capitals")

    with capture_logs() as logs:
        settings = Settings()

    assert settings.key_prefix == "as-good-as-in-capitals"
    warnings = [event["event"] for event in logs]
    assert warnings == [
        "the environment variable MAGEFLOW_METRICS_PROT has no effect; did you mean 'MAGEFLOW_METRICS_PORT'?"
    ]


async def test_a_retry_runs_and_its_callbacks_get_the_priority_of_the_run(client, mageflow_worker):
    """Hatchet itself gives retries priority 4, which no caller can give; the callback has what the run was given."""
    seen: list[tuple[str, int]] = []

    @client.task(name="retried", retries=2)
    @client.with_ctx
    async def retried(msg: Message, ctx: Context) -> dict[str, Any]:
        seen.append(("retried", ctx.attempt_number))
        if ctx.attempt_number == 1:
            raise ValueError("not yet")
        return {}

    @client.task(name="after-retry")
    @client.with_ctx
    async def after(msg: Message, ctx: Context) -> dict[str, Any]:
        seen.append(("after", ctx.priority))
        return {}

    mageflow_worker.in_process(client, "retries", workflows=[retried, after])
    signature = await client.sign(retried, success_callbacks=[after])
    await asyncio.wait_for(signature.aio_run(priority=Priority.HIGH), 60)
    await until(lambda: len(seen) == 3)
    chain = await client.chain([retried, retried], success=after)
    await asyncio.wait_for(chain.aio_run(priority=Priority.MEDIUM), 60)
    await until(lambda: len(seen) == 8)

    assert seen[:3] == [("retried", 1), ("retried", 2), ("after", 3)]
    assert seen[3:] == [("retried", 1), ("retried", 2), ("retried", 1), ("retried", 2), ("after", 2)]
