"""Replays: finished tasks run again under the same ids."""

from __future__ import annotations

from mageflow.engine.durable import DurableTasks
from mageflow.engine.errors import PreconditionError
from mageflow.engine.graph import Graph
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.model import Run, Task, TaskStatus
from mageflow.engine.repository import Repository
from mageflow.engine.signals import Signal


class Replays:
    """Opens finished runs again.

    Args:
        repository: where runs and tasks are found.
        lifecycle: resets the tasks.
        graph: begins the tasks.
        durable: the logs of durable tasks.

    Attributes:
        reopened: a run is live again; its tasks are not reset yet.
    """

    def __init__(self, repository: Repository, lifecycle: Lifecycle, graph: Graph, durable: DurableTasks) -> None:
        self.reopened = Signal[[Run]]()
        self._repository = repository
        self._lifecycle = lifecycle
        self._graph = graph
        self._durable = durable

    def replay(self, run_or_task_id: str) -> list[str]:
        """Reset finished tasks and start them again; return the ids of those tasks.

        The id of a run resets all its finished tasks. The id of one task of a DAG resets that task and its
        descendants. Live tasks go on as they are. The run is live when this returns.

        Raises:
            NotFoundError: the id is unknown.
        """
        run = self._repository.run(run_or_task_id)
        if run_or_task_id == run.id:
            chosen = list(run.tasks.values())
        else:
            chosen = _with_descendants(self._repository.task(run_or_task_id))
        chosen = [task for task in chosen if task.status.is_terminal]
        if not chosen:
            return []
        handler = next((task for task in run.tasks.values() if task.definition.is_on_failure), None)
        if handler is not None and handler not in chosen and handler.status.is_terminal:
            chosen.append(handler)
        self._reopen(run)
        for task in chosen:
            self._lifecycle.reset(task)
        for task in chosen:
            if not task.definition.is_on_failure and task.status is TaskStatus.PENDING:
                self._graph.start_task(task)
        return [task.id for task in chosen]

    def replay_from(self, task: Task, node: int, parent_branch: int | None) -> int:
        """Run a finished durable task again from a node of its log, in a new branch.

        Args:
            task: the task.
            node: what lies before it in the log is kept.
            parent_branch: the branch that the node is in; by default the active one.

        Returns:
            The id of the new branch.

        Raises:
            PreconditionError: the task is not durable or never ran, has not finished, or has no such branch.
        """
        log = self._durable.log_of(task)
        if log is None:
            raise PreconditionError(f"task {task.id} has no durable log")
        if not task.status.is_terminal:
            raise PreconditionError(f"task {task.id} is still {task.status.public}: cancel it first")
        parent = parent_branch or log.active
        if parent not in log.branches:
            raise PreconditionError(f"task {task.id} has no branch {parent}")
        branch = log.branch_off(parent, node)
        self.replay(task.id)
        return branch

    def _reopen(self, run: Run) -> None:
        run.done = False
        run.finished_at = None
        self._repository.reopen(run)
        self.reopened.send(run)


def _with_descendants(task: Task) -> list[Task]:
    found = {task.name}
    # A task may be declared before its parents, so this repeats until nothing is added.
    while True:
        more = {
            name
            for name, other in task.run.tasks.items()
            if name not in found and found.intersection(other.definition.parents)
        }
        if not more:
            return [other for name, other in task.run.tasks.items() if name in found]
        found |= more
