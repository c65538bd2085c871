"""Cron triggers: declared with a workflow or made over the API.

Five fields, or six with seconds first, in UTC, or in the zone of a prefix such as ``CRON_TZ=Europe/Berlin``.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from mageflow.engine.documents import iso
from mageflow.engine.errors import InvalidRequestError, NotFoundError, RequestError
from mageflow.engine.model import JsonObject, Run, Workflow, new_id
from mageflow.engine.trigger import Trigger

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_log = logging.getLogger("mageflow.engine.crons")


@dataclass(slots=True, kw_only=True, eq=False)
class Cron:
    """One cron trigger."""

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
    """All cron triggers and their timers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.entries: dict[str, Cron] = {}

    def get(self, cron_id: str) -> Cron:
        """Return a cron.

        Raises:
            NotFoundError: unknown id.
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
        input: JsonObject | None = None,  # noqa: A002 - Hatchet's word
        metadata: JsonObject | None = None,
        priority: int | None = None,
        is_declared: bool = False,
    ) -> Cron:
        """Add a cron and start its timer.

        Raises:
            InvalidRequestError: not a cron expression.
        """
        check_expression(expression)
        cron = Cron(
            id=new_id(),
            workflow=workflow,
            expression=expression,
            name=name,
            input=input or {},
            metadata=metadata or {},
            priority=priority,
            is_declared=is_declared,
            created_at=self._engine.clock.now(),
        )
        self.entries[cron.id] = cron
        self._arm(cron)
        return cron

    def remove(self, cron: Cron) -> None:
        """Delete a cron."""
        self.entries.pop(cron.id, None)
        _disarm(cron)

    def set_enabled(self, cron: Cron, *, enabled: bool) -> None:
        """Stop or restart a cron."""
        cron.enabled = enabled
        _disarm(cron)
        if enabled:
            self._arm(cron)

    def replace_declared(self, workflow: Workflow, expressions: list[str], cron_input: JsonObject) -> None:
        """Make the declared crons of a workflow exactly these; an unchanged one keeps its id, API-made ones stay."""
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
        """Start the cron's workflow at once."""
        metadata: JsonObject = {**cron.metadata, "hatchet__cron_expression": cron.expression}
        if cron.name:
            metadata["hatchet__cron_name"] = cron.name
        if scheduled_at is not None:
            metadata["hatchet__cron_scheduled_at"] = iso(scheduled_at.astimezone(UTC))
        return self._engine.runs.start(
            Trigger(name=cron.workflow.name, input=cron.input, metadata=metadata, priority=cron.priority)
        )

    def _arm(self, cron: Cron) -> None:
        now = self._engine.clock.accelerated_now()
        due = next(_moments(cron.expression, now), None)
        if due is not None:
            cron.timer = self._engine.clock.later_accelerated((due - now).total_seconds(), self._fire, cron, due)

    def _fire(self, cron: Cron, due: datetime) -> None:
        pause = cron.workflow.pause
        if pause is None or pause.queue_crons:
            try:
                self.run_now(cron, scheduled_at=due)
            except RequestError as error:
                # Nobody waits for the answer, and the cron must go on.
                _log.info("cron %s starts no run of %s: %s", cron.expression, cron.workflow.name, error)
        if cron.enabled and cron.id in self.entries:
            self._arm(cron)


def check_expression(expression: str) -> None:
    """Raise InvalidRequestError when the text is not a cron expression."""
    try:
        _moments(expression, datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    except (CronSimError, ZoneInfoNotFoundError, ValueError) as error:
        raise InvalidRequestError(f"invalid cron expression {expression!r}: {error}") from error


def _moments(expression: str, after: datetime) -> CronSim:
    prefix, _, fields = expression.partition(" ")
    name, given, zone = prefix.partition("=")
    if not given or name not in {"TZ", "CRON_TZ"}:
        return CronSim(expression, after)
    return CronSim(fields, after.astimezone(ZoneInfo(zone)))


def _disarm(cron: Cron) -> None:
    if cron.timer is not None:
        cron.timer.cancel()
        cron.timer = None
