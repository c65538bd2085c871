"""Which worker can take a task: live workers by action, their free slots, labels and stickiness."""

from __future__ import annotations

from collections.abc import Mapping

from mageflow.engine.contracts import trigger_pb2
from mageflow.engine.labels import label_score
from mageflow.engine.model import Task, Worker
from mageflow.engine.task_queue import TaskQueue


class WorkerPool:
    """The workers with an open stream. Whenever one of them can take more or other tasks, it wakes the queue.

    Args:
        queue: the tasks that wait for a worker.
    """

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue
        self._by_action: dict[str, set[Worker]] = {}
        self._assignments = 0

    def join(self, worker: Worker) -> None:
        """Add a worker whose stream opened."""
        for action in worker.actions:
            self._by_action.setdefault(action, set()).add(worker)
        self._queue.wake()

    def leave(self, worker: Worker) -> None:
        """Remove a worker whose stream closed."""
        for action in worker.actions:
            workers = self._by_action.get(action)
            if workers is not None:
                workers.discard(worker)
                if not workers:
                    del self._by_action[action]

    def changed(self, worker: Worker) -> None:
        """Note that a worker's labels or its readiness for work changed."""
        self._queue.wake()

    def occupy(self, worker: Worker, slots: Mapping[str, int]) -> None:
        """Take slots of a worker, and move it to the end of the round-robin."""
        for kind, units in slots.items():
            worker.used[kind] = worker.used.get(kind, 0) + units
        self._assignments += 1
        worker.last_assigned = self._assignments

    def free(self, worker: Worker, slots: Mapping[str, int]) -> None:
        """Give slots of a worker back."""
        for kind, units in slots.items():
            worker.used[kind] = worker.used.get(kind, 0) - units
        self._queue.wake()

    def find(self, task: Task) -> Worker | None:
        """Return the worker for a task: the highest label score first, then the longest without an assignment.

        A run that is bound to a worker (by its trigger, or sticky to the worker of its first task) gets that worker.
        If it cannot take the task now, a ``HARD`` sticky run gets none and any other run gets the best of the rest.
        """
        workers = self._by_action.get(task.definition.action)
        if not workers:
            return None
        wanted = task.run.trigger.desired_labels or task.definition.labels
        best = _best(workers, task.definition.slots, wanted)
        sticky = task.run.version.sticky
        bound_to = task.run.trigger.desired_worker_id or (task.run.sticky_worker_id if sticky else None)
        if bound_to is None:
            return best
        bound = next((worker for worker in workers if worker.id == bound_to), None)
        if bound is not None and bound.can_take(task.definition.slots):
            return bound
        return None if sticky == "HARD" else best


def _best(
    workers: set[Worker], slots: Mapping[str, int], wanted: Mapping[str, trigger_pb2.DesiredWorkerLabels]
) -> Worker | None:
    best: tuple[int, int] | None = None
    chosen: Worker | None = None
    for worker in workers:
        if not worker.can_take(slots):
            continue
        score = label_score(wanted, worker.labels) if wanted else 0
        if score is None:
            continue
        rank = (score, -worker.last_assigned)
        if best is None or rank > best:
            best, chosen = rank, worker
    return chosen
