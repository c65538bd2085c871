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
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from mageflow.engine.contracts import workflows_pb2 as workflows
from tests.engine.wire import HandWorker, Wire, errors, labels, outputs, task, unique


@asynccontextmanager
async def limited(
    wire: Wire, *, level: str, strategy: v1.ConcurrencyLimitStrategy, **entry: object
) -> AsyncIterator[tuple[str, HandWorker]]:
    """A workflow with one task under one concurrency entry, and its worker."""
    name = unique("limited")
    limit = v1.Concurrency(**{"expression": "input.group", "max_runs": 1, "limit_strategy": strategy, **entry})
    if level == "workflow":
        await wire.put(name, task("work", name), concurrency_arr=[limit])
    else:
        await wire.put(name, task("work", name, concurrency=[limit]))
    async with wire.worker(f"{name}:work") as worker:
        yield name, worker


async def statuses(wire: Wire, runs: list[str]) -> list[str]:
    """Return the status word of each run."""
    return [await wire.status(run) for run in runs]


LEVELS = pytest.mark.parametrize("level", ["workflow", "task"])


@LEVELS
async def test_round_robin_lets_the_next_of_the_same_key_in_and_other_keys_past(wire: Wire, level: str) -> None:
    """One at a time per key; a full key does not hold up another."""
    async with limited(wire, level=level, strategy=v1.GROUP_ROUND_ROBIN) as (name, worker):
        first, second, other = [await wire.run(name, {"group": group}) for group in ("a", "a", "b")]
        started = {action.workflow_run_id: action for action in (await worker.next(), await worker.next())}
        assert set(started) == {first, other}
        assert await worker.idle(0.2)
        await worker.complete(started[first])
        assert (await worker.next()).workflow_run_id == second


@LEVELS
async def test_cancel_in_progress_ends_the_oldest_holder_every_time(wire: Wire, level: str) -> None:
    """The newest of a key always runs; each older one was cancelled and its worker told."""
    async with limited(wire, level=level, strategy=v1.CANCEL_IN_PROGRESS) as (name, worker):
        runs: list[str] = []
        for _ in range(4):
            runs.append(await wire.run(name, {"group": "a"}))
            action = await worker.next()
            if action.action_type == pb.CANCEL_STEP_RUN:
                action = await worker.next()
            assert action.workflow_run_id == runs[-1]
        assert await statuses(wire, runs) == ["CANCELLED"] * 3 + ["RUNNING"]


@LEVELS
async def test_cancel_newest_turns_the_newcomer_away(wire: Wire, level: str) -> None:
    """Who holds the key goes on; who comes is cancelled; afterwards the key is free."""
    async with limited(wire, level=level, strategy=v1.CANCEL_NEWEST) as (name, worker):
        runs = [await wire.run(name, {"group": "a"}) for _ in range(3)]
        action = await worker.next()
        assert await statuses(wire, runs) == ["RUNNING", "CANCELLED", "CANCELLED"]
        await worker.complete(action)
        await wire.result(runs[0])
        again = await wire.run(name, {"group": "a"})
        assert (await worker.next()).workflow_run_id == again


@pytest.mark.parametrize(
    ("strategy", "survivor"), [(v1.CANCEL_QUEUED_EXCEPT_NEWEST, 3), (v1.CANCEL_QUEUED_EXCEPT_OLDEST, 1)]
)
async def test_one_may_wait_the_newest_or_the_oldest(
    wire: Wire, strategy: v1.ConcurrencyLimitStrategy, survivor: int
) -> None:
    """Of the waiting ones only the newest (or the oldest) stays; the holder is left alone."""
    async with limited(wire, level="task", strategy=strategy) as (name, worker):
        runs = [await wire.run(name, {"group": "a"}) for _ in range(4)]
        action = await worker.next()
        expected = ["CANCELLED"] * 4
        expected[0], expected[survivor] = "RUNNING", "QUEUED"
        assert await statuses(wire, runs) == expected
        await worker.complete(action)
        assert (await worker.next()).workflow_run_id == runs[survivor]


async def test_a_task_that_is_replayed_in_a_live_run_uses_the_place_the_run_holds(wire: Wire) -> None:
    """The run is admitted already: its replayed task does not wait for a place that the run itself has."""
    name = unique("replayed")
    limit = v1.Concurrency(expression="'all'", max_runs=1, limit_strategy=v1.GROUP_ROUND_ROBIN)
    tasks = [task("first", name), task("second", name, parents=["first"])]
    await wire.put(name, *tasks, concurrency_arr=[limit])
    async with wire.worker(f"{name}:first", f"{name}:second") as worker:
        run = await wire.run(name)
        first = await worker.next()
        await worker.complete(first, {"n": 1})
        second = await worker.next()
        await wire.post(f"{wire.stable}/tasks/replay", {"externalIds": [first.task_run_external_id]})
        again = await worker.next()
        assert (again.task_run_external_id, again.retry_count) == (first.task_run_external_id, 1)
        await worker.complete(again, {"n": 2})
        await worker.complete(second, {"n": 3})
        assert outputs(await wire.result(run)) == {"first": {"n": 2}, "second": {"n": 3}}
        # The run has given its place back.
        await wire.run(name)
        assert (await worker.next()).task_name == "first"


async def test_a_tenant_wide_entry_is_shared_across_workflows(wire: Wire) -> None:
    """``is_tenant_scoped`` with a name: one pool for all workflows that declare it."""
    shared = {"name": unique("pool"), "is_tenant_scoped": True}
    async with (
        limited(wire, level="task", strategy=v1.GROUP_ROUND_ROBIN, **shared) as (one, worker_of_one),
        limited(wire, level="task", strategy=v1.GROUP_ROUND_ROBIN, **shared) as (two, worker_of_two),
    ):
        await wire.run(one, {"group": "a"})
        action = await worker_of_one.next()
        waiting = await wire.run(two, {"group": "a"})
        assert await worker_of_two.idle(0.2)
        await worker_of_one.complete(action)
        assert (await worker_of_two.next()).workflow_run_id == waiting


async def test_the_limit_may_come_from_the_input(wire: Wire) -> None:
    """``max_runs_expression`` is evaluated per run."""
    entry = {"max_runs_expression": "input.limit"}
    async with limited(wire, level="task", strategy=v1.GROUP_ROUND_ROBIN, **entry) as (name, worker):
        for _ in range(3):
            await wire.run(name, {"group": "a", "limit": 2})
        await worker.next()
        await worker.next()
        assert await worker.idle(0.2)


@LEVELS
@pytest.mark.parametrize("expression", ["input.missing", "input.number"])
async def test_a_key_that_cannot_be_had_fails_the_task(wire: Wire, level: str, expression: str) -> None:
    """A missing field, a key that is no string: FAILED with the reason."""
    async with limited(wire, level=level, strategy=v1.GROUP_ROUND_ROBIN, expression=expression) as (name, _):
        run = await wire.run(name, {"number": 1})
        assert errors(await wire.result(run))["work"].startswith("failed to parse step expression")


async def test_a_static_rate_limit_holds_tasks_back_until_the_next_window(wire: Wire) -> None:
    """Units are taken at assignment; the bucket is full again after its window, and the engine wakes by itself."""
    name, key = unique("rated"), unique("key")
    await wire.call(
        "WorkflowService/PutRateLimit",
        workflows.PutRateLimitRequest(key=key, limit=2, duration=workflows.SECOND),
        workflows.PutRateLimitResponse,
    )
    await wire.put(name, task("work", name, rate_limits=[v1.CreateTaskRateLimit(key=key, units=1)]))
    async with wire.worker(f"{name}:work") as worker:
        for _ in range(3):
            await wire.run(name)
        started = time.monotonic()
        for _ in range(3):
            await worker.next()
        assert 0.5 < time.monotonic() - started < 2.5
    rows = (await wire.get(f"{wire.tenant}/rate-limits", search=key))["rows"]
    assert [(row["key"], row["limitValue"], row["window"]) for row in rows] == [(key, 2, "SECOND")]


async def test_a_dynamic_rate_limit_makes_its_own_bucket_per_key(wire: Wire) -> None:
    """Key, units and limit come from CEL over the input; another key has units of its own."""
    name, prefix = unique("dynamic"), unique("user")
    limit = v1.CreateTaskRateLimit(
        key="the SDK repeats the expression here",
        key_expr=f"'{prefix}-' + input.user",
        units_expr="input.cost",
        limit_values_expr="10",
        duration=v1.MINUTE,
    )
    await wire.put(name, task("work", name, rate_limits=[limit]))
    async with wire.worker(f"{name}:work") as worker:
        first = await wire.run(name, {"user": "ann", "cost": 7})
        held = await wire.run(name, {"user": "ann", "cost": 7})
        other = await wire.run(name, {"user": "bob", "cost": 10})
        assert {(await worker.next()).workflow_run_id, (await worker.next()).workflow_run_id} == {first, other}
        assert await worker.idle(0.2)
        assert await wire.status(held) == "QUEUED"


async def test_a_paused_rate_limit_grants_nothing_and_is_never_shortened(wire: Wire) -> None:
    """A pause holds until its end; an earlier end is not taken."""
    name, key = unique("paused"), unique("key")
    put = workflows.PutRateLimitRequest(key=key, limit=100, duration=workflows.MINUTE)
    await wire.call("WorkflowService/PutRateLimit", put, workflows.PutRateLimitResponse)
    end = datetime.now(UTC) + timedelta(seconds=0.8)

    async def pause(until: datetime) -> datetime:
        stamp = Timestamp()
        stamp.FromDatetime(until)
        reply = await wire.call(
            "WorkflowService/PauseRateLimit",
            workflows.PauseRateLimitRequest(key=key, paused_until=stamp),
            workflows.PauseRateLimitResponse,
        )
        return reply.paused_until.ToDatetime(UTC)

    assert await pause(end) == end
    assert await pause(end - timedelta(seconds=0.5)) == end
    await wire.put(name, task("work", name, rate_limits=[v1.CreateTaskRateLimit(key=key, units=1)]))
    async with wire.worker(f"{name}:work") as worker:
        await wire.run(name)
        assert await worker.idle(0.3)
        await worker.next()
        assert datetime.now(UTC) >= end


async def test_a_missing_rate_limit_keeps_the_task_queued_until_it_is_made(wire: Wire) -> None:
    """A static key nobody has put holds the task; putting it releases it."""
    name, key = unique("missing"), unique("key")
    await wire.put(name, task("work", name, rate_limits=[v1.CreateTaskRateLimit(key=key, units=1)]))
    async with wire.worker(f"{name}:work") as worker:
        await wire.run(name)
        assert await worker.idle(0.2)
        put = workflows.PutRateLimitRequest(key=key, limit=1, duration=workflows.MINUTE)
        await wire.call("WorkflowService/PutRateLimit", put, workflows.PutRateLimitResponse)
        await worker.next()


def collision(error: grpc.aio.AioRpcError) -> AnyMessage:
    """Return the detail of an idempotency collision."""
    assert (error.code(), error.details()) == (grpc.StatusCode.ALREADY_EXISTS, "idempotency key collision")
    packed = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
    return status_pb2.Status.FromString(packed).details[0]


async def test_an_idempotency_collision_names_the_run_that_holds_the_key(wire: Wire) -> None:
    """STATUS: the key is free again when the run has ended. The error carries the holder's id."""
    name = unique("once")
    config = v1.IdempotencyConfig(expression="input.order", ttl_ms=60_000, method=v1.STATUS)
    await wire.put(name, task("work", name), idempotency=config)
    order = {"order": str(uuid4())}
    async with wire.worker(f"{name}:work") as worker:
        run = await wire.run(name, order)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await wire.run(name, order)
        detail = v1.IdempotencyCollisionError()
        assert collision(refused.value).Unpack(detail)
        assert detail.existing_run_external_id == run
        await worker.complete(await worker.next())
        await wire.result(run)
        assert await wire.run(name, order) != run


async def test_a_bulk_collision_starts_the_others_and_lists_both(wire: Wire) -> None:
    """Only the colliding trigger of a bulk request is refused."""
    name = unique("bulk-once")
    config = v1.IdempotencyConfig(expression="input.order", ttl_ms=300, method=v1.TTL)
    await wire.put(name, task("work", name), idempotency=config)
    taken, free = str(uuid4()), str(uuid4())
    holder = await wire.run(name, {"order": taken})
    request = workflows.BulkTriggerWorkflowRequest(
        workflows=[{"name": name, "input": json.dumps({"order": order})} for order in (taken, free)]
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await wire.call("WorkflowService/BulkTriggerWorkflow", request, workflows.BulkTriggerWorkflowResponse)
    detail = v1.BulkTriggerIdempotencyCollisionError()
    assert collision(refused.value).Unpack(detail)
    assert [each.existing_run_external_id for each in detail.collisions] == [holder]
    assert len(detail.successful_workflow_run_external_ids) == 1
    await asyncio.sleep(0.4)
    assert await wire.run(name, {"order": taken}) != holder


@asynccontextmanager
async def batched(wire: Wire, **config: object) -> AsyncIterator[tuple[str, HandWorker]]:
    """A batch workflow and its worker."""
    name = unique("batch")
    batch = v1.TaskBatchConfig(**{"batch_max_size": 2, "batch_max_interval_ms": 200, **config})
    await wire.put(name, task("work", name, batch=batch, retries=1))
    async with wire.worker(f"{name}:work", slots={"default": 2}) as worker:
        yield name, worker


async def report(worker: HandWorker, action: pb.AssignedAction, kind: int, payload: str, *tasks: str) -> None:
    """Report about items of a batch, with the retry count of the action as workers do."""
    items = [pb.BatchActionEventItem(task_run_external_id=each, event_payload=payload) for each in tasks]
    event = pb.BatchActionEvent(worker_id=worker.id, batch_id=action.batchId, event_type=kind, items=items)
    await worker.wire.call("Dispatcher/SendBatchActionEvent", event, pb.ActionEventResponse)


async def test_a_batch_is_one_action_and_its_items_end_one_by_one(wire: Wire) -> None:
    """Full batch: one START_BATCH with all payloads. A failed item is retried in a batch of its own."""
    async with batched(wire) as (name, worker):
        runs = [await wire.run(name, {"n": n}) for n in range(2)]
        action = await worker.next()
        assert (action.action_type, action.batchSize) == (pb.START_BATCH, 2)
        payload = json.loads(action.action_payload)
        assert [payload[run]["payload"]["input"]["n"] for run in runs] == [0, 1]
        await report(worker, action, pb.STEP_EVENT_TYPE_COMPLETED, '{"ok": true}', runs[0])
        await report(worker, action, pb.STEP_EVENT_TYPE_FAILED, "bad item", runs[1])
        assert outputs(await wire.result(runs[0])) == {"work": {"ok": True}}
        again = await worker.next()
        assert list(json.loads(again.action_payload)) == [runs[1]]
        assert again.batchStartPayload.triggerReason == "interval"
        await report(worker, again, pb.STEP_EVENT_TYPE_FAILED, "bad again", runs[1])
        assert errors(await wire.result(runs[1])) == {"work": "bad again"}


async def test_a_batch_takes_one_slot_and_a_key_runs_so_many_batches_at_once(wire: Wire) -> None:
    """``batch_group_max_runs`` limits batches per key; slots are counted per batch, not per item."""
    async with batched(wire, batch_group_max_runs=1) as (name, worker):
        runs = [await wire.run(name) for _ in range(4)]
        first = await worker.next()
        assert await worker.idle(0.4)
        await report(worker, first, pb.STEP_EVENT_TYPE_COMPLETED, "{}", *json.loads(first.action_payload))
        second = await worker.next()
        assert set(json.loads(first.action_payload)) | set(json.loads(second.action_payload)) == set(runs)


async def test_a_cancelled_item_leaves_its_batch(wire: Wire) -> None:
    """An item cancelled while it waits is not sent."""
    async with batched(wire, batch_max_size=3, batch_max_interval_ms=400) as (name, worker):
        runs = [await wire.run(name) for _ in range(2)]
        await wire.post(f"{wire.stable}/tasks/cancel", {"externalIds": [runs[0]]})
        assert list(json.loads((await worker.next()).action_payload)) == [runs[1]]


async def test_those_who_wait_keep_their_order_when_one_in_their_middle_leaves(wire: Wire) -> None:
    """Priority first, then as they came; one that is cancelled while it waits frees no place."""
    async with limited(wire, level="task", strategy=v1.GROUP_ROUND_ROBIN) as (name, worker):
        holder = await wire.run(name, {"group": "a"})
        held = await worker.next()
        waiting = [await wire.run(name, {"group": "a", "n": n}) for n in range(5)]
        urgent = await wire.run(name, {"group": "a"}, priority=3)
        assert await worker.idle(0.2)
        await wire.post(f"{wire.stable}/tasks/cancel", {"externalIds": [waiting[2]]})
        assert await worker.idle(0.2)
        order: list[str] = []
        for _ in range(5):
            await worker.complete(held)
            held = await worker.next()
            order.append(held.workflow_run_id)
        assert (held.workflow_run_id, order) == (waiting[4], [urgent, waiting[0], waiting[1], waiting[3], waiting[4]])
        assert await wire.status(holder) == "COMPLETED"


async def test_runs_with_equal_wishes_go_to_their_worker_in_turn_and_hold_up_no_others(wire: Wire) -> None:
    """Labels asked for by a run and not to be had keep that run waiting, and those alone that ask for the same."""
    name = unique("wishes")
    await wire.put(name, task("work", name))
    async with wire.worker(f"{name}:work", labels={"zone": "a"}) as worker:
        nowhere = [await wire.run(name, desired_worker_labels=labels(zone=("b", True))) for _ in range(2)]
        here = [await wire.run(name, desired_worker_labels=labels(zone=("a", True))) for _ in range(3)]
        anywhere = await wire.run(name)
        got = [(await worker.next()).workflow_run_id for _ in range(4)]
        assert sorted(got) == sorted([*here, anywhere])
        assert [run for run in got if run in here] == here
        assert [await wire.status(run) for run in nowhere] == ["QUEUED", "QUEUED"]
