"""What a queued task must be granted before it may wait for a worker.

In this order: its workflow is not paused, its run holds all workflow-level concurrency, the task holds all its own.
Then it goes to the scheduler, or into the buffer of its batch. Workflow-level holds last as long as the run,
task-level ones until the task ends or is retried; an evicted durable task keeps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mageflow.engine.concurrency import Concurrency, ConcurrencyKeyError, Hold, Owner
from mageflow.engine.model import Run, Task, TaskStatus

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


class Admission:
    """The gate between QUEUED and the scheduler's lanes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._concurrency = Concurrency(cancel=self._cancel, granted=self._granted)

    def request(self, task: Task) -> None:
        """Ask for everything the task needs; it reaches its lane at once, later or never."""
        if self._engine.pauses.park(task):
            return
        run = task.run
        if run.admitted or not run.version.concurrency:
            self._advance(task)
            return
        run.waiting_for_admission.append(task)
        if not run.holds:
            self._advance(run)

    def release(self, task: Task) -> None:
        """Give back what the task was granted, or take it out of the wait lists."""
        self._engine.pauses.release(task)
        self._engine.batches.release(task)
        if task in task.run.waiting_for_admission:
            task.run.waiting_for_admission.remove(task)
        holds, task.holds = task.holds, []
        for hold in holds:
            self._concurrency.release(hold)

    def release_run(self, run: Run) -> None:
        """Give back what the run was granted."""
        holds, run.holds = run.holds, []
        run.admitted = False
        for hold in holds:
            self._concurrency.release(hold)

    def _granted(self, hold: Hold) -> None:
        self._advance(hold.owner)

    def _advance(self, owner: Owner) -> None:
        """Acquire the owner's entries in order, as far as they go."""
        entries = owner.version.concurrency if isinstance(owner, Run) else owner.step.concurrency
        if owner.holds and not owner.holds[-1].admitted:
            return
        while len(owner.holds) < len(entries):
            number = len(owner.holds)
            try:
                hold = self._concurrency.request(owner, entries[number], _scope(owner, number), owner.priority)
            except ConcurrencyKeyError as error:
                self._fail(owner, str(error))
                return
            if _has_ended(owner):
                # Its strategy cancelled the newcomer, which never was in the pool.
                return
            owner.holds.append(hold)
            if not hold.admitted:
                return
        self._pass_on(owner)

    def _pass_on(self, owner: Owner) -> None:
        if isinstance(owner, Run):
            owner.admitted = True
            waiting, owner.waiting_for_admission = owner.waiting_for_admission, []
            for task in waiting:
                self._advance(task)
        elif owner.step.batch is not None:
            self._engine.batches.add(owner)
        elif self._engine.rate_limits.prepare(owner):
            self._engine.scheduler.add(owner)

    def _cancel(self, owner: Owner) -> None:
        message = "cancelled by the concurrency strategy"
        if isinstance(owner, Task):
            self._engine.lifecycle.finish(owner, TaskStatus.CANCELLED, message=message)
            return
        self._engine.runs.cancel(owner.id)
        # The run's end may be settled only after the current step; its place is free at once.
        self.release_run(owner)

    def _fail(self, owner: Owner, error: str) -> None:
        tasks = list(owner.tasks.values()) if isinstance(owner, Run) else [owner]
        for task in tasks:
            self._engine.lifecycle.finish(task, TaskStatus.FAILED, error=error)


def _scope(owner: Owner, number: int) -> tuple[str, ...]:
    if isinstance(owner, Run):
        return ("workflow", owner.workflow.id, str(number))
    return ("task", owner.run.workflow.id, owner.step.readable_id, str(number))


def _has_ended(owner: Owner) -> bool:
    tasks = owner.tasks.values() if isinstance(owner, Run) else (owner,)
    return all(task.status.is_terminal for task in tasks)
