"""Batch tasks: admitted tasks collected by key, and sent to a worker as one action that occupies the slots of one task.

A batch is flushed when it is full, when its interval since the first item has passed, or when its payload comes close
to what a worker can receive. At most ``max_runs`` batches of a key run at once. The others stay flushed and wait.
"""

from __future__ import annotations

import json
from collections import Counter, deque

from mageflow.engine.actions import payload
from mageflow.engine.clock import Clock
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.definitions import BatchConfig
from mageflow.engine.expressions import ExpressionError, evaluate
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.model import Batch, Task, TaskStatus, Worker
from mageflow.engine.task_queue import TaskQueue
from mageflow.engine.values import new_id
from mageflow.engine.worker_pool import WorkerPool

# The whole action must stay under the 4 MiB that a client receives.
_MAX_BATCH_BYTES = 4_000_000


class Batches:
    """Batches that are collected, flushed or running.

    Args:
        clock: the intervals.
        queue: woken when a batch is ready for a worker.
        pool: the workers.
        lifecycle: starts and ends the items.
    """

    def __init__(self, clock: Clock, queue: TaskQueue, pool: WorkerPool, lifecycle: Lifecycle) -> None:
        self._clock = clock
        self._queue = queue
        self._pool = pool
        self._lifecycle = lifecycle
        self._collecting: dict[tuple[str, str, str], Batch] = {}
        self._flushed: deque[Batch] = deque()
        self._running: dict[str, Batch] = {}
        self._running_by_key = Counter[tuple[str, str, str]]()

    def add(self, task: Task, config: BatchConfig) -> None:
        """Put an admitted task in the batch of its key. A task whose key expression fails is failed alone."""
        try:
            key = _key(task, config)
        except ExpressionError as error:
            self._lifecycle.finish(
                task, TaskStatus.FAILED, error=f"failed to parse batch group key expression: {error}"
            )
            return
        item = json.dumps({"payload": payload(task), "workflow_run_id": task.run.id})
        batch = self._collecting.get(key)
        if batch is not None and batch.size_bytes + len(item) > _MAX_BATCH_BYTES:
            self._flush(batch, "payload_size")
            batch = None
        if batch is None:
            batch = Batch(id=new_id(), key=key, definition=task.definition, config=config)
            self._collecting[key] = batch
            self._clock.later(config.interval, self._interval_over, batch)
        task.batch = batch
        batch.items[task.id] = task
        batch.payloads[task.id] = item
        batch.size_bytes += len(item)
        self._lifecycle.record(task, "WAITING_FOR_BATCH")
        if len(batch.items) >= config.max_size:
            self._flush(batch, "batch_size")

    def release(self, task: Task) -> None:
        """Take a task that ended or is retried out of its batch. The last one frees the slots of the batch."""
        batch, task.batch = task.batch, None
        if batch is None:
            return
        batch.items.pop(task.id, None)
        batch.payloads.pop(task.id, None)
        if batch.items:
            return
        if batch.worker is not None:
            del self._running[batch.id]
            self._running_by_key[batch.key] -= 1
            if not self._running_by_key[batch.key]:
                del self._running_by_key[batch.key]
            self._pool.free(batch.worker, batch.definition.slots)
        elif self._collecting.get(batch.key) is batch:
            del self._collecting[batch.key]
        elif batch in self._flushed:
            self._flushed.remove(batch)

    def place(self) -> None:
        """Assign flushed batches to workers with enough free slots, in the order in which they were flushed."""
        for batch in list(self._flushed):
            if self._running_by_key[batch.key] >= batch.config.max_runs:
                continue
            worker = self._pool.find(next(iter(batch.items.values())))
            if worker is not None:
                self._flushed.remove(batch)
                self._assign(batch, worker)

    def report(self, event: pb.BatchActionEvent) -> None:
        """Apply a worker's report about items of a running batch.

        The retry count in an item is that of the action, not of the item, so it is not compared. Items that ended
        already are ignored.
        """
        batch = self._running.get(event.batch_id)
        for item in event.items:
            task = None if batch is None else batch.items.get(item.task_run_external_id)
            if task is None or task.status is not TaskStatus.RUNNING:
                continue
            if event.event_type == pb.STEP_EVENT_TYPE_STARTED:
                self._lifecycle.attempt_started(task)
            elif event.event_type == pb.STEP_EVENT_TYPE_COMPLETED:
                self._lifecycle.attempt_completed(task, item.event_payload)
            elif event.event_type == pb.STEP_EVENT_TYPE_CANCELLED:
                self._lifecycle.finish(task, TaskStatus.CANCELLED, message="cancelled by the worker")
            elif event.event_type == pb.STEP_EVENT_TYPE_FAILED:
                self._lifecycle.attempt_failed(
                    task,
                    item.event_payload,
                    retryable=not item.should_not_retry,
                    retry_after=item.retry_after_ms / 1000 if item.HasField("retry_after_ms") else None,
                )

    def sharing_attempt(self, task: Task) -> list[Task]:
        """Return the items of the task's batch, which start and time out together, or the task alone."""
        return [task] if task.batch is None else list(task.batch.items.values())

    def _interval_over(self, batch: Batch) -> None:
        if self._collecting.get(batch.key) is batch:
            self._flush(batch, "interval")

    def _flush(self, batch: Batch, reason: str) -> None:
        del self._collecting[batch.key]
        batch.reason = reason
        batch.flushed_at = self._clock.now()
        for task in batch.items.values():
            self._lifecycle.record(task, "BATCH_FLUSHED", f"{len(batch.items)} items, {reason}")
        self._flushed.append(batch)
        self._queue.wake()

    def _assign(self, batch: Batch, worker: Worker) -> None:
        batch.worker = worker
        self._running[batch.id] = batch
        self._running_by_key[batch.key] += 1
        self._lifecycle.assign_batch(batch, worker)
        batch.payloads.clear()


def _key(task: Task, config: BatchConfig) -> tuple[str, str, str]:
    value = evaluate(config.group_key, {"input": task.run.input, "additional_metadata": task.run.metadata})
    if not isinstance(value, str):
        raise ExpressionError(f"{config.group_key!r} must yield a string, not {value!r}")
    return (task.run.workflow.id, task.name, value)
