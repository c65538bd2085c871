"""The register of the tasks that one client has declared. The task of a signature is looked up here."""

from typing import Any

from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.workflow import BaseWorkflow

from mageflow._frozen import frozen
from mageflow.hatchet import declaration_compat
from mageflow.interceptors import TaskInfo

__all__ = ["Declared", "TaskRegister"]


@frozen
class Declared:
    """One declared task."""

    info: TaskInfo
    task: Task[Any, Any]
    runnable: BaseWorkflow[Any]
    """The stand-alone task, or the workflow that the task belongs to."""


class TaskRegister:
    """The declarations of one client. Of two with the same name the later one counts, as for a Hatchet worker."""

    def __init__(self) -> None:
        self._by_workflow: dict[str, Declared] = {}
        self._by_task: dict[int, Declared] = {}
        self._repeated: dict[str, None] = {}

    def add(self, declared: Declared) -> None:
        """Add a task."""
        before = self._by_workflow.get(declared.info.workflow_name)
        if before is not None and before.runnable is not declared.runnable:
            self._repeated[declared.info.workflow_name] = None
        self._by_workflow[declared.info.workflow_name] = declared
        self._by_task[id(declared.task)] = declared

    def add_workflow(self, name: str, declared: Declared) -> None:
        """Add a workflow that has a task of another declaration. One that has a task of its own is there already."""
        self._by_workflow.setdefault(name, declared)

    def find_workflow(self, name: str) -> Declared | None:
        """The task of the workflow with this name; for a stand-alone task, the task itself."""
        return self._by_workflow.get(name)

    def runnables(self) -> list[BaseWorkflow[Any]]:
        """Every stand-alone task and workflow, in the order of declaration; of two with one name the later one."""
        return [each.runnable for each in self._by_workflow.values()]

    def repeated_names(self) -> list[str]:
        """The names that more than one task or workflow was declared with."""
        return list(self._repeated)

    def default_metadata(self, name: str) -> dict[str, Any]:
        """What the declaration of a task gives each of its runs; nothing for a task that this process did not declare.

        The SDK adds it in ``run`` and ``run_many`` only.
        """
        declared = self._by_workflow.get(name)
        return {} if declared is None else dict(declaration_compat.default_metadata_of(declared.runnable))

    def tasks(self) -> tuple[TaskInfo, ...]:
        """All declared tasks, those of workflows included."""
        return tuple(declared.info for declared in self._by_task.values())

    def find_task(self, task: Task[Any, Any]) -> Declared | None:
        """The declaration of one of the SDK's tasks, if this client declared it."""
        return self._by_task.get(id(task))
