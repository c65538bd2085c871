"""Runs that the engine forgot are in no part of it any more."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from mageflow.engine.contracts import condition_pb2 as conditions
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from mageflow.engine.core import Engine
from mageflow.engine.definitions import Pause
from mageflow.engine.model import Run, Task
from mageflow.engine.settings import Settings
from mageflow.engine.trigger import Trigger
from tests.engine.raw_client import task, unique

KEPT = 2
RUNS = 20


def live_objects(kind: type, name: str) -> int:
    """Return how many runs, or tasks of runs, of a workflow are in memory."""
    gc.collect()
    runs = [each for each in gc.get_objects() if isinstance(each, kind)]
    return sum((each if isinstance(each, Run) else each.run).workflow.name == name for each in runs)


@asynccontextmanager
async def engine_with_worker(*actions: str) -> AsyncIterator[Engine]:
    """An engine in this process, and a worker that completes every action at once."""
    engine = Engine(Settings(keep_finished=KEPT), str(uuid4()))
    slots = {"default": 1, "durable": 1}
    request = pb.WorkerRegisterRequest(worker_name="worker", actions=actions, slot_config=slots)
    worker = engine.workers.register(request)

    async def complete() -> None:
        async for action in engine.workers.listen(worker):
            if action.action_type == pb.START_BATCH:
                items = [task_id for task_id, each in engine.repository.tasks.items() if each.worker is worker]
                for kind in (pb.STEP_EVENT_TYPE_STARTED, pb.STEP_EVENT_TYPE_COMPLETED):
                    event = pb.BatchActionEvent(batch_id=action.batchId, event_type=kind)
                    event.items.extend(pb.BatchActionEventItem(task_run_external_id=each) for each in items)
                    engine.batches.report(event)
            elif action.action_type == pb.START_STEP_RUN:
                started = engine.repository.task(action.task_run_external_id)
                engine.lifecycle.attempt_started(started)
                engine.lifecycle.attempt_completed(started, '{"n": 1}')

    worker_task = asyncio.create_task(complete())
    try:
        yield engine
    finally:
        worker_task.cancel()


async def all_done(engine: Engine, name: str) -> None:
    """Wait until no run of the workflow is live."""
    async with asyncio.timeout(60):
        while any(not run.done for run in engine.repository.runs.values() if run.workflow.name == name):
            await asyncio.sleep(0.01)


def waits_for_event(key: str) -> conditions.TaskConditions:
    """Return the conditions of a task that starts after an event."""
    event = conditions.UserEventMatchCondition(
        base=conditions.BaseMatchCondition(readable_data_key=key, action=conditions.QUEUE, or_group_id="group"),
        user_event_key=key,
    )
    return conditions.TaskConditions(user_event_conditions=[event])


async def test_finished_runs_are_kept_by_no_part() -> None:
    """A DAG under concurrency limits with an event condition, a durable task and an on_failure task."""
    name, key = unique("forgotten"), unique("key")
    limit = v1.Concurrency(expression="'all'", max_runs=1, limit_strategy=v1.GROUP_ROUND_ROBIN)
    tasks = [
        task("first", name, concurrency=[limit]),
        task("second", name, parents=["first"], conditions=waits_for_event(key)),
        task("third", name, parents=["second"], is_durable=True),
    ]
    async with engine_with_worker(*(f"{name}:{each}" for each in ("first", "second", "third"))) as engine:
        engine.registry.put(
            v1.CreateWorkflowVersionRequest(
                name=name, tasks=tasks, concurrency_arr=[limit], on_failure_task=task("handler", name)
            )
        )
        for _ in range(RUNS):
            engine.runs.start(Trigger(workflow_name=name))
        pushing = asyncio.create_task(_push_until_done(engine, key))
        await all_done(engine, name)
        pushing.cancel()
        assert [run.status for run in engine.repository.runs.values()] == ["COMPLETED"] * KEPT
        assert live_objects(Run, name) == KEPT
        assert live_objects(Task, name) == KEPT * 4


async def _push_until_done(engine: Engine, key: str) -> None:
    while True:
        engine.events.push(key, {})
        await asyncio.sleep(0.01)


async def test_cancelled_runs_are_kept_by_no_part() -> None:
    """Runs that wait for a worker, for an event, for a concurrency place or for the end of a pause."""
    name = unique("cancelled")
    engine = Engine(Settings(keep_finished=KEPT), str(uuid4()))
    limit = v1.Concurrency(expression="'all'", max_runs=2, limit_strategy=v1.GROUP_ROUND_ROBIN)
    tasks = [task("work", name), task("listen", name, conditions=waits_for_event(name))]
    version = engine.registry.put(v1.CreateWorkflowVersionRequest(name=name, tasks=tasks, concurrency_arr=[limit]))
    waiting = [engine.runs.start(Trigger(workflow_name=name)).id for _ in range(RUNS)]
    engine.pauses.pause(version.workflow, Pause(queue_crons=True, queue_schedules=True, ttl=60))
    waiting += [engine.runs.start(Trigger(workflow_name=name)).id for _ in range(RUNS)]
    engine.bulk.cancel(waiting)
    await asyncio.sleep(0)
    assert live_objects(Run, name) == KEPT
    assert live_objects(Task, name) == KEPT * 2


async def test_batches_that_ended_keep_no_items() -> None:
    """Items that were collected, flushed and completed."""
    name = unique("batched")
    config = v1.TaskBatchConfig(batch_max_size=3, batch_max_interval_ms=50)
    async with engine_with_worker(f"{name}:work") as engine:
        engine.registry.put(v1.CreateWorkflowVersionRequest(name=name, tasks=[task("work", name, batch=config)]))
        for _ in range(RUNS):
            engine.runs.start(Trigger(workflow_name=name))
        await all_done(engine, name)
        # The timer of the last batch's interval has its batch.
        await asyncio.sleep(0.1)
        assert [run.status for run in engine.repository.runs.values()] == ["COMPLETED"] * KEPT
        assert live_objects(Task, name) == KEPT
