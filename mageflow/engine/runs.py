"""Starting runs and ending them: triggers, child runs, metadata, cancel, replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import JsonObject, Run, Step, Task, TaskStatus, Workflow, new_id

if TYPE_CHECKING:
    from mageflow.engine.contracts import trigger_pb2
    from mageflow.engine.core import Engine
    from mageflow.engine.run_filter import RunFilter

_PRIORITIES = (1, 2, 3)
RESERVED_PREFIX = "hatchet__"


@dataclass(slots=True, kw_only=True)
class Trigger:
    """A request to start a run of a workflow.

    ``parent_task_id`` with ``child_key`` or ``child_index`` names a child: the same child of the same parent is
    started once, whatever the attempt.
    """

    name: str
    input: JsonObject = field(default_factory=dict[str, Any])
    metadata: JsonObject = field(default_factory=dict[str, Any])
    priority: int | None = None
    trigger: str = "manual"
    parent_task_id: str | None = None
    child_index: int | None = None
    child_key: str | None = None
    event_id: str | None = None
    event_key: str | None = None
    filter_payload: JsonObject | None = None
    desired_worker_id: str | None = None
    desired_labels: Mapping[str, trigger_pb2.DesiredWorkerLabels] = field(
        default_factory=dict[str, "trigger_pb2.DesiredWorkerLabels"]
    )


def check_priority(priority: int | None) -> None:
    """Raise InvalidRequestError when a priority is not 1, 2, 3 or left to the workflow."""
    if priority is not None and priority not in _PRIORITIES:
        raise InvalidRequestError(f"priority must be 1, 2 or 3, not {priority}")


class Runs:
    """All runs of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def validate(self, trigger: Trigger) -> Workflow:
        """Return the workflow a trigger names.

        Raises:
            InvalidRequestError: unknown workflow name, or a priority outside 1 to 3.
        """
        workflow = self._engine.store.workflow_named(trigger.name)
        if workflow is None:
            raise InvalidRequestError(f"unknown workflow {trigger.name!r}: start a worker that registers it first")
        check_priority(trigger.priority)
        return workflow

    def start(self, trigger: Trigger, *, fresh: bool = False) -> Run:
        """Start a run, or return the child that this parent already has under the same key.

        Args:
            trigger: what to start.
            fresh: start a new child in any case; the durable log does its own deduplication.

        Raises:
            InvalidRequestError: see ``validate``.
            IdempotencyCollisionError: another run holds the workflow's idempotency key for this input.
        """
        workflow = self.validate(trigger)
        parent = self._engine.store.tasks.get(trigger.parent_task_id) if trigger.parent_task_id else None
        child_id = trigger.child_key or str(trigger.child_index or 0)
        if parent is not None and child_id in parent.children and not fresh:
            return parent.children[child_id]
        run = self._build(workflow, trigger, parent)
        self._engine.idempotency.claim(run)
        if parent is not None:
            parent.children[child_id] = run
        self._engine.store.add_run(run)
        self._engine.traces.run_started(run)
        self._engine.graph.start(run)
        return run

    def task_finished(self, task: Task) -> None:
        """End the run when this was its last live task."""
        run = task.run
        if run.done or not all(other.status.is_terminal for other in run.tasks.values()):
            return
        run.done = True
        run.finished_at = self._engine.clock.now()
        self._engine.admission.release_run(run)
        self._engine.idempotency.run_finished(run)
        self._engine.run_events.run_finished(run)
        self._engine.results.run_finished(run)
        self._engine.durable.run_finished(run)
        for forgotten in self._engine.store.retire(run):
            self._engine.run_events.forget(forgotten)
            self._engine.durable.forget(forgotten)
            self._engine.traces.forget(forgotten)

    def select(self, wanted: RunFilter) -> list[Run]:
        """Return matching runs, newest first; creation order is insertion order."""
        return [run for run in reversed(self._engine.store.runs.values()) if wanted.matches(run)]

    def cancel(self, run_or_task_id: str) -> list[str]:
        """Cancel a task, or every live task of a run; return the ids of tasks that were live.

        Raises:
            NotFoundError: unknown id.
        """
        tasks = [task for task in self._selected(run_or_task_id) if not task.status.is_terminal]
        # The on_failure task last: it then sees the others' ends and skips itself.
        for task in sorted(tasks, key=lambda each: each.step.is_on_failure):
            self._engine.lifecycle.finish(task, TaskStatus.CANCELLED, message="cancelled by request")
        return [task.id for task in tasks]

    def replay(self, run_or_task_id: str) -> list[str]:
        """Run finished tasks again under the same ids; return the ids of the tasks that were reset.

        A run id resets all its finished tasks; the id of one task of a DAG resets it and its descendants. Live tasks
        are left alone. The run is open again when this returns.

        Raises:
            NotFoundError: unknown id.
        """
        run = self._engine.store.run(run_or_task_id)
        if run_or_task_id == run.id:
            chosen = list(run.tasks.values())
        else:
            chosen = _with_descendants(self._engine.store.task(run_or_task_id))
        chosen = [task for task in chosen if task.status.is_terminal]
        if not chosen:
            return []
        handler = next((task for task in run.tasks.values() if task.step.is_on_failure), None)
        if handler is not None and handler not in chosen and handler.status.is_terminal:
            chosen.append(handler)
        self._reopen(run)
        for task in chosen:
            self._reset(task)
        for task in chosen:
            if not task.step.is_on_failure and task.status is TaskStatus.PENDING:
                self._engine.graph.start_task(task)
        return [task.id for task in chosen]

    def _selected(self, run_or_task_id: str) -> list[Task]:
        run = self._engine.store.runs.get(run_or_task_id)
        return list(run.tasks.values()) if run is not None else [self._engine.store.task(run_or_task_id)]

    def _reopen(self, run: Run) -> None:
        run.done = run.admitted = False
        run.finished_at = None
        self._engine.store.reopen(run)
        self._engine.run_events.run_reopened(run)

    def _reset(self, task: Task) -> None:
        task.retry_count += 1
        task.app_retries = task.lost_count = 0
        task.status = TaskStatus.PENDING
        task.output, task.output_text, task.error, task.skipped = None, "", None, False
        task.finished_at = task.started_at = None
        task.acknowledged = False
        task.match_data = {}
        task.created = not task.step.is_on_failure
        self._engine.lifecycle.record(task, "RETRIED_BY_USER")

    def _build(self, workflow: Workflow, trigger: Trigger, parent: Task | None) -> Run:
        version = workflow.current
        run = Run(
            id=new_id(),
            version=version,
            input=trigger.input,
            metadata=_metadata(trigger, parent),
            priority=trigger.priority or version.default_priority,
            created_at=self._engine.clock.now(),
            trigger=trigger.trigger,
            parent_task=parent,
            event_id=trigger.event_id,
            event_key=trigger.event_key,
            filter_payload=trigger.filter_payload,
            desired_worker_id=trigger.desired_worker_id,
            desired_labels=trigger.desired_labels,
        )
        if parent is not None:
            run.child_index, run.child_key = trigger.child_index, trigger.child_key
        for step in version.steps.values():
            run.tasks[step.readable_id] = self._new_task(run, step)
        return run

    def _new_task(self, run: Run, step: Step) -> Task:
        return Task(
            id=new_id() if run.is_dag else run.id,
            number=self._engine.store.next_number(),
            run=run,
            step=step,
            priority=run.priority,
            inserted_at=run.created_at,
        )


def _metadata(trigger: Trigger, parent: Task | None) -> JsonObject:
    if parent is None:
        return trigger.metadata
    inherited = {key: value for key, value in parent.metadata.items() if not key.startswith(RESERVED_PREFIX)}
    return {
        **inherited,
        **trigger.metadata,
        "hatchet__parent_workflow_run_id": parent.run.id,
        "hatchet__parent_step_run_id": parent.id,
    }


def _with_descendants(task: Task) -> list[Task]:
    found = {task.step.readable_id}
    # Steps are declared in any order, so repeat until nothing is added.
    while True:
        more = {
            name
            for name, other in task.run.tasks.items()
            if name not in found and found.intersection(other.step.parents)
        }
        if not more:
            return [other for name, other in task.run.tasks.items() if name in found]
        found |= more
