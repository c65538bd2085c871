"""Scheduled runs: one run at one moment."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from mageflow.engine.errors import NotFoundError, RequestError
from mageflow.engine.model import JsonObject, Run, Workflow, new_id
from mageflow.engine.trigger import Trigger

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_log = logging.getLogger("mageflow.engine.schedules")
_DONE_KEPT = 1000


@dataclass(slots=True, kw_only=True, eq=False)
class Schedule:
    """A run to be started."""

    id: str
    workflow: Workflow
    trigger: Trigger
    at: datetime
    created_at: datetime
    run: Run | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def metadata(self) -> JsonObject:
        """Additional metadata of the run to come."""
        return self.trigger.metadata


class Schedules:
    """All scheduled runs; of the done ones the newest, until deleted."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.entries: dict[str, Schedule] = {}
        self._done: deque[Schedule] = deque()

    def get(self, schedule_id: str) -> Schedule:
        """Return a scheduled run.

        Raises:
            NotFoundError: unknown id.
        """
        schedule = self.entries.get(schedule_id)
        if schedule is None:
            raise NotFoundError(f"no scheduled run {schedule_id}")
        return schedule

    def add(self, trigger: Trigger, at: datetime) -> Schedule:
        """Start a run at a moment; a moment in the past is now.

        Raises:
            InvalidRequestError: unknown workflow or bad priority.
        """
        workflow = self._engine.runs.validate(trigger)
        schedule = Schedule(id=new_id(), workflow=workflow, trigger=trigger, at=at, created_at=self._engine.clock.now())
        self.entries[schedule.id] = schedule
        self._arm(schedule)
        return schedule

    def move(self, schedule: Schedule, at: datetime) -> None:
        """Change the moment of a run that was not started yet."""
        schedule.at = at
        _disarm(schedule)
        if schedule.run is None:
            self._arm(schedule)

    def remove(self, schedule: Schedule) -> None:
        """Delete a scheduled run; a run it started goes on."""
        self.entries.pop(schedule.id, None)
        _disarm(schedule)

    def remove_of(self, workflow: Workflow) -> None:
        """Delete all scheduled runs of a workflow."""
        for schedule in [each for each in self.entries.values() if each.workflow is workflow]:
            self.remove(schedule)

    def _arm(self, schedule: Schedule) -> None:
        wait = (schedule.at - self._engine.clock.now()).total_seconds()
        schedule.timer = self._engine.clock.later_accelerated(wait, self._fire, schedule)

    def _fire(self, schedule: Schedule) -> None:
        pause = schedule.workflow.pause
        if pause is None or pause.queue_schedules:
            try:
                schedule.run = self._engine.runs.start(schedule.trigger)
            except RequestError as error:
                # Nobody waits for the answer.
                _log.info("scheduled run %s of %s is not started: %s", schedule.id, schedule.workflow.name, error)
        self._done.append(schedule)
        while len(self._done) > _DONE_KEPT:
            self.entries.pop(self._done.popleft().id, None)


def _disarm(schedule: Schedule) -> None:
    if schedule.timer is not None:
        schedule.timer.cancel()
        schedule.timer = None
