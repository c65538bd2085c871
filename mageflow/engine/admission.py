"""Grants that a queued task needs before it may wait for a worker.

First its run holds every concurrency limit of the workflow, then the task holds every limit of its own. Then it goes
to the queue, or into the buffer of its batch. A run keeps its limits until it ends. A task keeps its limits until it
ends or is retried; an evicted durable task keeps them too.
"""

from __future__ import annotations

from mageflow.engine.batches import Batches
from mageflow.engine.concurrency import Concurrency, ConcurrencyKeyError, Hold, Owner
from mageflow.engine.expressions import ExpressionError
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.model import Run, Task, TaskStatus
from mageflow.engine.rate_limits import RateLimits
from mageflow.engine.task_queue import TaskQueue


class Admission:
    """The concurrency limits that runs and tasks hold or wait for.

    Args:
        lifecycle: ends those that a strategy cancels.
        rate_limits: what a task will take when it is assigned.
        queue: where admitted tasks go.
        batches: where admitted items of batches go.
    """

    def __init__(self, lifecycle: Lifecycle, rate_limits: RateLimits, queue: TaskQueue, batches: Batches) -> None:
        self._lifecycle = lifecycle
        self._rate_limits = rate_limits
        self._queue = queue
        self._batches = batches
        self._concurrency = Concurrency(cancel=self._cancel, granted=self._granted)
        self._holds: dict[Owner, list[Hold]] = {}
        self._admitted: set[Run] = set()
        self._waiting: dict[Run, list[Task]] = {}

    def request(self, task: Task) -> None:
        """Ask for everything the task needs. It reaches the queue at once, later, or never."""
        run = task.run
        if not run.version.concurrency or run in self._admitted:
            self._advance(task)
            return
        self._waiting.setdefault(run, []).append(task)
        if run not in self._holds:
            self._advance(run)

    def release(self, task: Task) -> None:
        """Give back what the task was granted, or take it out of the wait lists."""
        waiting = self._waiting.get(task.run)
        if waiting is not None and task in waiting:
            waiting.remove(task)
            if not waiting:
                del self._waiting[task.run]
        self._give_back(task)

    def release_run(self, run: Run) -> None:
        """Give back what the run was granted."""
        self._admitted.discard(run)
        self._give_back(run)

    def _give_back(self, owner: Owner) -> None:
        for hold in self._holds.pop(owner, ()):
            self._concurrency.release(hold)

    def _granted(self, hold: Hold) -> None:
        self._advance(hold.owner)

    def _advance(self, owner: Owner) -> None:
        """Request the owner's limits in order, as far as they are granted."""
        entries = owner.version.concurrency if isinstance(owner, Run) else owner.definition.concurrency
        holds = self._holds.get(owner, [])
        if holds and not holds[-1].admitted:
            return
        for number in range(len(holds), len(entries)):
            try:
                hold = self._concurrency.request(owner, entries[number], _scope(owner, number), owner.priority)
            except ConcurrencyKeyError as error:
                self._fail(owner, str(error))
                return
            if _has_ended(owner):
                # The strategy cancelled the newcomer, which is in no pool.
                return
            self._holds.setdefault(owner, []).append(hold)
            if not hold.admitted:
                return
        self._pass_on(owner)

    def _pass_on(self, owner: Owner) -> None:
        if isinstance(owner, Run):
            self._admitted.add(owner)
            for task in self._waiting.pop(owner, ()):
                self._advance(task)
            return
        if owner.definition.batch is not None:
            self._batches.add(owner, owner.definition.batch)
            return
        try:
            self._rate_limits.prepare(owner)
        except ExpressionError as error:
            self._fail(owner, f"failed to parse rate limit expression: {error}")
            return
        self._queue.add(owner)

    def _cancel(self, owner: Owner) -> None:
        tasks = owner.tasks.values() if isinstance(owner, Run) else (owner,)
        self._lifecycle.cancel(tasks, "cancelled by the concurrency strategy")
        if isinstance(owner, Run):
            # The end of the run may be processed only after the current step. Its place is free at once.
            self.release_run(owner)

    def _fail(self, owner: Owner, error: str) -> None:
        tasks = list(owner.tasks.values()) if isinstance(owner, Run) else [owner]
        for task in tasks:
            self._lifecycle.finish(task, TaskStatus.FAILED, error=error)


def _scope(owner: Owner, number: int) -> tuple[str, ...]:
    if isinstance(owner, Run):
        return ("workflow", owner.workflow.id, str(number))
    return ("task", owner.run.workflow.id, owner.name, str(number))


def _has_ended(owner: Owner) -> bool:
    tasks = owner.tasks.values() if isinstance(owner, Run) else (owner,)
    return all(task.status.is_terminal for task in tasks)
