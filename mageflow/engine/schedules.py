"""Scheduled runs: one run at one time."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from mageflow.engine.clock import Clock
from mageflow.engine.definitions import Workflow
from mageflow.engine.errors import NotFoundError, RequestError
from mageflow.engine.model import Run
from mageflow.engine.runs import Runs
from mageflow.engine.trigger import Trigger
from mageflow.engine.values import JsonObject, new_id

_log = logging.getLogger("mageflow.engine.schedules")
_DONE_KEPT = 1000


@dataclass(slots=True, kw_only=True, eq=False)
class Schedule:
    """A run that is to be started.

    Attributes:
        trigger_at: when.
        run: the run, once it was started.
    """

    id: str
    workflow: Workflow
    trigger: Trigger
    trigger_at: datetime
    created_at: datetime
    run: Run | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def metadata(self) -> JsonObject:
        """The additional metadata of the run."""
        return self.trigger.metadata


class Schedules:
    """All scheduled runs. Of those that were started, the newest 1,000 stay until they are deleted.

    Args:
        clock: the timers; the engine's speed shortens them.
        runs: starts the runs.
    """

    def __init__(self, clock: Clock, runs: Runs) -> None:
        self.entries: dict[str, Schedule] = {}
        self._clock = clock
        self._runs = runs
        self._done: deque[Schedule] = deque()

    def get(self, schedule_id: str) -> Schedule:
        """Return a scheduled run.

        Raises:
            NotFoundError: the id is unknown.
        """
        schedule = self.entries.get(schedule_id)
        if schedule is None:
            raise NotFoundError(f"no scheduled run {schedule_id}")
        return schedule

    def add(self, trigger: Trigger, trigger_at: datetime) -> Schedule:
        """Start a run at a time, or at once when the time has passed.

        Raises:
            UnknownWorkflowError: no worker has registered the workflow.
            InvalidRequestError: the priority is not 1, 2 or 3.
        """
        schedule = Schedule(
            id=new_id(),
            workflow=self._runs.workflow_of(trigger),
            trigger=trigger,
            trigger_at=trigger_at,
            created_at=self._clock.now(),
        )
        self.entries[schedule.id] = schedule
        self._plan(schedule)
        return schedule

    def move(self, schedule: Schedule, trigger_at: datetime) -> None:
        """Change the time of a run. It has no effect on a run that was started."""
        schedule.trigger_at = trigger_at
        _cancel_timer(schedule)
        if schedule.run is None:
            self._plan(schedule)

    def remove(self, schedule: Schedule) -> None:
        """Delete a scheduled run. A run that was started goes on."""
        self.entries.pop(schedule.id, None)
        _cancel_timer(schedule)

    def remove_of(self, workflow: Workflow) -> None:
        """Delete all scheduled runs of a workflow."""
        for schedule in [each for each in self.entries.values() if each.workflow is workflow]:
            self.remove(schedule)

    def _plan(self, schedule: Schedule) -> None:
        seconds = (schedule.trigger_at - self._clock.now()).total_seconds()
        schedule.timer = self._clock.later_accelerated(seconds, self._run_due, schedule)

    def _run_due(self, schedule: Schedule) -> None:
        pause = schedule.workflow.pause
        if pause is None or pause.queue_schedules:
            try:
                schedule.run = self._runs.start(schedule.trigger)
            except RequestError as error:
                # There is no caller to answer.
                _log.info("scheduled run %s of %s is not started: %s", schedule.id, schedule.workflow.name, error)
        self._done.append(schedule)
        while len(self._done) > _DONE_KEPT:
            self.entries.pop(self._done.popleft().id, None)


def _cancel_timer(schedule: Schedule) -> None:
    if schedule.timer is not None:
        schedule.timer.cancel()
        schedule.timer = None
