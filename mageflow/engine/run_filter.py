"""Which runs a list, a bulk cancellation or a bulk replay selects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mageflow.engine.model import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Criteria for runs. A run must meet all of them; None and empty values accept every run."""

    since: datetime | None = None
    until: datetime | None = None
    statuses: frozenset[str] = frozenset()
    workflow_ids: frozenset[str] = frozenset()
    metadata: tuple[tuple[str, str], ...] = ()
    worker_id: str | None = None
    parent_task_id: str | None = None
    event_id: str | None = None

    def matches(self, run: Run) -> bool:
        """Whether a run meets every criterion."""
        return (
            (self.since is None or run.created_at >= self.since)
            and (self.until is None or run.created_at <= self.until)
            and (not self.statuses or run.listed_status.public in self.statuses)
            and (not self.workflow_ids or run.workflow.id in self.workflow_ids)
            and all(key in run.metadata and str(run.metadata[key]) == value for key, value in self.metadata)
            and (self.worker_id is None or _ran_on(run, self.worker_id))
            and (self.parent_task_id is None or (run.parent is not None and run.parent.task_id == self.parent_task_id))
            and (self.event_id is None or run.trigger.event_id == self.event_id)
        )


def _ran_on(run: Run, worker_id: str) -> bool:
    return any(event.worker_id == worker_id for task in run.tasks.values() for event in task.events)
