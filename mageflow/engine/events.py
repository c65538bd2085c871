"""User events: each is stored, starts runs of the workflows that listen to its key, and feeds what waits for it."""

from __future__ import annotations

import fnmatch
import logging
from datetime import datetime

from mageflow.engine.clock import Clock
from mageflow.engine.definitions import Workflow
from mageflow.engine.errors import RequestError
from mageflow.engine.filters import Filter, Filters
from mageflow.engine.model import TriggeredRun, UserEvent
from mageflow.engine.parsing import check_priority
from mageflow.engine.repository import Repository
from mageflow.engine.runs import RESERVED_PREFIX, Runs
from mageflow.engine.signals import Signal
from mageflow.engine.trigger import Trigger
from mageflow.engine.values import JsonObject, new_id

_log = logging.getLogger("mageflow.engine.events")
_SOURCE_PREFIX = "hatchet__source_"


class Events:
    """Takes events.

    Args:
        clock: times.
        repository: the workflows, and the events that were pushed.
        filters: which events start which workflows.
        runs: starts the runs.

    Attributes:
        pushed: an event is stored and has started its runs.
    """

    def __init__(self, clock: Clock, repository: Repository, filters: Filters, runs: Runs) -> None:
        self.pushed = Signal[[UserEvent]]()
        self._clock = clock
        self._repository = repository
        self._filters = filters
        self._runs = runs

    def push(
        self,
        key: str,
        payload: JsonObject,
        *,
        metadata: JsonObject | None = None,
        scope: str | None = None,
        priority: int | None = None,
        occurred_at: datetime | None = None,
        webhook_name: str | None = None,
    ) -> UserEvent:
        """Store an event and start everything that it triggers.

        The sender of an event gets no error for a run that cannot be started (its idempotency key is held, or the key
        expression fails). Such a run is left out and logged.

        Args:
            key: what workflows and waits listen to.
            payload: input of the runs.
            metadata: goes on to the runs, except the engine's own keys.
            scope: decides which filters look at the event.
            priority: of the runs, 1 to 3; None leaves it to the workflow.
            occurred_at: by default now.
            webhook_name: the webhook that received it.

        Raises:
            InvalidRequestError: the priority is not 1, 2 or 3.
        """
        check_priority(priority)
        event = UserEvent(
            id=new_id(),
            key=key,
            payload=payload,
            metadata=metadata or {},
            scope=scope,
            occurred_at=occurred_at or self._clock.now(),
            webhook_name=webhook_name,
        )
        self._repository.add_event(event)
        for workflow in list(self._repository.workflows.values()):
            if workflow.versions and any(_key_matches(pattern, key) for pattern in workflow.event_triggers):
                self._trigger(workflow, event, priority)
        self.pushed.send(event)
        return event

    def _trigger(self, workflow: Workflow, event: UserEvent, priority: int | None) -> None:
        filters = self._filters.of(workflow)
        if not filters:
            self._start(workflow, event, priority, None)
        for each in filters:
            if each.accepts(event):
                self._start(workflow, event, priority, each)

    def _start(self, workflow: Workflow, event: UserEvent, priority: int | None, passed: Filter | None) -> None:
        metadata: JsonObject = {
            key: value
            for key, value in event.metadata.items()
            if not key.startswith(RESERVED_PREFIX) or key.startswith(_SOURCE_PREFIX)
        }
        metadata["hatchet__event_id"] = event.id
        metadata["hatchet__event_key"] = event.key
        trigger = Trigger(
            workflow_name=workflow.name,
            input=event.payload,
            metadata=metadata,
            priority=priority,
            event_id=event.id,
            event_key=event.key,
            filter_payload=None if passed is None else passed.payload,
        )
        try:
            run = self._runs.start(trigger)
        except RequestError as error:
            _log.info("event %s starts no run of %s: %s", event.key, workflow.name, error)
            return
        event.triggered.append(TriggeredRun(run=run, filter_id=None if passed is None else passed.id))


def _key_matches(pattern: str, key: str) -> bool:
    if "*" not in pattern:
        return pattern == key
    # Only "*" is special in Hatchet; fnmatch also knows "?" and "[".
    return fnmatch.fnmatchcase(key, pattern.replace("[", "[[]").replace("?", "[?]"))
