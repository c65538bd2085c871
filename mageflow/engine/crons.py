"""Cron triggers: declared with a workflow, or made over the API.

Five fields, or six with seconds first, in UTC or in the time zone of a prefix such as ``CRON_TZ=Europe/Berlin``.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from mageflow.engine.clock import Clock
from mageflow.engine.definitions import Workflow
from mageflow.engine.errors import InvalidRequestError, NotFoundError, RequestError
from mageflow.engine.formats import iso
from mageflow.engine.model import Run
from mageflow.engine.parsing import check_priority
from mageflow.engine.runs import Runs
from mageflow.engine.trigger import Trigger
from mageflow.engine.values import JsonObject, new_id

_log = logging.getLogger("mageflow.engine.crons")


@dataclass(slots=True, kw_only=True, eq=False)
class Cron:
    """One cron trigger.

    Attributes:
        is_declared: whether it came with the workflow's registration, not over the API.
        timer: set while the next run is planned.
    """

    id: str
    workflow: Workflow
    expression: str
    name: str
    input: JsonObject
    metadata: JsonObject
    priority: int | None
    is_declared: bool
    created_at: datetime
    enabled: bool = True
    timer: asyncio.TimerHandle | None = None


class Crons:
    """All cron triggers.

    Args:
        clock: the timers; the engine's speed shortens them.
        runs: starts the runs.
    """

    def __init__(self, clock: Clock, runs: Runs) -> None:
        self.entries: dict[str, Cron] = {}
        self._clock = clock
        self._runs = runs

    def get(self, cron_id: str) -> Cron:
        """Return a cron.

        Raises:
            NotFoundError: the id is unknown.
        """
        cron = self.entries.get(cron_id)
        if cron is None:
            raise NotFoundError(f"no cron {cron_id}")
        return cron

    def add(
        self,
        workflow: Workflow,
        expression: str,
        *,
        name: str = "",
        input: JsonObject | None = None,
        metadata: JsonObject | None = None,
        priority: int | None = None,
        is_declared: bool = False,
    ) -> Cron:
        """Add a cron and plan its first run.

        Raises:
            InvalidRequestError: the text is not a cron expression, the priority is not 1, 2 or 3, or the workflow has a
                cron of this name and expression.
        """
        check_expression(expression)
        check_priority(priority)
        if any((each.name, each.expression) == (name, expression) for each in self.of(workflow) if name):
            raise InvalidRequestError("cron trigger with that name-expression pair already exists")
        cron = Cron(
            id=new_id(),
            workflow=workflow,
            expression=expression,
            name=name,
            input=input or {},
            metadata=metadata or {},
            priority=priority,
            is_declared=is_declared,
            created_at=self._clock.now(),
        )
        self.entries[cron.id] = cron
        self._plan(cron)
        return cron

    def remove(self, cron: Cron) -> None:
        """Delete a cron."""
        self.entries.pop(cron.id, None)
        _cancel_timer(cron)

    def remove_of(self, workflow: Workflow) -> None:
        """Delete all crons of a workflow."""
        for cron in self.of(workflow):
            self.remove(cron)

    def set_enabled(self, cron: Cron, *, enabled: bool) -> None:
        """Stop a cron, or start it again."""
        cron.enabled = enabled
        _cancel_timer(cron)
        if enabled:
            self._plan(cron)

    def replace_declared(self, workflow: Workflow, expressions: list[str], cron_input: JsonObject) -> None:
        """Make these the declared crons of a workflow.

        An unchanged cron keeps its id, and crons that were made over the API stay.
        """
        missing = set(expressions)
        for cron in self.of(workflow):
            if not cron.is_declared:
                continue
            if cron.expression in missing and cron.input == cron_input:
                missing.discard(cron.expression)
            else:
                self.remove(cron)
        for expression in expressions:
            if expression in missing:
                self.add(workflow, expression, input=cron_input, is_declared=True)

    def of(self, workflow: Workflow) -> list[Cron]:
        """Return the crons of a workflow."""
        return [cron for cron in self.entries.values() if cron.workflow is workflow]

    def run_now(self, cron: Cron, *, scheduled_at: datetime | None = None) -> Run:
        """Start a run of the cron's workflow at once.

        Raises:
            RequestError: the run cannot be started, as in ``Runs.start``.
        """
        metadata: JsonObject = {**cron.metadata, "hatchet__cron_expression": cron.expression}
        if cron.name:
            metadata["hatchet__cron_name"] = cron.name
        if scheduled_at is not None:
            metadata["hatchet__cron_scheduled_at"] = iso(scheduled_at.astimezone(UTC))
        return self._runs.start(
            Trigger(workflow_name=cron.workflow.name, input=cron.input, metadata=metadata, priority=cron.priority)
        )

    def _plan(self, cron: Cron) -> None:
        now = self._clock.accelerated_now()
        due = next(_times(cron.expression, now), None)
        if due is not None:
            cron.timer = self._clock.later_accelerated((due - now).total_seconds(), self._run_due, cron, due)

    def _run_due(self, cron: Cron, due: datetime) -> None:
        pause = cron.workflow.pause
        if pause is None or pause.queue_crons:
            try:
                self.run_now(cron, scheduled_at=due)
            except RequestError as error:
                # There is no caller to answer, and the cron must go on.
                _log.info("cron %s starts no run of %s: %s", cron.expression, cron.workflow.name, error)
        if cron.enabled and cron.id in self.entries:
            self._plan(cron)


def check_expression(expression: str) -> None:
    """Raise InvalidRequestError when the text is not a cron expression."""
    try:
        _times(expression, datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    except (CronSimError, ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidRequestError(f"invalid cron expression {expression!r}: {error}") from error


def _times(expression: str, after: datetime) -> CronSim:
    prefix, _, fields = expression.partition(" ")
    name, given, zone = prefix.partition("=")
    if not given or name not in {"TZ", "CRON_TZ"}:
        return CronSim(expression, after)
    return CronSim(fields, after.astimezone(ZoneInfo(zone)))


def _cancel_timer(cron: Cron) -> None:
    if cron.timer is not None:
        cron.timer.cancel()
        cron.timer = None
