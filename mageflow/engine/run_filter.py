"""Which runs a list, a cancel or a replay is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mageflow.engine.model import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs a list, a cancel or a replay is about; empty fields do not filter."""

    since: datetime | None = None
    until: datetime | None = None
    statuses: frozenset[str] = frozenset()
    workflow_ids: frozenset[str] = frozenset()
    metadata: tuple[tuple[str, str], ...] = ()
    worker_id: str | None = None
    parent_task_id: str | None = None
    event_id: str | None = None

    def matches(self, run: Run) -> bool:
        """Whether a run passes all fields."""
        return (
            (self.since is None or run.created_at >= self.since)
            and (self.until is None or run.created_at <= self.until)
            and (not self.statuses or run.listed_status.public in self.statuses)
            and (not self.workflow_ids or run.workflow.id in self.workflow_ids)
            and all(key in run.metadata and _text(run.metadata[key]) == value for key, value in self.metadata)
            and (self.worker_id is None or self._ran_on(run, self.worker_id))
            and (self.parent_task_id is None or (run.parent is not None and run.parent.task_id == self.parent_task_id))
            and (self.event_id is None or run.trigger.event_id == self.event_id)
        )

    @staticmethod
    def _ran_on(run: Run, worker_id: str) -> bool:
        return any(event.worker_id == worker_id for task in run.tasks.values() for event in task.events)


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)
