"""Assigns waiting tasks to workers."""

from __future__ import annotations

import logging

from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.model import Task, TaskStatus
from mageflow.engine.rate_limits import RateLimits
from mageflow.engine.task_queue import TaskQueue
from mageflow.engine.worker_pool import WorkerPool

_log = logging.getLogger("mageflow.engine.scheduler")


class Scheduler:
    """Offers waiting tasks to workers whenever the queue says that a pass is due.

    Args:
        queue: the waiting tasks.
        pool: the workers.
        rate_limits: what a task must take before it is assigned.
        lifecycle: starts the tasks.
    """

    def __init__(self, queue: TaskQueue, pool: WorkerPool, rate_limits: RateLimits, lifecycle: Lifecycle) -> None:
        self._queue = queue
        self._pool = pool
        self._rate_limits = rate_limits
        self._lifecycle = lifecycle

    def run_pass(self) -> None:
        """Assign every waiting task that can start now."""
        self._queue.offer(self._place)

    def _place(self, task: Task) -> bool:
        worker = self._pool.find(task)
        if worker is None or not self._rate_limits.take(task):
            return False
        self._queue.remove(task)
        try:
            self._lifecycle.assign(task, worker)
        except Exception as error:  # noqa: BLE001 - it is logged, and it ends the task
            # One task that cannot be sent must not stop the others, now and in every later pass.
            _log.exception("task %s of %s cannot be sent to a worker", task.id, task.run.workflow.name)
            self._lifecycle.finish(task, TaskStatus.FAILED, error=f"the local engine failed: {error!r}")
        return True
