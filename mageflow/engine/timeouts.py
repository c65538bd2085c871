"""The two timeouts of a task: how long it may wait for a worker, and how long one attempt may run.

The engine's speed factor does not shorten them.
"""

from __future__ import annotations

from mageflow.engine.batches import Batches
from mageflow.engine.clock import Clock
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.model import Task, TaskStatus


class Timeouts:
    """Timers of queued and of running tasks. ``Task.cancel_timers`` stops them.

    Args:
        clock: the timers.
        lifecycle: ends the attempts.
        batches: whose items share one attempt.
    """

    def __init__(self, clock: Clock, lifecycle: Lifecycle, batches: Batches) -> None:
        self._clock = clock
        self._lifecycle = lifecycle
        self._batches = batches

    def task_queued(self, task: Task) -> None:
        """Start the schedule timeout."""
        task.timers["schedule"] = self._clock.later(task.definition.schedule_timeout, self._not_scheduled, task)

    def task_assigned(self, task: Task) -> None:
        """Start the execution timeout."""
        self._start(task, task.definition.timeout)

    def extend(self, task: Task, seconds: float) -> float:
        """Move the deadline of a running task, counted from the current deadline; return the seconds that remain."""
        now = self._clock.monotonic()
        remaining = (task.deadline or now) - now + seconds
        self._start(task, remaining)
        return remaining

    def _start(self, task: Task, seconds: float) -> None:
        task.cancel_timer("deadline")
        task.deadline = self._clock.monotonic() + seconds
        task.timers["deadline"] = self._clock.later(seconds, self._exceeded, task)

    def _exceeded(self, task: Task) -> None:
        self._lifecycle.send_cancel(task)
        error = f"Task exceeded timeout of {task.definition.timeout_text}"
        for each in self._batches.sharing_attempt(task):
            self._lifecycle.attempt_failed(each, error, event="TIMED_OUT")

    def _not_scheduled(self, task: Task) -> None:
        task.expired = True
        self._lifecycle.finish(
            task,
            TaskStatus.CANCELLED,
            event="SCHEDULING_TIMED_OUT",
            message="no worker took the task within its schedule timeout",
        )
