"""User events: stored, matched against workflow triggers and filters, fed to everything that waits."""

from __future__ import annotations

import fnmatch
import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mageflow.engine.contracts import v1_workflows_pb2
from mageflow.engine.errors import NotFoundError, RequestError
from mageflow.engine.expressions import holds
from mageflow.engine.model import JsonObject, Run, Workflow, new_id
from mageflow.engine.runs import RESERVED_PREFIX, check_priority
from mageflow.engine.trigger import Trigger

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_log = logging.getLogger("mageflow.engine.events")
_EVENTS_KEPT = 20_000
_SOURCE_PREFIX = "hatchet__source_"


@dataclass(slots=True, kw_only=True, eq=False)
class TriggeredRun:
    """A run an event started, and the filter that let it through."""

    run: Run
    filter_id: str | None


@dataclass(slots=True, kw_only=True, eq=False)
class EventRecord:
    """One pushed event."""

    id: str
    key: str
    payload: JsonObject
    metadata: JsonObject
    scope: str | None
    at: datetime
    triggered: list[TriggeredRun] = field(default_factory=list["TriggeredRun"])


@dataclass(slots=True, kw_only=True, eq=False)
class Filter:
    """A CEL gate between an event scope and a workflow; declared ones come with the workflow's registration."""

    id: str
    workflow_id: str
    scope: str
    expression: str
    payload: JsonObject
    is_declared: bool
    created_at: datetime


class Events:
    """All events and filters."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.records: dict[str, EventRecord] = {}
        self.filters: dict[str, Filter] = {}

    def push(
        self,
        key: str,
        payload: JsonObject,
        *,
        metadata: JsonObject | None = None,
        scope: str | None = None,
        priority: int | None = None,
        at: datetime | None = None,
    ) -> EventRecord:
        """Store an event and start everything it triggers before returning.

        A run that cannot be started (an idempotency key that is held, or whose expression fails) is left out: an
        event has no caller who could be told, so it is logged.

        Raises:
            InvalidRequestError: a priority other than 1 to 3.
        """
        check_priority(priority)
        event = EventRecord(
            id=new_id(),
            key=key,
            payload=payload,
            metadata=metadata or {},
            scope=scope,
            at=at or self._engine.clock.now(),
        )
        self.records[event.id] = event
        if len(self.records) > _EVENTS_KEPT:
            del self.records[next(iter(self.records))]
        for workflow in list(self._engine.store.workflows.values()):
            if workflow.versions and any(_key_matches(pattern, key) for pattern in workflow.event_triggers):
                self._trigger(workflow, event, priority)
        self._engine.graph.event_happened(event)
        self._engine.durable.event_happened(event)
        return event

    def forget(self, run: Run) -> None:
        """Drop a run the store forgets from the event that started it."""
        record = self.records.get(run.trigger.event_id) if run.trigger.event_id else None
        if record is not None:
            record.triggered = [each for each in record.triggered if each.run is not run]

    def event(self, event_id: str) -> EventRecord:
        """Return a stored event.

        Raises:
            NotFoundError: unknown id.
        """
        event = self.records.get(event_id)
        if event is None:
            raise NotFoundError(f"no event {event_id}")
        return event

    def filters_of(self, workflow: Workflow) -> list[Filter]:
        """Return the filters that guard a workflow."""
        return [each for each in self.filters.values() if each.workflow_id == workflow.id]

    def add_filter(
        self, workflow: Workflow, *, scope: str, expression: str, payload: JsonObject, is_declared: bool = False
    ) -> Filter:
        """Add a filter."""
        added = Filter(
            id=new_id(),
            workflow_id=workflow.id,
            scope=scope,
            expression=expression,
            payload=payload,
            is_declared=is_declared,
            created_at=self._engine.clock.now(),
        )
        self.filters[added.id] = added
        return added

    def replace_declared_filters(
        self, workflow: Workflow, declared: list[tuple[v1_workflows_pb2.DefaultFilter, JsonObject]]
    ) -> None:
        """Make the declared filters of a workflow exactly these; filters made over the API stay."""
        for each in self.filters_of(workflow):
            if each.is_declared:
                del self.filters[each.id]
        for each, payload in declared:
            self.add_filter(
                workflow,
                scope=each.scope,
                expression=each.expression,
                payload=payload,
                is_declared=True,
            )

    def _trigger(self, workflow: Workflow, event: EventRecord, priority: int | None) -> None:
        filters = self.filters_of(workflow)
        if not filters:
            self._start(workflow, event, priority, None)
            return
        for each in filters:
            variables = {
                "input": event.payload,
                "additional_metadata": event.metadata,
                "payload": each.payload,
                "event_id": event.id,
                "event_key": event.key,
            }
            if each.scope == event.scope and holds(each.expression, variables):
                self._start(workflow, event, priority, each)

    def _start(self, workflow: Workflow, event: EventRecord, priority: int | None, passed: Filter | None) -> None:
        metadata: dict[str, Any] = {
            key: value
            for key, value in event.metadata.items()
            if not key.startswith(RESERVED_PREFIX) or key.startswith(_SOURCE_PREFIX)
        }
        metadata["hatchet__event_id"] = event.id
        metadata["hatchet__event_key"] = event.key
        trigger = Trigger(
            name=workflow.name,
            input=event.payload,
            metadata=metadata,
            priority=priority,
            event_id=event.id,
            event_key=event.key,
            filter_payload=None if passed is None else passed.payload,
        )
        try:
            run = self._engine.runs.start(trigger)
        except RequestError as error:
            _log.info("event %s starts no run of %s: %s", event.key, workflow.name, error)
            return
        event.triggered.append(TriggeredRun(run=run, filter_id=None if passed is None else passed.id))


def _key_matches(pattern: str, key: str) -> bool:
    if "*" not in pattern:
        return pattern == key
    # Only "*" is special in Hatchet; fnmatch also knows "?" and "[".
    return fnmatch.fnmatchcase(key, pattern.replace("[", "[[]").replace("?", "[?]"))
