"""DAGs: parents, conditions, skips, cancellations, the on_failure task, replay."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from mageflow.engine.contracts import condition_pb2 as pb
from mageflow.engine.contracts import dispatcher_pb2 as dispatcher
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from tests.engine.raw_client import ManualWorker, RawClient, errors, outputs, task, unique


class Dag:
    """A DAG and its worker."""

    def __init__(self, client: RawClient, name: str, worker: ManualWorker) -> None:
        self.client = client
        self.name = name
        self.worker = worker

    async def declare(self, *tasks: v1.CreateTaskOpts, **options: object) -> None:
        """Register."""
        await self.client.put(self.name, *tasks, **options)

    def task(self, name: str, *parents: str, **options: object) -> v1.CreateTaskOpts:
        """A task of this DAG."""
        return task(name, self.name, parents=parents, **options)

    async def start(self, **inputs: object) -> str:
        """Start a run."""
        return await self.client.run(self.name, inputs)

    async def next(self, name: str) -> dispatcher.AssignedAction:
        """Return the next action, which must be for this task."""
        action = await self.worker.next()
        assert action.task_name == name
        return action

    async def do(self, name: str, output: object = None) -> dispatcher.AssignedAction:
        """Complete the next action, which must be for this task."""
        action = await self.next(name)
        await self.worker.complete(action, output)
        return action


@asynccontextmanager
async def dag(client: RawClient, *names: str) -> AsyncIterator[Dag]:
    """A workflow name of its own and a worker for the named tasks."""
    name = unique("dag")
    async with client.worker(*(f"{name}:{each}".lower() for each in names)) as worker:
        yield Dag(client, name, worker)


def base(action: pb.Action, expression: str = "", key: str = "", group: str | None = None) -> pb.BaseMatchCondition:
    """Return the shared part of a condition."""
    return pb.BaseMatchCondition(
        action=action, expression=expression, readable_data_key=key, or_group_id=group or str(uuid4())
    )


def on_parent(action: pb.Action, parent: str, expression: str) -> pb.TaskConditions:
    """Return a parent condition."""
    override = pb.ParentOverrideMatchCondition(base=base(action, expression), parent_readable_id=parent)
    return pb.TaskConditions(parent_override_conditions=[override])


async def test_every_task_of_a_diamond_receives_all_outputs_before_it(client: RawClient) -> None:
    """A task gets the output of every completed task of the run, grandparents too; run and task ids differ."""
    async with dag(client, "top", "left", "right", "bottom") as flow:
        await flow.declare(
            flow.task("top"),
            flow.task("left", "top"),
            flow.task("right", "top"),
            flow.task("bottom", "left", "right"),
        )
        run = await flow.start()
        top = await flow.do("top", {"n": 1})
        assert top.workflow_run_id == run != top.task_run_external_id
        for action in (await flow.worker.next(), await flow.worker.next()):
            await flow.worker.complete(action, {"from": action.task_name})
        bottom = await flow.next("bottom")
        assert json.loads(bottom.action_payload)["parents"] == {
            "top": {"n": 1},
            "left": {"from": "left"},
            "right": {"from": "right"},
        }
        await flow.worker.complete(bottom, {})
        assert set(outputs(await client.result(run))) == {"top", "left", "right", "bottom"}


async def test_a_failed_parent_cancels_its_descendants(client: RawClient) -> None:
    """The run is FAILED at once and ends so. The descendants are CANCELLED."""
    async with dag(client, "top", "middle", "bottom") as flow:
        await flow.declare(flow.task("top"), flow.task("middle", "top"), flow.task("bottom", "middle"))
        run = await flow.start()
        await flow.worker.fail(await flow.next("top"), "top broke")
        assert errors(await client.result(run)) == {"top": "top broke", "middle": "", "bottom": ""}
        assert await client.status(run) == "FAILED"


async def test_skip_if_skips_and_children_see_it(client: RawClient) -> None:
    """A skipped task counts as completed for its children; a task whose parents were all skipped is skipped too."""
    async with dag(client, "top", "maybe", "after", "join") as flow:
        await flow.declare(
            flow.task("top"),
            flow.task("maybe", "top", conditions=on_parent(pb.SKIP, "top", "output.n > 1")),
            flow.task("after", "maybe"),
            flow.task("join", "top", "maybe"),
        )
        run = await flow.start()
        await flow.do("top", {"n": 2})
        join = await flow.next("join")
        assert json.loads(join.action_payload)["parents"]["maybe"] == {"skipped": True}
        await flow.worker.complete(join)
        assert outputs(await client.result(run))["after"] == {"skipped": True}


async def test_cancel_if_cancels_the_task_and_its_children(client: RawClient) -> None:
    """A true cancel_if cancels the task and its descendants."""
    async with dag(client, "top", "maybe", "after") as flow:
        await flow.declare(
            flow.task("top"),
            flow.task("maybe", "top", conditions=on_parent(pb.CANCEL, "top", "output.n == 1")),
            flow.task("after", "maybe"),
        )
        run = await flow.start()
        await flow.do("top", {"n": 1})
        assert errors(await client.result(run)) == {"maybe": "", "after": ""}
        assert await client.status(run) == "CANCELLED"


async def test_conditions_that_can_no_longer_be_met_cancel_the_task(client: RawClient) -> None:
    """A false wait_for on a parent's output can never become true. The run must still end."""
    async with dag(client, "top", "never") as flow:
        await flow.declare(
            flow.task("top"), flow.task("never", "top", conditions=on_parent(pb.QUEUE, "top", "output.n == 99"))
        )
        run = await flow.start()
        await flow.do("top", {"n": 1})
        assert errors(await client.result(run)) == {"never": ""}


async def test_a_task_waits_for_a_sleep_or_an_event_and_receives_its_data(client: RawClient) -> None:
    """One member satisfies an or-group. Its data is in ``triggers`` under the readable key."""
    key, group = unique("event"), str(uuid4())
    waits = pb.TaskConditions(
        sleep_conditions=[pb.SleepMatchCondition(base=base(pb.QUEUE, key="slept", group=group), sleep_for="3600s")],
        user_event_conditions=[
            pb.UserEventMatchCondition(
                base=base(pb.QUEUE, "input.n > 1", key="arrived", group=group), user_event_key=key
            )
        ],
    )
    async with dag(client, "top", "waits") as flow:
        await flow.declare(flow.task("top"), flow.task("waits", "top", conditions=waits))
        await flow.start()
        await client.push(key, {"n": 5})
        await flow.do("top")
        assert await flow.worker.idle(0.2)
        await client.push(key, {"n": 1})
        assert await flow.worker.idle(0.2)
        await client.push(key, {"n": 2})
        triggers = json.loads((await flow.next("waits")).action_payload)["triggers"]
        assert triggers["arrived"] == {"n": 2}
        assert "slept" not in triggers


async def test_a_sleep_starts_when_the_parents_are_done(client: RawClient) -> None:
    """Sleep conditions are timed from the end of the parents, not of the run's start."""
    waits = pb.TaskConditions(
        sleep_conditions=[pb.SleepMatchCondition(base=base(pb.QUEUE, key="slept"), sleep_for="6s")]
    )
    async with dag(client, "top", "waits") as flow:
        await flow.declare(flow.task("top"), flow.task("waits", "top", conditions=waits))
        await flow.start()
        top = await flow.next("top")
        assert await flow.worker.idle(0.4)
        await flow.worker.complete(top)
        assert await flow.worker.idle(0.2)
        action = await flow.next("waits")
        assert json.loads(action.action_payload)["triggers"]["slept"] == {"sleep_duration": "6s"}


async def test_on_failure_runs_once_with_the_errors_and_belongs_to_the_run(client: RawClient) -> None:
    """The handler is queued as soon as a task has failed, receives the errors, and the run ends after it."""
    async with dag(client, "work", "handler") as flow:
        await flow.declare(flow.task("work"), on_failure_task=flow.task("handler"))
        run = await flow.start()
        await flow.worker.fail(await flow.next("work"), "it broke")
        handler = await flow.next("handler")
        assert json.loads(handler.action_payload)["step_run_errors"] == {"work": "it broke"}
        assert (await client.details(run)).done is False
        await flow.worker.complete(handler, {"handled": True})
        result = await client.result(run)
        assert outputs(result) == {"handler": {"handled": True}}
        assert errors(result) == {"work": "it broke"}


async def test_on_failure_is_skipped_in_a_run_that_succeeded(client: RawClient) -> None:
    """As in Hatchet, a handler that did not run is in the result and in the list as a skipped task."""
    async with dag(client, "work", "handler") as flow:
        await flow.declare(flow.task("work"), on_failure_task=flow.task("handler"))
        run = await flow.start()
        await flow.do("work", {"n": 1})
        assert outputs(await client.result(run)) == {"work": {"n": 1}, "handler": {"skipped": True}}
        assert sorted((await client.details(run)).task_runs) == ["handler", "work"]
        assert await client.status(run) == "COMPLETED"


async def test_only_tasks_that_exist_so_far_are_listed(client: RawClient) -> None:
    """GetRunDetails lists a task when its parents are done, not before."""
    async with dag(client, "top", "bottom") as flow:
        await flow.declare(flow.task("top"), flow.task("bottom", "top"))
        run = await flow.start()
        assert list((await client.details(run)).task_runs) == ["top"]
        await flow.do("top")
        await flow.next("bottom")
        assert set((await client.details(run)).task_runs) == {"top", "bottom"}


async def test_replaying_one_task_runs_it_and_its_descendants(client: RawClient) -> None:
    """The id of one task of a DAG replays it and its descendants. The other tasks keep their outputs."""
    async with dag(client, "top", "left", "right", "bottom") as flow:
        await flow.declare(
            flow.task("top"), flow.task("left", "top"), flow.task("right", "top"), flow.task("bottom", "left")
        )
        run = await flow.start()
        await flow.do("top")
        actions = {each.task_name: each for each in (await flow.worker.next(), await flow.worker.next())}
        for action in actions.values():
            await flow.worker.complete(action)
        await flow.do("bottom")
        await client.result(run)
        left = actions["left"].task_run_external_id
        await client.post(f"{client.stable}/tasks/replay", {"externalIds": [left]})
        assert (await flow.do("left", {"again": True})).retry_count == 1
        assert (await flow.do("bottom")).retry_count == 1
        assert outputs(await client.result(run))["left"] == {"again": True}
        assert await flow.worker.idle(0.2)


async def test_cancelling_a_run_ends_all_its_tasks(client: RawClient) -> None:
    """Running, queued and waiting tasks: all CANCELLED, the run ends, no on_failure task is started."""
    async with dag(client, "one", "two", "bottom", "handler") as flow:
        await flow.declare(
            flow.task("one"), flow.task("two"), flow.task("bottom", "one"), on_failure_task=flow.task("handler")
        )
        run = await flow.start()
        await flow.worker.next()
        await flow.worker.next()
        await client.post(f"{client.stable}/tasks/cancel", {"externalIds": [run]})
        assert set(errors(await client.result(run)).values()) == {""}
        assert await client.status(run) == "CANCELLED"
