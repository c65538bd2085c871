"""The end of a run, and what is forgotten after it."""

from __future__ import annotations

from mageflow.engine.clock import Clock
from mageflow.engine.model import Run, Task
from mageflow.engine.repository import Repository
from mageflow.engine.signals import Signal


class Completion:
    """Ends a run when its last task has ended.

    Args:
        clock: times.
        repository: keeps the newest finished runs.

    Attributes:
        finished: a run has ended.
        forgotten: the repository forgot a finished run; every part forgets what it keeps of it.
    """

    def __init__(self, clock: Clock, repository: Repository) -> None:
        self.finished = Signal[[Run]]()
        self.forgotten = Signal[[Run]]()
        self._clock = clock
        self._repository = repository

    def task_finished(self, task: Task) -> None:
        """End the task's run if no other task of it is live."""
        run = task.run
        if run.done or not all(other.status.is_terminal for other in run.tasks.values()):
            return
        run.done = True
        run.finished_at = self._clock.now()
        self.finished.send(run)
        for forgotten in self._repository.retire(run):
            self.forgotten.send(forgotten)
