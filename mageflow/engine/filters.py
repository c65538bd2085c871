"""Event filters: CEL expressions that decide whether an event of a scope starts a run of a workflow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mageflow.engine.clock import Clock
from mageflow.engine.contracts import v1_workflows_pb2
from mageflow.engine.definitions import Workflow
from mageflow.engine.errors import NotFoundError
from mageflow.engine.expressions import holds
from mageflow.engine.model import UserEvent
from mageflow.engine.values import JsonObject, new_id


@dataclass(slots=True, kw_only=True, eq=False)
class Filter:
    """One filter.

    Attributes:
        expression: CEL; an empty one lets every event of the scope through.
        payload: available to the expression and to the run.
        is_declared: whether it came with the workflow's registration, not over the API.
    """

    id: str
    workflow_id: str
    scope: str
    expression: str
    payload: JsonObject
    is_declared: bool
    created_at: datetime

    def accepts(self, event: UserEvent) -> bool:
        """Whether the event has the filter's scope and the expression is true."""
        variables = {
            "input": event.payload,
            "additional_metadata": event.metadata,
            "payload": self.payload,
            "event_id": event.id,
            "event_key": event.key,
        }
        return self.scope == event.scope and holds(self.expression, variables)


class Filters:
    """All filters.

    Args:
        clock: times.
    """

    def __init__(self, clock: Clock) -> None:
        self.entries: dict[str, Filter] = {}
        self._clock = clock

    def get(self, filter_id: str) -> Filter:
        """Return a filter.

        Raises:
            NotFoundError: the id is unknown.
        """
        found = self.entries.get(filter_id)
        if found is None:
            raise NotFoundError(f"no filter {filter_id}")
        return found

    def of(self, workflow: Workflow) -> list[Filter]:
        """Return the filters of a workflow."""
        return [each for each in self.entries.values() if each.workflow_id == workflow.id]

    def add(
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
            created_at=self._clock.now(),
        )
        self.entries[added.id] = added
        return added

    def remove(self, removed: Filter) -> None:
        """Delete a filter."""
        self.entries.pop(removed.id, None)

    def remove_of(self, workflow: Workflow) -> None:
        """Delete all filters of a workflow."""
        for each in self.of(workflow):
            self.remove(each)

    def replace_declared(
        self, workflow: Workflow, declared: list[tuple[v1_workflows_pb2.DefaultFilter, JsonObject]]
    ) -> None:
        """Make these the declared filters of a workflow. Filters that were made over the API stay."""
        for each in self.of(workflow):
            if each.is_declared:
                self.remove(each)
        for each, payload in declared:
            self.add(workflow, scope=each.scope, expression=each.expression, payload=payload, is_declared=True)
