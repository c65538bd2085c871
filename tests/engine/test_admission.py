"""Admission: concurrency strategies, rate limits, idempotency, batches."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import status_pb2

from mageflow.engine.contracts import Timestamp
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.contracts import trigger_pb2 as trigger
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from mageflow.engine.contracts import workflows_pb2 as workflows
from tests.engine.raw_client import ManualWorker, RawClient, errors, labels, outputs, task, unique


@asynccontextmanager
async def limited(
    client: RawClient, *, level: str, strategy: v1.ConcurrencyLimitStrategy, **entry: object
) -> AsyncIterator[tuple[str, ManualWorker]]:
    """A workflow with one task under one concurrency entry, and its worker."""
    name = unique("limited")
    limit = v1.Concurrency(**{"expression": "input.group", "max_runs": 1, "limit_strategy": strategy, **entry})
    if level == "workflow":
        await client.put(name, task("work", name), concurrency_arr=[limit])
    else:
        await client.put(name, task("work", name, concurrency=[limit]))
    async with client.worker(f"{name}:work") as worker:
        yield name, worker


async def statuses(client: RawClient, runs: list[str]) -> list[str]:
    """Return the status word of each run."""
    return [await client.status(run) for run in runs]


LEVELS = pytest.mark.parametrize("level", ["workflow", "task"])


@LEVELS
async def test_round_robin_admits_one_run_per_key_and_delays_no_other_key(client: RawClient, level: str) -> None:
    """One run per key at a time. A full key does not delay another key."""
    async with limited(client, level=level, strategy=v1.GROUP_ROUND_ROBIN) as (name, worker):
        first, second, other = [await client.run(name, {"group": group}) for group in ("a", "a", "b")]
        started = {action.workflow_run_id: action for action in (await worker.next(), await worker.next())}
        assert set(started) == {first, other}
        assert await worker.idle(0.2)
        await worker.complete(started[first])
        assert (await worker.next()).workflow_run_id == second


@LEVELS
async def test_cancel_in_progress_ends_the_oldest_holder_every_time(client: RawClient, level: str) -> None:
    """The newest of a key always runs. Each older one is cancelled, and its worker receives the cancellation."""
    async with limited(client, level=level, strategy=v1.CANCEL_IN_PROGRESS) as (name, worker):
        runs: list[str] = []
        for _ in range(4):
            runs.append(await client.run(name, {"group": "a"}))
            action = await worker.next()
            if action.action_type == pb.CANCEL_STEP_RUN:
                action = await worker.next()
            assert action.workflow_run_id == runs[-1]
        assert await statuses(client, runs) == ["CANCELLED"] * 3 + ["RUNNING"]


@LEVELS
async def test_cancel_newest_cancels_the_newcomer(client: RawClient, level: str) -> None:
    """The holder of the key goes on and the newcomer is cancelled. After the holder's end the key is free."""
    async with limited(client, level=level, strategy=v1.CANCEL_NEWEST) as (name, worker):
        runs = [await client.run(name, {"group": "a"}) for _ in range(3)]
        action = await worker.next()
        assert await statuses(client, runs) == ["RUNNING", "CANCELLED", "CANCELLED"]
        await worker.complete(action)
        await client.result(runs[0])
        again = await client.run(name, {"group": "a"})
        assert (await worker.next()).workflow_run_id == again


@pytest.mark.parametrize(
    ("strategy", "survivor"), [(v1.CANCEL_QUEUED_EXCEPT_NEWEST, 3), (v1.CANCEL_QUEUED_EXCEPT_OLDEST, 1)]
)
async def test_one_may_wait_the_newest_or_the_oldest(
    client: RawClient, strategy: v1.ConcurrencyLimitStrategy, survivor: int
) -> None:
    """Of the waiting ones only the newest (or the oldest) stays; the holder is left alone."""
    async with limited(client, level="task", strategy=strategy) as (name, worker):
        runs = [await client.run(name, {"group": "a"}) for _ in range(4)]
        action = await worker.next()
        expected = ["CANCELLED"] * 4
        expected[0], expected[survivor] = "RUNNING", "QUEUED"
        assert await statuses(client, runs) == expected
        await worker.complete(action)
        assert (await worker.next()).workflow_run_id == runs[survivor]


async def test_a_task_that_is_replayed_in_a_live_run_uses_the_place_the_run_holds(client: RawClient) -> None:
    """The run is admitted already: its replayed task does not wait for a place that the run itself has."""
    name = unique("replayed")
    limit = v1.Concurrency(expression="'all'", max_runs=1, limit_strategy=v1.GROUP_ROUND_ROBIN)
    tasks = [task("first", name), task("second", name, parents=["first"])]
    await client.put(name, *tasks, concurrency_arr=[limit])
    async with client.worker(f"{name}:first", f"{name}:second") as worker:
        run = await client.run(name)
        first = await worker.next()
        await worker.complete(first, {"n": 1})
        second = await worker.next()
        await client.post(f"{client.stable}/tasks/replay", {"externalIds": [first.task_run_external_id]})
        again = await worker.next()
        assert (again.task_run_external_id, again.retry_count) == (first.task_run_external_id, 1)
        await worker.complete(again, {"n": 2})
        await worker.complete(second, {"n": 3})
        assert outputs(await client.result(run)) == {"first": {"n": 2}, "second": {"n": 3}}
        # The run has given its place back.
        await client.run(name)
        assert (await worker.next()).task_name == "first"


async def test_a_tenant_wide_entry_is_shared_across_workflows(client: RawClient) -> None:
    """``is_tenant_scoped`` with a name: one pool for all workflows that declare it."""
    shared = {"name": unique("pool"), "is_tenant_scoped": True}
    async with (
        limited(client, level="task", strategy=v1.GROUP_ROUND_ROBIN, **shared) as (one, worker_of_one),
        limited(client, level="task", strategy=v1.GROUP_ROUND_ROBIN, **shared) as (two, worker_of_two),
    ):
        await client.run(one, {"group": "a"})
        action = await worker_of_one.next()
        waiting = await client.run(two, {"group": "a"})
        assert await worker_of_two.idle(0.2)
        await worker_of_one.complete(action)
        assert (await worker_of_two.next()).workflow_run_id == waiting


async def test_the_limit_may_come_from_the_input(client: RawClient) -> None:
    """``max_runs_expression`` is evaluated per run."""
    entry = {"max_runs_expression": "input.limit"}
    async with limited(client, level="task", strategy=v1.GROUP_ROUND_ROBIN, **entry) as (name, worker):
        for _ in range(3):
            await client.run(name, {"group": "a", "limit": 2})
        await worker.next()
        await worker.next()
        assert await worker.idle(0.2)


async def test_a_limit_that_is_not_finite_fails_the_task(client: RawClient) -> None:
    """A division by 0.0, or 1e400 of JSON. The run stayed QUEUED, and its sender got an internal error."""
    entry = {"max_runs_expression": "1.0 / 0.0"}
    async with limited(client, level="task", strategy=v1.GROUP_ROUND_ROBIN, **entry) as (name, _):
        run = await client.run(name, {"group": "a"})
        assert errors(await client.result(run))["work"].startswith("failed to parse step expression")
    rated = unique("rated")
    limit = v1.CreateTaskRateLimit(key="k", key_expr="'k'", units_expr="1.0 / 0.0", limit_values_expr="10")
    await client.put(rated, task("work", rated, rate_limits=[limit]))
    run = await client.run(rated)
    assert errors(await client.result(run))["work"].startswith("failed to parse rate limit expression")


@LEVELS
@pytest.mark.parametrize("expression", ["input.missing", "input.number"])
async def test_a_key_expression_that_fails_fails_the_task(client: RawClient, level: str, expression: str) -> None:
    """A missing field, or a key that is not a string: FAILED with the reason."""
    async with limited(client, level=level, strategy=v1.GROUP_ROUND_ROBIN, expression=expression) as (name, _):
        run = await client.run(name, {"number": 1})
        assert errors(await client.result(run))["work"].startswith("failed to parse step expression")


async def test_a_static_rate_limit_holds_tasks_back_until_the_next_window(client: RawClient) -> None:
    """A task takes its units when it is assigned. After the window the bucket is full and the next task is assigned."""
    name, key = unique("rated"), unique("key")
    started = time.monotonic()
    await client.call(
        "WorkflowService/PutRateLimit",
        workflows.PutRateLimitRequest(key=key, limit=2, duration=workflows.SECOND),
        workflows.PutRateLimitResponse,
    )
    await client.put(name, task("work", name, rate_limits=[v1.CreateTaskRateLimit(key=key, units=1)]))
    async with client.worker(f"{name}:work") as worker:
        for _ in range(3):
            await client.run(name)
        for _ in range(3):
            await worker.next()
        assert time.monotonic() - started > 0.95
    rows = (await client.get(f"{client.tenant}/rate-limits", search=key))["rows"]
    assert [(row["key"], row["limitValue"], row["window"]) for row in rows] == [(key, 2, "SECOND")]


async def test_a_dynamic_rate_limit_makes_its_own_bucket_per_key(client: RawClient) -> None:
    """CEL expressions of the input give key, units and limit. Another key has its own units."""
    name, prefix = unique("dynamic"), unique("user")
    limit = v1.CreateTaskRateLimit(
        key="the SDK repeats the expression here",
        key_expr=f"'{prefix}-' + input.user",
        units_expr="input.cost",
        limit_values_expr="10",
        duration=v1.MINUTE,
    )
    await client.put(name, task("work", name, rate_limits=[limit]))
    async with client.worker(f"{name}:work") as worker:
        first = await client.run(name, {"user": "ann", "cost": 7})
        held = await client.run(name, {"user": "ann", "cost": 7})
        other = await client.run(name, {"user": "bob", "cost": 10})
        assert {(await worker.next()).workflow_run_id, (await worker.next()).workflow_run_id} == {first, other}
        assert await worker.idle(0.2)
        assert await client.status(held) == "QUEUED"


async def test_a_paused_rate_limit_grants_nothing_and_is_never_shortened(client: RawClient) -> None:
    """A pause lasts until its end. A later request cannot shorten it."""
    name, key = unique("paused"), unique("key")
    put = workflows.PutRateLimitRequest(key=key, limit=100, duration=workflows.MINUTE)
    await client.call("WorkflowService/PutRateLimit", put, workflows.PutRateLimitResponse)
    end = datetime.now(UTC) + timedelta(seconds=0.8)

    async def pause(until: datetime) -> datetime:
        stamp = Timestamp()
        stamp.FromDatetime(until)
        reply = await client.call(
            "WorkflowService/PauseRateLimit",
            workflows.PauseRateLimitRequest(key=key, paused_until=stamp),
            workflows.PauseRateLimitResponse,
        )
        return reply.paused_until.ToDatetime(UTC)

    assert await pause(end) == end
    assert await pause(end - timedelta(seconds=0.5)) == end
    await client.put(name, task("work", name, rate_limits=[v1.CreateTaskRateLimit(key=key, units=1)]))
    async with client.worker(f"{name}:work") as worker:
        await client.run(name)
        assert await worker.idle(0.3)
        await worker.next()
        assert datetime.now(UTC) >= end


async def test_a_missing_rate_limit_keeps_the_task_queued_until_it_is_made(client: RawClient) -> None:
    """A static key without a bucket keeps the task queued. Creating the bucket releases it."""
    name, key = unique("missing"), unique("key")
    await client.put(name, task("work", name, rate_limits=[v1.CreateTaskRateLimit(key=key, units=1)]))
    async with client.worker(f"{name}:work") as worker:
        await client.run(name)
        assert await worker.idle(0.2)
        put = workflows.PutRateLimitRequest(key=key, limit=1, duration=workflows.MINUTE)
        await client.call("WorkflowService/PutRateLimit", put, workflows.PutRateLimitResponse)
        await worker.next()


def collision(error: grpc.aio.AioRpcError) -> AnyMessage:
    """Return the detail of an idempotency collision."""
    assert (error.code(), error.details()) == (grpc.StatusCode.ALREADY_EXISTS, "idempotency key collision")
    packed = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return status_pb2.Status.FromString(packed).details[0]


async def test_an_idempotency_collision_names_the_run_that_holds_the_key(client: RawClient) -> None:
    """STATUS: the key is free when the run has ended. The error has the holder's id."""
    name = unique("once")
    config = v1.IdempotencyConfig(expression="input.order", ttl_ms=60_000, method=v1.STATUS)
    await client.put(name, task("work", name), idempotency=config)
    order = {"order": str(uuid4())}
    async with client.worker(f"{name}:work") as worker:
        run = await client.run(name, order)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.run(name, order)
        detail = v1.IdempotencyCollisionError()
        assert collision(refused.value).Unpack(detail)
        assert detail.existing_run_external_id == run
        await worker.complete(await worker.next())
        await client.result(run)
        assert await client.run(name, order) != run


async def test_a_bulk_collision_starts_the_others_and_lists_both(client: RawClient) -> None:
    """Only the colliding trigger of a bulk request is refused."""
    name = unique("bulk-once")
    config = v1.IdempotencyConfig(expression="input.order", ttl_ms=3000, method=v1.TTL)
    await client.put(name, task("work", name), idempotency=config)
    taken, free = str(uuid4()), str(uuid4())
    holder = await client.run(name, {"order": taken})
    request = workflows.BulkTriggerWorkflowRequest(
        workflows=[{"name": name, "input": json.dumps({"order": order})} for order in (taken, free)]
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.call("WorkflowService/BulkTriggerWorkflow", request, workflows.BulkTriggerWorkflowResponse)
    detail = v1.BulkTriggerIdempotencyCollisionError()
    assert collision(refused.value).Unpack(detail)
    assert [each.existing_run_external_id for each in detail.collisions] == [holder]
    assert len(detail.successful_workflow_run_external_ids) == 1
    await asyncio.sleep(3.2)
    assert await client.run(name, {"order": taken}) != holder


@asynccontextmanager
async def batched(client: RawClient, **config: object) -> AsyncIterator[tuple[str, ManualWorker]]:
    """A batch workflow and its worker."""
    name = unique("batch")
    batch = v1.TaskBatchConfig(**{"batch_max_size": 2, "batch_max_interval_ms": 200, **config})
    await client.put(name, task("work", name, batch=batch, retries=1))
    async with client.worker(f"{name}:work", slots={"default": 2}) as worker:
        yield name, worker


async def report(worker: ManualWorker, action: pb.AssignedAction, kind: int, payload: str, *tasks: str) -> None:
    """Report about items of a batch, with the retry count of the action as workers do."""
    items = [pb.BatchActionEventItem(task_run_external_id=each, event_payload=payload) for each in tasks]
    event = pb.BatchActionEvent(worker_id=worker.id, batch_id=action.batchId, event_type=kind, items=items)
    await worker.client.call("Dispatcher/SendBatchActionEvent", event, pb.ActionEventResponse)


async def test_a_batch_is_one_action_and_its_items_end_one_by_one(client: RawClient) -> None:
    """A full batch is one START_BATCH with all payloads. A failed item is retried in a new batch."""
    async with batched(client) as (name, worker):
        runs = [await client.run(name, {"n": n}) for n in range(2)]
        action = await worker.next()
        assert (action.action_type, action.batchSize) == (pb.START_BATCH, 2)
        payload = json.loads(action.action_payload)
        assert [payload[run]["payload"]["input"]["n"] for run in runs] == [0, 1]
        await report(worker, action, pb.STEP_EVENT_TYPE_COMPLETED, '{"ok": true}', runs[0])
        await report(worker, action, pb.STEP_EVENT_TYPE_FAILED, "bad item", runs[1])
        assert outputs(await client.result(runs[0])) == {"work": {"ok": True}}
        again = await worker.next()
        assert list(json.loads(again.action_payload)) == [runs[1]]
        assert again.batchStartPayload.triggerReason == "interval"
        await report(worker, again, pb.STEP_EVENT_TYPE_FAILED, "bad again", runs[1])
        assert errors(await client.result(runs[1])) == {"work": "bad again"}


async def test_a_batch_takes_one_slot_and_a_key_runs_so_many_batches_at_once(client: RawClient) -> None:
    """``batch_group_max_runs`` limits batches per key; slots are counted per batch, not per item."""
    async with batched(client, batch_group_max_runs=1) as (name, worker):
        runs = [await client.run(name) for _ in range(4)]
        first = await worker.next()
        assert await worker.idle(0.4)
        await report(worker, first, pb.STEP_EVENT_TYPE_COMPLETED, "{}", *json.loads(first.action_payload))
        second = await worker.next()
        assert set(json.loads(first.action_payload)) | set(json.loads(second.action_payload)) == set(runs)


async def test_a_batch_no_worker_could_receive_fails_its_items(client: RawClient) -> None:
    """One item may be larger than an action: "é" becomes an escape. It broke the worker's stream again and again."""
    async with batched(client) as (name, worker):
        request = trigger.TriggerWorkflowRequest(name=name, input=f'{{"blob": "{"é" * 1_000_000}"}}')
        large = await client.call("WorkflowService/TriggerWorkflow", request, workflows.TriggerWorkflowResponse)
        assert "exceeds" in errors(await client.result(large.workflow_run_id))["work"]
        small = await client.run(name, {"n": 1})
        assert list(json.loads((await worker.next()).action_payload)) == [small]


async def test_a_cancelled_item_leaves_its_batch(client: RawClient) -> None:
    """An item cancelled while it waits is not sent."""
    async with batched(client, batch_max_size=3, batch_max_interval_ms=400) as (name, worker):
        runs = [await client.run(name) for _ in range(2)]
        await client.post(f"{client.stable}/tasks/cancel", {"externalIds": [runs[0]]})
        assert list(json.loads((await worker.next()).action_payload)) == [runs[1]]


async def test_waiting_runs_keep_their_order_when_one_of_them_is_cancelled(client: RawClient) -> None:
    """Priority first, then arrival. A run that is cancelled while it waits frees no place."""
    async with limited(client, level="task", strategy=v1.GROUP_ROUND_ROBIN) as (name, worker):
        holder = await client.run(name, {"group": "a"})
        held = await worker.next()
        waiting = [await client.run(name, {"group": "a", "n": n}) for n in range(5)]
        urgent = await client.run(name, {"group": "a"}, priority=3)
        assert await worker.idle(0.2)
        await client.post(f"{client.stable}/tasks/cancel", {"externalIds": [waiting[2]]})
        assert await worker.idle(0.2)
        order: list[str] = []
        for _ in range(5):
            await worker.complete(held)
            held = await worker.next()
            order.append(held.workflow_run_id)
        assert (held.workflow_run_id, order) == (waiting[4], [urgent, waiting[0], waiting[1], waiting[3], waiting[4]])
        assert await client.status(holder) == "COMPLETED"


async def test_runs_with_equal_wishes_are_assigned_in_turn_and_delay_no_others(client: RawClient) -> None:
    """A run whose desired labels no worker has waits, and so do runs with the same wishes. Other runs start."""
    name = unique("wishes")
    await client.put(name, task("work", name))
    async with client.worker(f"{name}:work", labels={"zone": "a"}) as worker:
        nowhere = [await client.run(name, desired_worker_labels=labels(zone=("b", True))) for _ in range(2)]
        here = [await client.run(name, desired_worker_labels=labels(zone=("a", True))) for _ in range(3)]
        anywhere = await client.run(name)
        got = [(await worker.next()).workflow_run_id for _ in range(4)]
        assert sorted(got) == sorted([*here, anywhere])
        assert [run for run in got if run in here] == here
        assert [await client.status(run) for run in nowhere] == ["QUEUED", "QUEUED"]
