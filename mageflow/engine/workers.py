"""Worker processes: registration, their action stream, heartbeats, loss.

An open stream makes a worker live. A closed stream alone is not death: a draining worker closes it and keeps
heartbeating until its tasks are done. A worker is lost when its heartbeats stop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.errors import PreconditionError
from mageflow.engine.model import Task, TaskStatus, Worker, new_id

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_CHECK_INTERVAL_SECONDS = 1.0
# An action handed to a stream that broke may never have arrived; a worker that got it says STARTED well before this.
_UNACKNOWLEDGED_SECONDS = 5.0
_FORGET_AFTER_SECONDS = 600.0


class Workers:
    """All workers the engine has seen.

    Args:
        engine: the engine.
        lost_after: seconds without a heartbeat after which a worker's tasks are reassigned.
    """

    def __init__(self, engine: Engine, *, lost_after: float) -> None:
        self._engine = engine
        self._lost_after = lost_after
        self._check()

    def register(self, request: pb.WorkerRegisterRequest) -> Worker:
        """Remember a new worker; it gets no work before its stream is open."""
        now = self._engine.clock.now()
        slots = dict(request.slot_config) or {"default": request.slots or 100}
        worker = Worker(
            id=new_id(),
            name=request.worker_name,
            actions=frozenset(action.lower() for action in request.actions),
            slots=slots,
            labels=labels_of(request.labels),
            runtime=request.runtime_info if request.HasField("runtime_info") else None,
            created_at=now,
            last_heartbeat=now,
        )
        self._engine.store.workers[worker.id] = worker
        return worker

    def heartbeat(self, worker_id: str) -> None:
        """Note a sign of life.

        Raises:
            NotFoundError: unknown worker.
            PreconditionError: its stream broke and it should open a new one; a paused one is draining and should not.
        """
        worker = self._engine.store.worker(worker_id)
        worker.last_heartbeat = self._engine.clock.now()
        if worker.lost:
            worker.lost = False
            self._engine.scheduler.wake()
        if worker.had_stream and worker.stream is None and not worker.paused:
            raise PreconditionError(f"worker {worker_id} has no open stream")

    def set_paused(self, worker: Worker, *, paused: bool) -> None:
        """A paused worker gets no new work and finishes what it has."""
        worker.paused = paused
        self._engine.scheduler.wake()

    def upsert_labels(self, worker: Worker, labels: dict[str, str | int]) -> None:
        """Merge labels and look again at who may run where."""
        worker.labels.update(labels)
        self._engine.scheduler.wake()

    async def listen(self, worker: Worker) -> AsyncIterator[pb.AssignedAction]:
        """Yield the worker's actions until the stream ends or a newer one replaces it."""
        stream = object()
        worker.stream = stream
        worker.had_stream = True
        worker.lost = False
        worker.last_heartbeat = self._engine.clock.now()
        worker.outbox_ready.set()
        self._engine.scheduler.worker_joined(worker)
        try:
            while worker.stream is stream:
                while worker.outbox and worker.stream is stream:
                    yield worker.outbox.popleft()
                worker.outbox_ready.clear()
                await worker.outbox_ready.wait()
        finally:
            if worker.stream is stream:
                self._stream_closed(worker)

    def _stream_closed(self, worker: Worker) -> None:
        worker.stream = None
        self._engine.scheduler.worker_left(worker)
        attempts = [(task, task.retry_count) for task in worker.tasks if not task.acknowledged]
        self._engine.clock.later(_UNACKNOWLEDGED_SECONDS, self._reassign_unacknowledged, worker, attempts)

    def _reassign_unacknowledged(self, worker: Worker, attempts: list[tuple[Task, int]]) -> None:
        """Requeue what the broken stream swallowed; what still waits in the outbox was not swallowed."""
        waiting = {action.task_run_external_id for action in worker.outbox}
        for task, retry_count in attempts:
            same_attempt = task.status is TaskStatus.RUNNING and task.retry_count == retry_count
            if same_attempt and task.worker is worker and not task.acknowledged and task.id not in waiting:
                self._engine.lifecycle.worker_lost(task, "the worker's stream broke before it took the task")

    def _check(self) -> None:
        """Reassign the tasks of silent workers and forget workers that have been gone for long; from now on, always."""
        # First, so that a failure below is not the last look at any worker.
        self._engine.clock.later(_CHECK_INTERVAL_SECONDS, self._check)
        now = self._engine.clock.now()
        for worker in list(self._engine.store.workers.values()):
            silent = (now - worker.last_heartbeat).total_seconds()
            if silent > self._lost_after and not worker.lost:
                self._lose(worker)
            if silent > _FORGET_AFTER_SECONDS and worker.stream is None and not worker.tasks:
                del self._engine.store.workers[worker.id]

    def _lose(self, worker: Worker) -> None:
        worker.lost = True
        worker.outbox.clear()
        for task in list(worker.tasks):
            if task.batch is not None:
                self._engine.batches.worker_lost(task.batch)
            elif task.holds_slots:
                self._engine.lifecycle.worker_lost(task, f"worker {worker.name} sent no heartbeat")


def labels_of(labels: Mapping[str, pb.WorkerLabels]) -> dict[str, str | int]:
    """Return worker labels as plain values."""
    return {key: label.int_value if label.HasField("int_value") else label.str_value for key, label in labels.items()}
