"""Each option of a run, at each place from which a run can be sent: what was given is what the run has.

The tables of ``docs/signatures.md`` are the list of the cases here. Options that a place refuses are in
``test_run_options.py``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hatchet_sdk import Context, StickyStrategy
from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus
from hatchet_sdk.types.labels import DesiredWorkerLabel
from hatchet_sdk.types.priority import Priority
from hatchet_sdk.types.trigger import TriggerWorkflowOptions
from pydantic import BaseModel

from mageflow import Settings, TaskError
from mageflow.engine import LocalEngine
from mageflow.testing.workers import running_worker
from tests.integration.conftest import until

METADATA = {"tenant": "acme", "deep": {"list": [1, 2]}}
GIVEN: dict[str, Any] = {"additional_metadata": METADATA, "priority": Priority.HIGH}
OBJECT = TriggerWorkflowOptions(**GIVEN)


class Message(BaseModel):
    x: int = 0
    fails: bool = False


@dataclass
class Stage:
    """Tasks that note the metadata, the priority and the worker of their runs."""

    client: Any
    runs: list[tuple[str, Any, int]] = field(default_factory=list[tuple[str, Any, int]])
    workers: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        client = self.client
        self.one = client.task(name="one", on_events=["place:happened"])(client.with_ctx(self._body("one")))
        self.two = client.task(name="two")(client.with_ctx(self._body("two")))
        self.then = client.task(name="then")(client.with_ctx(self._body("then")))
        self.catch = client.task(name="catch")(client.with_ctx(self._catch))
        self.both = client.workflow(name="both", input_validator=Message)
        self.both.task(name="first")(client.with_ctx(self._body("first")))
        self.both.task(name="second")(client.with_ctx(self._body("second")))
        self.single = client.workflow(name="single", input_validator=Message)
        self.single.task(name="only")(client.with_ctx(self._body("only")))
        self.sticky = client.workflow(name="sticky", sticky=StickyStrategy.HARD, input_validator=Message)
        self.sticky.task(name="here")(client.with_ctx(self._body("here")))
        self.parent = client.task(name="parent", execution_timeout=timedelta(seconds=60))(client.with_ctx(self._parent))
        self.in_parent: Callable[[Context], Awaitable[Any]] | None = None
        self.all = [self.one, self.two, self.then, self.catch, self.both, self.single, self.sticky, self.parent]

    def note(self, name: str, ctx: Context) -> None:
        given = {key: value for key, value in ctx.additional_metadata.items() if key in {"tenant", "deep"}}
        self.runs.append((name, given, ctx.priority))
        self.workers.append(ctx.worker_id)

    def _body(self, name: str) -> Any:
        async def body(msg: Message, ctx: Context) -> dict[str, Any]:
            self.note(name, ctx)
            if msg.fails and name == "one":
                raise ValueError("as planned")
            return {"x": msg.x}

        return body

    async def _catch(self, error: TaskError, ctx: Context) -> dict[str, Any]:
        self.note("catch", ctx)
        return {}

    async def _parent(self, msg: Message, ctx: Context) -> dict[str, Any]:
        assert self.in_parent is not None
        return {"found": await self.in_parent(ctx)}


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=0.5)


async def run_many(on: Stage) -> None:
    await on.one.aio_run_many([on.one.create_bulk_run_item(Message(), **GIVEN) for _ in range(2)])


async def callback_of_error(on: Stage) -> None:
    signature = await on.client.sign(on.one, error_callbacks=[on.catch])
    await signature.aio_run(Message(fails=True), wait_for_result=False, **GIVEN)


async def run_signed(on: Stage, task: Any, **options: Any) -> None:
    await (await on.client.sign(task)).aio_run(Message(), **(options or GIVEN))


async def callback(on: Stage) -> None:
    await (await on.client.sign(on.one, success_callbacks=[on.then])).aio_run(Message(), **GIVEN)


async def chain(on: Stage, *tasks: Any, **callbacks: Any) -> None:
    await (await on.client.chain(list(tasks), **callbacks)).aio_run(Message(), **GIVEN)


async def swarm(on: Stage, *tasks: Any) -> None:
    await (await on.client.swarm(list(tasks), closed=True, success_callbacks=[on.then])).aio_run(Message(), **GIVEN)


async def nested(on: Stage) -> None:
    inner = await on.client.chain([on.one, on.two])
    await chain(on, inner, await on.client.swarm([on.two, on.one], closed=True))


async def schedule(on: Stage, what: Any) -> None:
    await what.aio_schedule(soon(), Message(), **GIVEN)


async def schedule_signed(on: Stage) -> None:
    await schedule(on, await on.client.sign(on.one, success_callbacks=[on.then]))


async def schedule_chain(on: Stage) -> None:
    await schedule(on, await on.client.chain([on.one, on.two], success=[on.then]))


async def schedule_over_rest(on: Stage) -> None:
    """The SDK's method has no priority."""
    await on.client.scheduled.aio_create("one", soon(), {}, METADATA)


async def event(on: Stage) -> None:
    await on.client.event.aio_push("place:happened", {}, additional_metadata=METADATA, priority=Priority.HIGH)


PLACES: dict[str, tuple[Callable[[Stage], Awaitable[Any]], list[str]]] = {
    "a task": (lambda on: on.one.aio_run(Message(), **GIVEN), ["one"]),
    "a task, the object of options": (lambda on: on.one.aio_run(Message(), options=OBJECT), ["one"]),
    "run_many": (run_many, ["one", "one"]),
    "a workflow": (lambda on: on.both.aio_run(Message(), **GIVEN), ["first", "second"]),
    "a signature": (lambda on: run_signed(on, on.one), ["one"]),
    "a signature, the object of options": (lambda on: run_signed(on, on.one, options=OBJECT), ["one"]),
    "a signed workflow": (lambda on: run_signed(on, on.both), ["first", "second"]),
    "a success callback": (callback, ["one", "then"]),
    "an error callback": (callback_of_error, ["one", "catch"]),
    "a chain": (lambda on: chain(on, on.one, on.two, success=on.then), ["one", "two", "then"]),
    "a chain with a workflow": (lambda on: chain(on, on.both, on.two), ["first", "second", "two"]),
    "a swarm": (lambda on: swarm(on, on.one, on.two), ["one", "two", "then"]),
    "a swarm with a workflow": (lambda on: swarm(on, on.one, on.both), ["one", "first", "second", "then"]),
    "nested flows": (nested, ["one", "two", "two", "one"]),
    "a schedule": (lambda on: schedule(on, on.one), ["one"]),
    "a schedule of a workflow": (lambda on: schedule(on, on.both), ["first", "second"]),
    "a schedule over REST": (schedule_over_rest, ["one"]),
    "a schedule of a signature": (schedule_signed, ["one", "then"]),
    "a schedule of a chain": (schedule_chain, ["one", "two", "then"]),
    "an event": (event, ["one"]),
}


@pytest.fixture
def stage(make_observed: Any, mageflow_redis: Any, mageflow_worker: Any) -> Stage:
    settings = Settings(metrics_port=0, reconcile_interval_seconds=0.1)
    stage = Stage(make_observed(mageflow_redis.url, settings=settings).client)
    mageflow_worker.in_process(stage.client, "places", workflows=stage.all)
    return stage


@pytest.mark.filterwarnings("ignore:Passing options to the run:DeprecationWarning")
@pytest.mark.parametrize("place", PLACES)
async def test_metadata_and_priority_arrive_in_every_run(stage: Stage, place: str) -> None:
    """Exactly: nothing is lost, nothing is added to the part of the program, and the priority is not the default."""
    send, names = PLACES[place]
    await send(stage)
    await until(lambda: len(stage.runs) >= len(names), 30)
    priority = 1 if place == "a schedule over REST" else 3
    assert sorted(stage.runs, key=str) == sorted([(name, METADATA, priority) for name in names], key=str)


async def test_a_batch_keeps_the_metadata_of_each_run(make_observed: Any, mageflow_worker: Any) -> None:
    """Hatchet has it of each run. A batch is one attempt of many runs, so its context has none of one of them."""
    client = make_observed().client

    @client.batch_task(name="batched", batch_max_size=2, batch_max_interval=timedelta(seconds=5))
    @client.with_ctx
    async def batched(messages: dict[str, Message], ctx: Context) -> dict[str, Any]:
        return {member: {"x": message.x} for member, message in messages.items()}

    mageflow_worker.in_process(client, "batches", workflows=[batched])
    references = [
        await batched.aio_run(Message(x=x), additional_metadata={"x": x}, priority=Priority.HIGH, wait_for_result=False)
        for x in range(2)
    ]
    for x, reference in enumerate(references):
        assert await reference.aio_result() == {"x": x}
        run = (await client.runs.aio_get(reference.workflow_run_id)).run
        assert run.additional_metadata["x"] == x


@pytest.mark.slow
async def test_a_cron_gives_its_runs_what_it_was_made_with(make_observed: Any) -> None:
    """The default metadata of a declaration is added where a program sends a run, so a cron has none of it."""
    with LocalEngine(speed=60) as engine:
        client = make_observed(hatchet=engine.client()).client
        seen: dict[str, tuple[Any, int]] = {}

        def task(name: str, **options: Any) -> Any:
            async def body(msg: Message, ctx: Context) -> dict[str, Any]:
                seen[name] = {key: ctx.additional_metadata.get(key) for key in METADATA}, ctx.priority
                return {}

            return client.task(name=name, **options)(client.with_ctx(body))

        declared = task(
            "declared", on_crons=["* * * * *"], default_priority=Priority.MEDIUM, default_additional_metadata=METADATA
        )
        made = task("made")
        with running_worker(engine, client, "crons", workflows=[declared, made]):
            await made.aio_create_cron("each-minute", "* * * * *", Message(), METADATA, Priority.HIGH)
            await until(lambda: len(seen) == 2, 30)
    assert seen == {"declared": ({"tenant": None, "deep": None}, 2), "made": (METADATA, 3)}


Way = Callable[..., Awaitable[Any]]


async def _send(on: Stage, options: dict[str, Any]) -> Any:
    return await on.one.aio_run(Message(), wait_for_result=False, **options)


async def _run_many(on: Stage, options: dict[str, Any]) -> Any:
    item = on.one.create_bulk_run_item(Message(), **options)
    return (await on.one.aio_run_many([item], wait_for_result=False))[0]


async def _workflow(on: Stage, options: dict[str, Any]) -> Any:
    workflow = on.sticky if options.get("sticky") else on.single
    return await workflow.aio_run(Message(), wait_for_result=False, **options)


async def _signature(on: Stage, options: dict[str, Any]) -> Any:
    return await (await on.client.sign(on.one)).aio_run(Message(), wait_for_result=False, **options)


async def _signed_workflow(on: Stage, options: dict[str, Any]) -> Any:
    workflow = on.sticky if options.get("sticky") else on.single
    return await (await on.client.sign(workflow)).aio_run(Message(), wait_for_result=False, **options)


async def _many_of_workflow(on: Stage, options: dict[str, Any]) -> Any:
    workflow = on.sticky if options.get("sticky") else on.single
    item = workflow.create_bulk_run_item(Message(), **options)
    return (await workflow.aio_run_many([item], wait_for_result=False))[0]


WAYS = (_send, _run_many, _workflow, _signature, _signed_workflow)


@pytest.mark.filterwarnings("ignore:Passing worker labels as a dict:DeprecationWarning")
async def test_a_run_is_on_the_desired_worker(stage: Stage, mageflow_worker: Any) -> None:
    """With another worker free beside it."""
    second = mageflow_worker.in_process(stage.client, "places-b", workflows=stage.all, labels={"zone": "b"})
    wish = DesiredWorkerLabel(key="zone", value="b", required=True)
    options = {"desired_worker_labels": [wish]}
    found: dict[str, set[str]] = {}
    for way in WAYS:
        stage.workers.clear()
        for _ in range(4):
            await way(stage, options)
        await until(lambda: len(stage.workers) == 4)
        found[way.__name__] = set(stage.workers)
    assert found == {way.__name__: {second.worker_id} for way in WAYS}


async def test_a_desired_worker_is_sent_with_sticky_alone(stage: Stage, mageflow_worker: Any) -> None:
    """With another worker free beside it. The SDK leaves the id out of a run or item that is not sticky."""
    second = mageflow_worker.in_process(stage.client, "places-c", workflows=stage.all)
    found: dict[str, set[str]] = {}
    for way in (_workflow, _signed_workflow, _many_of_workflow):
        stage.workers.clear()
        for _ in range(4):
            await way(stage, {"desired_worker_id": second.worker_id, "sticky": True})
        await until(lambda: len(stage.workers) == 4)
        found[way.__name__] = set(stage.workers)
    assert found == {way: {second.worker_id} for way in ("_workflow", "_signed_workflow", "_many_of_workflow")}
    nowhere = "5d9c3a52-8a5e-4b3c-9f3e-2d1f0c7b6a59"  # a run that is bound to this worker never starts
    for way in (_signature, _many_of_workflow):
        stage.workers.clear()
        await way(stage, {"desired_worker_id": nowhere})
        await until(lambda: len(stage.workers) == 1)
    stage.workers.clear()
    item = stage.sticky.create_bulk_run_item(Message(), desired_worker_id=nowhere)
    await stage.sticky.aio_run_many([item], wait_for_result=False)
    await until(lambda: len(stage.workers) == 1)


@pytest.mark.parametrize("way", [_workflow, _signed_workflow, _many_of_workflow])
async def test_a_run_that_is_bound_to_an_absent_worker_waits_until_it_is_cancelled(stage: Stage, way: Way) -> None:
    """Of a workflow that is HARD sticky, with a worker free that it may not have."""
    absent = "5d9c3a52-8a5e-4b3c-9f3e-2d1f0c7b6a59"
    bound = await way(stage, {"desired_worker_id": absent, "sticky": True})
    await way(stage, {"sticky": True})
    await until(lambda: len(stage.workers) == 1)
    runs = stage.client.runs
    assert await runs.aio_get_status(bound.workflow_run_id) == V1TaskStatus.QUEUED
    await runs.aio_cancel(bound.workflow_run_id)
    async with asyncio.timeout(60):
        while await runs.aio_get_status(bound.workflow_run_id) != V1TaskStatus.CANCELLED:
            await asyncio.sleep(0.05)
    await way(stage, {"sticky": True})  # the worker takes the next one
    await until(lambda: len(stage.workers) == 2)


@pytest.mark.parametrize("way", WAYS)
async def test_a_child_key_makes_two_runs_one(stage: Stage, way: Way) -> None:
    """In a parent: the second run is the first one again."""

    async def twice(ctx: Context) -> list[str]:
        return [(await way(stage, {"child_key": key})).workflow_run_id for key in ("a", "a", "b")]

    stage.in_parent = twice
    first, again, other = (await stage.parent.aio_run(Message()))["found"]
    assert first == again != other
    await until(lambda: len(stage.runs) == 2)


@pytest.mark.parametrize("way", [_workflow, _signed_workflow])
async def test_a_sticky_child_is_on_the_worker_of_its_parent(stage: Stage, mageflow_worker: Any, way: Way) -> None:
    """With another worker free beside it."""
    mageflow_worker.in_process(stage.client, "places-b", workflows=stage.all)
    parents: list[str] = []

    async def children(ctx: Context) -> None:
        parents.append(ctx.worker_id)
        for _ in range(6):
            await way(stage, {"sticky": True})

    stage.in_parent = children
    await stage.parent.aio_run(Message(), wait_for_result=False)
    await until(lambda: len(stage.workers) == 6)
    assert set(stage.workers) == set(parents)
