"""Paused workflows: their tasks wait, and are cancelled when the pause outlasts its time to live."""

from __future__ import annotations

from mageflow.engine.admission import Admission
from mageflow.engine.clock import Clock
from mageflow.engine.definitions import Pause, Workflow
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.model import Task, TaskStatus


class Pauses:
    """The first thing a queued task meets: it waits here while its workflow is paused, else it goes to admission.

    Args:
        clock: for the time to live.
        lifecycle: ends the tasks that waited too long.
        admission: where tasks go next.
    """

    def __init__(self, clock: Clock, lifecycle: Lifecycle, admission: Admission) -> None:
        self._clock = clock
        self._lifecycle = lifecycle
        self._admission = admission
        self._waiting: dict[str, dict[str, Task]] = {}

    def pause(self, workflow: Workflow, pause: Pause) -> None:
        """Stop the workflow's tasks that are not queued yet. What is queued or running goes on."""
        workflow.pause = pause

    def unpause(self, workflow: Workflow) -> None:
        """Let the workflow's tasks go on, in the order in which they came."""
        workflow.pause = None
        for task in self._waiting.pop(workflow.id, {}).values():
            self._lifecycle.resume(task)

    def task_queued(self, task: Task) -> None:
        """Keep the task while its workflow is paused, or ask for its admission."""
        pause = task.run.workflow.pause
        if pause is None:
            self._admission.request(task)
            return
        task.cancel_timer("schedule")
        self._waiting.setdefault(task.run.workflow.id, {})[task.id] = task
        task.timers["pause"] = self._clock.later(pause.ttl, self._expired, task)

    def release(self, task: Task) -> None:
        """Forget a task that ended."""
        waiting = self._waiting.get(task.run.workflow.id)
        if waiting is not None:
            waiting.pop(task.id, None)

    def _expired(self, task: Task) -> None:
        self._lifecycle.finish(
            task, TaskStatus.CANCELLED, message="the workflow stayed paused longer than its queue time to live"
        )
