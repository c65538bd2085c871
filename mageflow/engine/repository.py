"""Workflows, runs, tasks, workers and events by id, in memory only.

Owns retention: it forgets finished runs beyond the newest ``keep_finished``, and events beyond the newest 20,000, so
the memory of a long-lived engine stays flat. An id may name a run or a task: in a workflow with one task both have the
same UUID.
"""

from __future__ import annotations

from mageflow.engine.definitions import Workflow
from mageflow.engine.errors import NotFoundError
from mageflow.engine.model import Run, Task, UserEvent, Worker
from mageflow.engine.parsing import check_id
from mageflow.engine.run_filter import RunFilter

_EVENTS_KEPT = 20_000


class Repository:
    """The records of one engine.

    Args:
        keep_finished: finished runs that stay readable.

    Attributes:
        runs: by id, oldest first.
        events: by id, oldest first.
    """

    def __init__(self, *, keep_finished: int = 10_000) -> None:
        self.workflows: dict[str, Workflow] = {}
        self.runs: dict[str, Run] = {}
        self.tasks: dict[str, Task] = {}
        self.workers: dict[str, Worker] = {}
        self.events: dict[str, UserEvent] = {}
        self._workflow_ids: dict[str, str] = {}
        self._keep_finished = keep_finished
        self._finished: dict[str, Run] = {}

    # -- workflows -----------------------------------------------------------------------------------------------

    @property
    def workflow_names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._workflow_ids)

    def workflow_named(self, name: str) -> Workflow | None:
        """Return the workflow registered under this exact name, which includes the namespace."""
        workflow_id = self._workflow_ids.get(name)
        return None if workflow_id is None else self.workflows[workflow_id]

    def add_workflow(self, workflow: Workflow) -> None:
        """Store a workflow under its id and its name."""
        self.workflows[workflow.id] = workflow
        self._workflow_ids[workflow.name] = workflow.id

    def remove_workflow(self, workflow: Workflow) -> None:
        """Remove a workflow. Its runs stay."""
        self.workflows.pop(workflow.id, None)
        self._workflow_ids.pop(workflow.name, None)

    # -- runs and tasks ------------------------------------------------------------------------------------------

    def add_run(self, run: Run) -> None:
        """Store a run and its tasks."""
        self.runs[run.id] = run
        for task in run.tasks.values():
            self.tasks[task.id] = task

    def run(self, run_or_task_id: str) -> Run:
        """Return the run with this id, or the run of the task with this id.

        Raises:
            NotFoundError: there is neither, or it finished long ago and was forgotten.
            InvalidRequestError: the id is not a UUID.
        """
        run = self.runs.get(run_or_task_id)
        return self.task(run_or_task_id).run if run is None else run

    def task(self, task_id: str) -> Task:
        """Return the task with this id.

        Raises:
            NotFoundError: there is none.
            InvalidRequestError: the id is not a UUID.
        """
        task = self.tasks.get(task_id)
        if task is None:
            check_id(task_id, "the id of a run or task")
            raise NotFoundError(f"no run or task {task_id}")
        return task

    def tasks_of(self, run_or_task_id: str) -> list[Task]:
        """Return all tasks of the run with this id, or the one task with this id.

        Raises:
            NotFoundError: there is neither.
            InvalidRequestError: the id is not a UUID.
        """
        run = self.runs.get(run_or_task_id)
        return [self.task(run_or_task_id)] if run is None else list(run.tasks.values())

    def select(self, criteria: RunFilter) -> list[Run]:
        """Return the runs that meet the criteria, newest first."""
        return [run for run in reversed(self.runs.values()) if criteria.matches(run)]

    def retire(self, run: Run) -> list[Run]:
        """Note that a run finished. Forget the oldest finished runs beyond the limit, and return those."""
        # A replayed run finishes again: it moves to the end.
        self._finished.pop(run.id, None)
        self._finished[run.id] = run
        forgotten: list[Run] = []
        while len(self._finished) > self._keep_finished:
            oldest = self._finished.pop(next(iter(self._finished)))
            self._forget(oldest)
            forgotten.append(oldest)
        return forgotten

    def reopen(self, run: Run) -> None:
        """Note that a finished run is live again."""
        self._finished.pop(run.id, None)

    def _forget(self, run: Run) -> None:
        self.runs.pop(run.id, None)
        for task in run.tasks.values():
            self.tasks.pop(task.id, None)
        event = self.events.get(run.trigger.event_id) if run.trigger.event_id else None
        if event is not None:
            event.triggered = [each for each in event.triggered if each.run is not run]

    # -- workers and events --------------------------------------------------------------------------------------

    def worker(self, worker_id: str) -> Worker:
        """Return the worker with this id.

        Raises:
            NotFoundError: there is none. After a restart of the engine, workers must be restarted too.
            InvalidRequestError: the id is not a UUID.
        """
        worker = self.workers.get(worker_id)
        if worker is None:
            check_id(worker_id, "the id of a worker")
            raise NotFoundError(
                f"no worker {worker_id}: the engine keeps nothing across a restart, restart the worker too"
            )
        return worker

    def add_event(self, event: UserEvent) -> None:
        """Store an event, and forget the oldest one beyond the limit."""
        self.events[event.id] = event
        if len(self.events) > _EVENTS_KEPT:
            del self.events[next(iter(self.events))]

    def event(self, event_id: str) -> UserEvent:
        """Return a stored event.

        Raises:
            NotFoundError: there is none.
        """
        event = self.events.get(event_id)
        if event is None:
            raise NotFoundError(f"no event {event_id}")
        return event
