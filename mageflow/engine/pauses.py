"""Paused workflows: their runs wait, up to a time to live, and then are cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mageflow.engine.model import Pause, Task, TaskStatus, Workflow

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


class Pauses:
    """The tasks that wait for their workflow to be unpaused."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parked: dict[str, dict[str, Task]] = {}

    def pause(self, workflow: Workflow, pause: Pause) -> None:
        """Hold back the workflow's tasks that are not queued yet; what runs or is queued goes on."""
        workflow.pause = pause

    def unpause(self, workflow: Workflow) -> None:
        """Let the workflow's tasks go on, in the order they came."""
        workflow.pause = None
        for task in self._parked.pop(workflow.id, {}).values():
            self._engine.lifecycle.offer(task)

    def park(self, task: Task) -> bool:
        """Keep the task when its workflow is paused; return whether it was kept."""
        workflow = task.run.workflow
        if workflow.pause is None:
            return False
        task.cancel_timer("schedule")
        self._parked.setdefault(workflow.id, {})[task.id] = task
        task.timers["pause"] = self._engine.clock.later(workflow.pause.ttl, self._expired, task)
        return True

    def release(self, task: Task) -> None:
        """Forget a task that ended."""
        parked = self._parked.get(task.run.workflow.id)
        if parked is not None:
            parked.pop(task.id, None)

    def _expired(self, task: Task) -> None:
        self._engine.lifecycle.finish(
            task, TaskStatus.CANCELLED, message="the workflow stayed paused longer than its queue time to live"
        )
