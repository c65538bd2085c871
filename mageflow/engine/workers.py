"""Worker processes: registration, action streams, heartbeats and loss.

An open stream makes a worker live. A closed stream alone does not mean that the worker is dead: a worker that drains
closes its stream and sends heartbeats until its tasks have ended. A worker is lost when its heartbeats stop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from mageflow.engine.clock import Clock
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.errors import PreconditionError
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.model import Task, TaskStatus, Worker
from mageflow.engine.repository import Repository
from mageflow.engine.values import new_id
from mageflow.engine.worker_pool import WorkerPool

_CHECK_INTERVAL_SECONDS = 1.0
# An action on a stream that broke may never have arrived. A worker that got it reports STARTED well before this.
_UNACKNOWLEDGED_SECONDS = 5.0
_FORGET_AFTER_SECONDS = 600.0


class Workers:
    """All workers that the engine knows.

    Args:
        clock: heartbeats and checks.
        repository: where the workers are.
        pool: the workers that can be sent actions.
        lifecycle: requeues the tasks of lost workers.
        lost_after: seconds without a heartbeat after which a worker's tasks are requeued.
    """

    def __init__(
        self, clock: Clock, repository: Repository, pool: WorkerPool, lifecycle: Lifecycle, *, lost_after: float
    ) -> None:
        self._clock = clock
        self._repository = repository
        self._pool = pool
        self._lifecycle = lifecycle
        self._lost_after = lost_after
        self._check()

    def register(self, request: pb.WorkerRegisterRequest) -> Worker:
        """Store a new worker. It gets no action before its stream is open."""
        now = self._clock.now()
        worker = Worker(
            id=new_id(),
            name=request.worker_name,
            actions=frozenset(action.lower() for action in request.actions),
            slots=dict(request.slot_config) or {"default": request.slots or 100},
            labels=labels_of(request.labels),
            runtime=request.runtime_info if request.HasField("runtime_info") else None,
            created_at=now,
            last_heartbeat=now,
        )
        self._repository.workers[worker.id] = worker
        return worker

    def heartbeat(self, worker_id: str) -> None:
        """Note a heartbeat.

        Raises:
            NotFoundError: the worker is unknown.
            PreconditionError: the worker's stream broke, so it should open a new one. A paused worker drains and
                should not.
        """
        worker = self._repository.worker(worker_id)
        worker.last_heartbeat = self._clock.now()
        if worker.is_lost:
            worker.is_lost = False
            self._pool.changed(worker)
        if worker.had_stream and worker.stream is None and not worker.is_paused:
            raise PreconditionError(f"worker {worker_id} has no open stream")

    def set_paused(self, worker: Worker, *, paused: bool) -> None:
        """Pause or unpause a worker. A paused worker gets no new task and finishes those it has."""
        worker.is_paused = paused
        self._pool.changed(worker)

    def upsert_labels(self, worker: Worker, labels: dict[str, str | int]) -> None:
        """Add labels, or replace those with the same key."""
        worker.labels.update(labels)
        self._pool.changed(worker)

    async def listen(self, worker: Worker) -> AsyncIterator[pb.AssignedAction]:
        """Yield the worker's actions until the stream ends or a newer stream replaces it."""
        stream = object()
        if worker.stream is not None:  # the engine may hear of the new stream before the end of the old one
            self._requeue_what_is_lost(worker)
        worker.stream = stream
        worker.had_stream = True
        worker.is_lost = False
        worker.last_heartbeat = self._clock.now()
        worker.outbox_ready.set()
        self._pool.join(worker)
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
        self._pool.leave(worker)
        self._requeue_what_is_lost(worker)

    def _requeue_what_is_lost(self, worker: Worker) -> None:
        """Requeue the attempts that the worker has not begun some seconds from now: their actions may be lost."""
        attempts = [(task, task.retry_count) for task in worker.tasks if not task.acknowledged]
        self._clock.later(_UNACKNOWLEDGED_SECONDS, self._requeue_unacknowledged, worker, attempts)

    def _requeue_unacknowledged(self, worker: Worker, attempts: list[tuple[Task, int]]) -> None:
        """Requeue the attempts that were lost with the stream. Actions that are still in the outbox were not."""
        unsent = {action.task_run_external_id for action in worker.outbox}
        for task, retry_count in attempts:
            same_attempt = task.status is TaskStatus.RUNNING and task.retry_count == retry_count
            if same_attempt and task.worker is worker and not task.acknowledged and task.id not in unsent:
                self._lifecycle.worker_lost(task, "the worker's stream broke before it took the task")

    def _check(self) -> None:
        """Requeue the tasks of silent workers, forget workers that were silent for long, and check again later."""
        # First, so that a failure below does not end the checks.
        self._clock.later(_CHECK_INTERVAL_SECONDS, self._check)
        now = self._clock.now()
        for worker in list(self._repository.workers.values()):
            silent = (now - worker.last_heartbeat).total_seconds()
            if silent > self._lost_after and not worker.is_lost:
                self._lose(worker)
            if silent > _FORGET_AFTER_SECONDS and worker.stream is None and not worker.tasks:
                del self._repository.workers[worker.id]

    def _lose(self, worker: Worker) -> None:
        worker.is_lost = True
        worker.outbox.clear()
        for task in list(worker.tasks):
            # A task that released its slot goes on by itself; the slots of a batch belong to the batch.
            if task.holds_slots or task.batch is not None:
                self._lifecycle.worker_lost(task, f"worker {worker.name} sent no heartbeat")


def labels_of(labels: Mapping[str, pb.WorkerLabels]) -> dict[str, str | int]:
    """Return worker labels as plain values."""
    return {key: label.int_value if label.HasField("int_value") else label.str_value for key, label in labels.items()}
