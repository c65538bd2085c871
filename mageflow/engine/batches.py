"""Batch tasks: queued tasks collected by key and sent to a worker as one action with one slot request.

A batch is flushed when it is full, when its interval since the first item has passed, or when its payload nears what
a worker can receive. At most ``max_runs`` batches of a key run at once; others wait, flushed but unassigned.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from mageflow.engine.actions import payload, timestamp
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.expressions import ExpressionError, evaluate
from mageflow.engine.model import BatchConfig, Step, Task, TaskStatus, Worker, new_id

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

# The whole action must stay under the 4 MiB a client receives.
_MAX_BATCH_BYTES = 4_000_000

GroupKey: TypeAlias = tuple[str, str, str]


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """Items under one key: first collected, then flushed, then running on a worker."""

    id: str
    group: GroupKey
    step: Step
    items: dict[str, Task] = field(default_factory=dict[str, Task])
    payloads: dict[str, str] = field(default_factory=dict[str, str])
    size_bytes: int = 0
    reason: str = ""
    flushed_at: datetime | None = None
    worker: Worker | None = None

    @property
    def config(self) -> BatchConfig:
        """How the batch is collected."""
        if self.step.batch is None:
            raise AssertionError("a batch of a task that is no batch task")
        return self.step.batch


class Batches:
    """Collecting, flushed and running batches."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._collecting: dict[GroupKey, Batch] = {}
        self._flushed: deque[Batch] = deque()
        self._running: dict[GroupKey, int] = {}

    def add(self, task: Task) -> None:
        """Put an admitted task in the buffer of its key; a bad key fails the task alone."""
        try:
            group = _group_key(task)
        except ExpressionError as error:
            self._engine.lifecycle.finish(
                task, TaskStatus.FAILED, error=f"failed to parse batch group key expression: {error}"
            )
            return
        item = json.dumps({"payload": payload(task), "workflow_run_id": task.run.id})
        batch = self._collecting.get(group)
        if batch is not None and batch.size_bytes + len(item) > _MAX_BATCH_BYTES:
            self._flush(batch, "payload_size")
            batch = None
        if batch is None:
            batch = Batch(id=new_id(), group=group, step=task.step)
            self._collecting[group] = batch
            self._engine.clock.later(batch.config.interval, self._interval_over, batch)
        task.batch = batch
        batch.items[task.id] = task
        batch.payloads[task.id] = item
        batch.size_bytes += len(item)
        self._engine.lifecycle.record(task, "WAITING_FOR_BATCH")
        if len(batch.items) >= batch.config.max_size:
            self._flush(batch, "batch_size")

    def release(self, task: Task) -> None:
        """Take a task that ended, or is retried, out of its batch; the last one frees the batch's slots."""
        batch, task.batch = task.batch, None
        if batch is None:
            return
        batch.items.pop(task.id, None)
        batch.payloads.pop(task.id, None)
        if batch.items:
            return
        if batch.worker is not None:
            self._end(batch)
        elif self._collecting.get(batch.group) is batch:
            del self._collecting[batch.group]
        elif batch in self._flushed:
            self._flushed.remove(batch)

    def place(self) -> None:
        """Assign flushed batches to workers with room, first flushed first."""
        for batch in list(self._flushed):
            if self._running.get(batch.group, 0) >= batch.config.max_runs:
                continue
            worker = self._engine.scheduler.find_worker(next(iter(batch.items.values())))
            if worker is not None:
                self._flushed.remove(batch)
                self._assign(batch, worker)

    def event(self, event: pb.BatchActionEvent) -> None:
        """Take a worker's report about items; the retry count in it is the action's, not the item's."""
        lifecycle = self._engine.lifecycle
        for item in event.items:
            task = self._engine.store.tasks.get(item.task_run_external_id)
            in_batch = task is not None and task.batch is not None and task.batch.id == event.batch_id
            if task is None or not in_batch or task.status is not TaskStatus.RUNNING:
                continue
            if event.event_type == pb.STEP_EVENT_TYPE_STARTED:
                lifecycle.attempt_started(task)
            elif event.event_type == pb.STEP_EVENT_TYPE_COMPLETED:
                lifecycle.attempt_completed(task, item.event_payload)
            elif event.event_type == pb.STEP_EVENT_TYPE_CANCELLED:
                lifecycle.finish(task, TaskStatus.CANCELLED, message="cancelled by the worker")
            elif event.event_type == pb.STEP_EVENT_TYPE_FAILED:
                lifecycle.attempt_failed(
                    task,
                    item.event_payload,
                    retryable=not item.should_not_retry,
                    retry_after=item.retry_after_ms / 1000 if item.HasField("retry_after_ms") else None,
                )

    def timed_out(self, batch: Batch, error: str) -> None:
        """Fail all items: they share one attempt."""
        for task in list(batch.items.values()):
            self._engine.lifecycle.attempt_failed(task, error, event="TIMED_OUT")

    def worker_lost(self, batch: Batch) -> None:
        """Put all items back in the queue."""
        for task in list(batch.items.values()):
            self._engine.lifecycle.worker_lost(task, "the batch's worker sent no heartbeat")

    def _interval_over(self, batch: Batch) -> None:
        if self._collecting.get(batch.group) is batch:
            self._flush(batch, "interval")

    def _flush(self, batch: Batch, reason: str) -> None:
        del self._collecting[batch.group]
        batch.reason = reason
        batch.flushed_at = self._engine.clock.now()
        for task in batch.items.values():
            self._engine.lifecycle.record(task, "BATCH_FLUSHED", f"{len(batch.items)} items, {reason}")
        self._flushed.append(batch)
        self._engine.scheduler.wake()

    def _assign(self, batch: Batch, worker: Worker) -> None:
        batch.worker = worker
        worker.take(batch.step.slots)
        self._running[batch.group] = self._running.get(batch.group, 0) + 1
        self._engine.scheduler.note_assignment(worker)
        for task in batch.items.values():
            self._engine.lifecycle.assign_in_batch(task, worker)
        worker.send(self._action(batch))
        batch.payloads.clear()

    def _end(self, batch: Batch) -> None:
        worker, batch.worker = batch.worker, None
        if worker is not None:
            worker.give_back(batch.step.slots)
        self._running[batch.group] -= 1
        if not self._running[batch.group]:
            del self._running[batch.group]
        self._engine.scheduler.wake()

    def _action(self, batch: Batch) -> pb.AssignedAction:
        first = next(iter(batch.items.values()))
        # Items were serialised once, when they were collected.
        items = ", ".join(f"{json.dumps(task_id)}: {batch.payloads[task_id]}" for task_id in batch.items)
        return pb.AssignedAction(
            tenant_id=self._engine.tenant_id,
            job_id=batch.step.id,
            job_name=batch.step.readable_id,
            task_id=batch.step.id,
            task_name=batch.step.readable_id,
            action_id=batch.step.action,
            action_type=pb.START_BATCH,
            action_payload="{" + items + "}",
            retry_count=0,
            workflow_id=first.run.workflow.id,
            workflow_version_id=first.run.version.id,
            batchId=batch.id,
            batchKey=batch.group[2],
            batchSize=len(batch.items),
            batchStartPayload=pb.BatchStartPayload(
                triggerReason=batch.reason,
                triggerTime=timestamp(batch.flushed_at or self._engine.clock.now()),
                expectedSize=len(batch.items),
            ),
        )


def _group_key(task: Task) -> GroupKey:
    if task.step.batch is None:
        raise AssertionError("only batch tasks are collected")
    expression = task.step.batch.group_key
    value = evaluate(expression, {"input": task.run.input, "additional_metadata": task.run.metadata})
    if not isinstance(value, str):
        raise ExpressionError(f"{expression!r} must yield a string, not {value!r}")
    return (task.run.workflow.id, task.step.readable_id, value)
