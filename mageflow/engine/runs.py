"""Starting runs and ending them: triggers, child runs, metadata, cancel, replay."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mageflow.engine.documents import check_id
from mageflow.engine.errors import InvalidRequestError, UnknownWorkflowError
from mageflow.engine.model import JsonObject, Run, Step, Task, TaskStatus, Workflow, new_id
from mageflow.engine.traces import with_traceparent
from mageflow.engine.trigger import Parent, Trigger

if TYPE_CHECKING:
    from mageflow.engine.core import Engine
    from mageflow.engine.run_filter import RunFilter

_log = logging.getLogger("mageflow.engine.runs")
_PRIORITIES = (1, 2, 3)
RESERVED_PREFIX = "hatchet__"
_NAMES_TOLD = 20


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
            UnknownWorkflowError: no worker has registered the name.
            InvalidRequestError: a priority outside 1 to 3.
        """
        check_priority(trigger.priority)
        workflow = self._engine.store.workflow_named(trigger.name)
        if workflow is None:
            raise UnknownWorkflowError(trigger.name)
        return workflow

    def check(self, trigger: Trigger) -> None:
        """Raise what `trigger` would, but for an idempotency key that is held; start nothing.

        Raises:
            InvalidRequestError: a priority outside 1 to 3.
            NotFoundError: unknown parent task.
        """
        check_priority(trigger.priority)
        self._parent(trigger)

    def trigger(self, trigger: Trigger) -> str:
        """Start a run for a client, or find the child that this parent already has under the same key.

        A workflow nobody registered is answered as Hatchet does: with the id of a run that will never be, even if a
        worker registers the workflow later. A warning names it and what is registered.

        Returns:
            The run's id.

        Raises:
            InvalidRequestError: a priority outside 1 to 3.
            NotFoundError: unknown parent task.
            IdempotencyCollisionError: another run holds the workflow's idempotency key for this input.
        """
        parent = self._parent(trigger)
        known = None if parent is None else parent.children.get(_child_id(trigger))
        if known is not None:
            return known
        try:
            return self.start(trigger).id
        except UnknownWorkflowError:
            return self.never(trigger)

    def never(self, trigger: Trigger) -> str:
        """Return an id for a run of a workflow nobody registered, and warn that it will not be."""
        run_id = new_id()
        names = sorted(self._engine.store.workflow_ids_by_name)
        more = f" and {len(names) - _NAMES_TOLD} more" if len(names) > _NAMES_TOLD else ""
        _log.warning(
            "run %s of %r will never start: no worker has registered that workflow (registered: %s%s). Hatchet takes "
            "such a run without a word; start the worker first and look at the name and the namespace",
            run_id,
            trigger.name,
            ", ".join(names[:_NAMES_TOLD]) or "none",
            more,
        )
        return run_id

    def start(self, trigger: Trigger) -> Run:
        """Start a run in any case, also of a child that its parent already has.

        Raises:
            UnknownWorkflowError, InvalidRequestError: see ``validate``.
            NotFoundError: unknown parent task.
            IdempotencyCollisionError: another run holds the workflow's idempotency key for this input.
        """
        workflow = self.validate(trigger)
        parent = self._parent(trigger)
        run = self._build(workflow, trigger, parent)
        self._engine.idempotency.claim(run)
        if parent is not None:
            parent.children[_child_id(trigger)] = run.id
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
            self._engine.events.forget(forgotten)

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

    def cancel_listed(self, ids: Iterable[str]) -> list[str]:
        """Cancel runs and tasks by id and return the ids, as Hatchet does for unknown and ended ones too.

        Raises:
            InvalidRequestError: one is no UUID; nothing is cancelled then.
        """
        listed = _checked(ids)
        for each in listed:
            if self._is_known(each):
                self.cancel(each)
        return listed

    def replay_listed(self, ids: Iterable[str]) -> list[str]:
        """Replay runs and tasks by id, unknown ones aside; return the ids of the tasks that were reset.

        Raises:
            InvalidRequestError: one is no UUID; nothing is replayed then.
        """
        return [task for each in _checked(ids) if self._is_known(each) for task in self.replay(each)]

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

    def _is_known(self, run_or_task_id: str) -> bool:
        return run_or_task_id in self._engine.store.runs or run_or_task_id in self._engine.store.tasks

    def _parent(self, trigger: Trigger) -> Task | None:
        return self._engine.store.task(trigger.parent_task_id) if trigger.parent_task_id else None

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
        task.expired = False
        task.finished_at = task.started_at = None
        task.acknowledged = False
        task.match_data = {}
        task.created = not task.step.is_on_failure
        self._engine.lifecycle.record(task, "RETRIED_BY_USER")

    def _build(self, workflow: Workflow, trigger: Trigger, parent: Task | None) -> Run:
        version = workflow.current
        run_id = new_id()
        run = Run(
            id=run_id,
            version=version,
            trigger=trigger,
            metadata=with_traceparent(_metadata(trigger, parent), run_id),
            priority=trigger.priority or version.default_priority,
            created_at=self._engine.clock.now(),
            parent=None if parent is None else _parent_of_child(parent),
        )
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


def _parent_of_child(task: Task) -> Parent:
    run = task.run
    told_as = task.id if run.is_dag else run.id
    return Parent(task_id=task.id, run_id=run.id, told_as=told_as, retry_count=task.retry_count)


def _child_id(trigger: Trigger) -> str:
    return trigger.child_key or str(trigger.child_index or 0)


def _checked(ids: Iterable[str]) -> list[str]:
    listed = list(ids)
    for each in listed:
        check_id(each, "the id of a run or task")
    return listed


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
