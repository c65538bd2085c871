"""What a queued task must be granted before it may wait for a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mageflow.engine.model import Run, Task

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


class Admission:
    """The gate between QUEUED and the scheduler's lanes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def request(self, task: Task) -> None:
        """Ask for everything the task needs; it reaches its lane at once or later."""
        self._engine.scheduler.add(task)

    def release(self, task: Task) -> None:
        """Give back what the task was granted, or take it out of the wait lists."""

    def release_run(self, run: Run) -> None:
        """Give back what the run was granted."""
