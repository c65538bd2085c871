"""Everything the engine knows, indexed by id; in memory only.

Owns lookup and retention: finished runs beyond the newest ``keep_finished`` are forgotten, so a long-lived engine
stays flat. An id may name a run or a task: in a workflow with one task both are the same UUID.
"""

from __future__ import annotations

from mageflow.engine.documents import check_id
from mageflow.engine.errors import NotFoundError
from mageflow.engine.model import Run, Task, Worker, Workflow


class Store:
    """The engine's memory.

    Args:
        keep_finished: how many finished runs stay readable.
    """

    def __init__(self, *, keep_finished: int = 10_000) -> None:
        self.workflows: dict[str, Workflow] = {}
        self.workflow_ids_by_name: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        self.tasks: dict[str, Task] = {}
        self.workers: dict[str, Worker] = {}
        self._keep_finished = keep_finished
        self._finished: dict[str, Run] = {}
        self._numbers = 0

    def next_number(self) -> int:
        """Return an increasing integer: REST ids, FIFO order."""
        self._numbers += 1
        return self._numbers

    def workflow_named(self, name: str) -> Workflow | None:
        """Return the workflow registered under this exact (namespaced) name."""
        workflow_id = self.workflow_ids_by_name.get(name)
        return None if workflow_id is None else self.workflows[workflow_id]

    def add_run(self, run: Run) -> None:
        """Index a run and its tasks."""
        self.runs[run.id] = run
        for task in run.tasks.values():
            self.tasks[task.id] = task

    def run(self, run_or_task_id: str) -> Run:
        """Return the run with this id, or the run of the task with this id.

        Raises:
            NotFoundError: neither exists (or it finished long ago and was forgotten).
            InvalidRequestError: no UUID.
        """
        run = self.runs.get(run_or_task_id)
        if run is not None:
            return run
        return self.task(run_or_task_id).run

    def task(self, task_id: str) -> Task:
        """Return the task with this id.

        Raises:
            NotFoundError: there is none.
            InvalidRequestError: no UUID.
        """
        task = self.tasks.get(task_id)
        if task is None:
            check_id(task_id, "the id of a run or task")
            raise NotFoundError(f"no run or task {task_id}")
        return task

    def worker(self, worker_id: str) -> Worker:
        """Return the worker with this id.

        Raises:
            NotFoundError: there is none; after an engine restart workers must be restarted too.
            InvalidRequestError: no UUID.
        """
        worker = self.workers.get(worker_id)
        if worker is None:
            check_id(worker_id, "the id of a worker")
            raise NotFoundError(
                f"no worker {worker_id}: the engine keeps nothing across a restart, restart the worker too"
            )
        return worker

    def retire(self, run: Run) -> list[Run]:
        """Note that a run finished; forget and return the oldest finished ones beyond the limit."""
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
