"""Workers: streams, silence, reconnection, and who is chosen for a task."""

import asyncio

import grpc
import pytest

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from tests.engine.conftest import LOST_AFTER, Single
from tests.engine.raw_client import TIMEOUT_SECONDS, RawClient, labels, outputs, task, unique


async def test_a_second_stream_replaces_the_first(single: Single) -> None:
    """The engine sends to the newest stream of a worker, and the older one ends."""
    await single.declare()
    first = single.worker._stream
    await single.worker.open()
    assert first is not None
    await asyncio.wait_for(first, TIMEOUT_SECONDS)
    run = await single.client.run(single.name)
    await single.worker.complete(await single.worker.next())
    await single.client.result(run)


async def test_nothing_is_assigned_to_a_worker_without_a_stream(single: Single) -> None:
    """A closed stream makes a worker inactive at once. Its tasks wait and are sent later."""
    await single.declare()
    await single.worker.close()
    run = await single.client.run(single.name)
    await asyncio.sleep(0.2)
    assert await single.client.status(run) == "QUEUED"
    await single.worker.open()
    await single.worker.complete(await single.worker.next())
    await single.client.result(run)


async def test_a_heartbeat_without_a_stream_asks_for_a_new_one(single: Single) -> None:
    """FAILED_PRECONDITION makes the SDK open its stream again. A paused worker drains and gets no error."""
    await single.worker.close()

    async def refused() -> bool:
        try:
            await single.worker.heartbeat()
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.FAILED_PRECONDITION
        return False

    await single.client.until(refused, "the heartbeat to be refused")
    await single.client.http("PATCH", f"/api/v1/workers/{single.worker.id}", {"isPaused": True})
    await single.worker.heartbeat()


async def test_an_unknown_worker_is_not_found(client: RawClient) -> None:
    """After an engine restart workers must be restarted too; the message says so."""
    request = pb.HeartbeatRequest(worker_id="00000000-0000-0000-0000-000000000000")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.call("Dispatcher/Heartbeat", request, pb.HeartbeatResponse)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert "restart the worker" in (refused.value.details() or "")


async def test_a_silent_worker_loses_its_tasks_to_another(single: Single) -> None:
    """Without heartbeats, the task starts again on another worker. This costs no retry."""
    await single.declare(retries=0)
    run = await single.client.run(single.name)
    lost = await single.worker.next()
    await single.worker.start(lost)
    await single.worker.close()
    async with single.client.worker(f"{single.name}:work") as other:
        action = await other.next(within=LOST_AFTER + 4)
        assert (action.task_run_external_id, action.retry_count) == (run, 1)
        await other.complete(action, {"by": "other"})
        assert outputs(await single.client.result(run)) == {"work": {"by": "other"}}
    assert "REASSIGNED" in await single.client.history(run)


async def test_a_paused_worker_gets_nothing_new_and_finishes_what_it_has(single: Single) -> None:
    """A paused worker gets no new task until it is unpaused."""
    await single.declare()
    first = await single.client.run(single.name)
    action = await single.worker.next()
    path = f"/api/v1/workers/{single.worker.id}"
    assert (await single.client.http("PATCH", path, {"isPaused": True}))[1]["status"] == "PAUSED"
    second = await single.client.run(single.name)
    assert await single.worker.idle()
    await single.worker.complete(action)
    await single.client.result(first)
    await single.client.http("PATCH", path, {"isPaused": False})
    assert (await single.worker.next()).task_run_external_id == second


async def test_a_required_label_decides_and_a_weight_prefers(client: RawClient) -> None:
    """Required labels exclude workers. Among the others the highest sum of weights wins. Labels may change later."""
    name = unique("labels")
    action = f"{name}:work"
    async with (
        client.worker(action, labels={"gpu": "no", "memory": 8}) as plain,
        client.worker(action, labels={"gpu": "yes", "memory": 64}) as large,
    ):
        await client.put(name, task("work", name, worker_labels=labels(gpu=("yes", True))))
        await client.run(name)
        assert (await large.next()).task_name == "work"
        await client.put(name, task("work", name, worker_labels=labels(memory=(8, False))))
        await client.run(name)
        assert (await plain.next()).task_name == "work"
        await client.put(name, task("work", name, worker_labels=labels(gpu=("new", True))))
        await client.run(name)
        assert await plain.idle(0.2)
        upsert = pb.UpsertWorkerLabelsRequest(worker_id=plain.id, labels={"gpu": pb.WorkerLabels(str_value="new")})
        await client.call("Dispatcher/UpsertWorkerLabels", upsert, pb.UpsertWorkerLabelsResponse)
        assert (await plain.next()).task_name == "work"


@pytest.mark.parametrize("strategy", [v1.SOFT, v1.HARD])
async def test_sticky_runs_stay_with_their_first_worker(client: RawClient, strategy: v1.StickyStrategy) -> None:
    """SOFT prefers the worker of the first task and takes another when that one is full. HARD waits for it."""
    name = unique("sticky")
    tasks = [task("first", name), task("second", name, parents=["first"], slot_requests={"default": 10})]
    await client.put(name, *tasks, sticky=strategy)
    actions = [f"{name}:first", f"{name}:second"]
    async with client.worker(*actions) as one, client.worker(*actions) as two:
        run = await client.run(name)
        blocker = await client.run(name)
        first_of = {}
        for worker in (one, two):
            action = await worker.next()
            first_of[action.workflow_run_id] = (worker, action)
        worker, action = first_of[run]
        other, other_action = first_of[blocker]
        # The blocking run's first task keeps a slot of the run's own worker busy only if both landed there.
        assert worker is not other
        await worker.complete(action)
        assert (await worker.next()).workflow_run_id == run
        # Now its worker is full: the other run's second task would fit on no other worker than its own.
        third = await client.run(name, desired_worker_id=worker.id)
        if strategy == v1.HARD:
            assert await other.idle(0.2)
        else:
            assert (await other.next()).workflow_run_id == third
        await other.complete(other_action)


async def test_priority_goes_first_and_a_retry_before_everything(client: RawClient) -> None:
    """Higher priority first, then arrival. A requeued attempt is before all others."""
    name = unique("priority")
    await client.put(name, task("work", name, retries=1))
    async with client.worker(f"{name}:work", slots={"default": 1}) as worker:
        blocker = await client.run(name)
        action = await worker.next()
        low, high, also_low = [await client.run(name, priority=priority) for priority in (1, 3, 1)]
        await worker.fail(action)
        order: list[str] = []
        for _ in range(4):
            action = await worker.next()
            order.append(action.workflow_run_id)
            await worker.complete(action)
        assert order == [blocker, high, low, also_low]


async def test_an_action_that_was_lost_with_a_replaced_stream_is_sent_again(client: RawClient) -> None:
    """A worker may open its new stream before the engine has noticed the end of the old one."""
    name = unique("replaced")
    await client.put(name, task("work", name))
    worker = await client.register(f"{name}:work")
    await worker.open()
    run = await client.run(name)
    await worker.next()
    await worker.open()
    action = await worker.next(within=30)
    assert (action.workflow_run_id, action.retry_count) == (run, 1)
    await worker.complete(action)
    await worker.close()


async def test_an_action_that_was_lost_with_its_stream_is_sent_again(client: RawClient) -> None:
    """An action that was sent but never reported STARTED is requeued some seconds after the stream broke."""
    name = unique("swallowed")
    await client.put(name, task("work", name))
    worker = await client.register(f"{name}:work")
    await worker.open()
    run = await client.run(name)
    await worker.next()
    await worker.close()
    await worker.open()
    action = await worker.next(within=30)
    assert (action.workflow_run_id, action.retry_count) == (run, 1)
    await worker.complete(action)
    await worker.close()
