"""Starts runs: finds the workflow, the parent and the idempotency key, and builds the run with its tasks."""

from __future__ import annotations

import itertools
import logging

from mageflow.engine.clock import Clock
from mageflow.engine.definitions import TaskDefinition, Workflow
from mageflow.engine.errors import UnknownWorkflowError
from mageflow.engine.graph import Graph
from mageflow.engine.idempotency import Idempotency
from mageflow.engine.model import Run, Task
from mageflow.engine.parsing import check_priority
from mageflow.engine.repository import Repository
from mageflow.engine.signals import Signal
from mageflow.engine.traces import with_traceparent
from mageflow.engine.trigger import Parent, Trigger
from mageflow.engine.values import JsonObject, new_id

_log = logging.getLogger("mageflow.engine.runs")

RESERVED_PREFIX = "hatchet__"
"""Metadata keys with this prefix are the engine's own. Child runs do not inherit them."""

_NAMES_LOGGED = 20


class Runs:
    """Starts runs.

    Args:
        clock: times.
        repository: where workflows and parents are found, and runs are stored.
        idempotency: the keys of live runs.
        graph: begins the tasks.

    Attributes:
        started: a run is stored; its tasks have not begun.
    """

    def __init__(self, clock: Clock, repository: Repository, idempotency: Idempotency, graph: Graph) -> None:
        self.started = Signal[[Run]]()
        self._clock = clock
        self._repository = repository
        self._idempotency = idempotency
        self._graph = graph
        self._task_numbers = itertools.count(1)

    def workflow_of(self, trigger: Trigger) -> Workflow:
        """Return the workflow that a trigger names.

        Raises:
            UnknownWorkflowError: no worker has registered the name.
            InvalidRequestError: the priority is not 1, 2 or 3.
        """
        check_priority(trigger.priority)
        workflow = self._repository.workflow_named(trigger.workflow_name)
        if workflow is None:
            raise UnknownWorkflowError(trigger.workflow_name)
        return workflow

    def check(self, trigger: Trigger) -> None:
        """Raise the errors of ``trigger``, except a collision of idempotency keys, and start nothing.

        Raises:
            InvalidRequestError: the priority is not 1, 2 or 3.
            NotFoundError: the parent task is unknown.
        """
        check_priority(trigger.priority)
        self._parent_task(trigger)

    def trigger(self, trigger: Trigger) -> str:
        """Start a run for a client, or find the child that the parent already has under the same key.

        A workflow that no worker has registered is answered as Hatchet does: with the id of a run that never starts,
        also when a worker registers the workflow later. A warning names it and the registered workflows.

        Returns:
            The id of the run.

        Raises:
            InvalidRequestError: the priority is not 1, 2 or 3.
            NotFoundError: the parent task is unknown.
            IdempotencyCollisionError: another run holds the workflow's idempotency key for this input.
        """
        parent = self._parent_task(trigger)
        known = None if parent is None else parent.children.get(_child_key(trigger))
        if known is not None:
            return known
        try:
            return self.start(trigger).id
        except UnknownWorkflowError:
            return self.id_of_unknown_workflow(trigger)

    def id_of_unknown_workflow(self, trigger: Trigger) -> str:
        """Return an id for a run of a workflow that is not registered, and warn that the run never starts."""
        run_id = new_id()
        names = self._repository.workflow_names
        more = f" and {len(names) - _NAMES_LOGGED} more" if len(names) > _NAMES_LOGGED else ""
        _log.warning(
            "run %s of %r will never start: no worker has registered that workflow (registered: %s%s). Hatchet takes "
            "such a run without an error; start the worker first and check the name and the namespace",
            run_id,
            trigger.workflow_name,
            ", ".join(names[:_NAMES_LOGGED]) or "none",
            more,
        )
        return run_id

    def start(self, trigger: Trigger) -> Run:
        """Start a run, also of a child that the parent already has.

        Raises:
            UnknownWorkflowError: no worker has registered the workflow.
            InvalidRequestError: the priority is not 1, 2 or 3.
            NotFoundError: the parent task is unknown.
            IdempotencyCollisionError: another run holds the workflow's idempotency key for this input.
        """
        workflow = self.workflow_of(trigger)
        parent = self._parent_task(trigger)
        run = self._build(workflow, trigger, parent)
        self._idempotency.claim(run)
        if parent is not None:
            parent.children[_child_key(trigger)] = run.id
        self._repository.add_run(run)
        self.started.send(run)
        self._graph.start(run)
        return run

    def _parent_task(self, trigger: Trigger) -> Task | None:
        return self._repository.task(trigger.parent_task_id) if trigger.parent_task_id else None

    def _build(self, workflow: Workflow, trigger: Trigger, parent: Task | None) -> Run:
        version = workflow.current
        run_id = new_id()
        run = Run(
            id=run_id,
            version=version,
            trigger=trigger,
            metadata=with_traceparent(_metadata(trigger, parent), run_id),
            priority=trigger.priority or version.default_priority,
            created_at=self._clock.now(),
            parent=None if parent is None else _as_parent(parent),
        )
        for definition in version.tasks.values():
            run.tasks[definition.name] = self._new_task(run, definition)
        return run

    def _new_task(self, run: Run, definition: TaskDefinition) -> Task:
        return Task(
            id=new_id() if run.is_dag else run.id,
            number=next(self._task_numbers),
            run=run,
            definition=definition,
            priority=run.priority,
            inserted_at=run.created_at,
        )


def _metadata(trigger: Trigger, parent: Task | None) -> JsonObject:
    if parent is None:
        return trigger.metadata
    inherited = {key: value for key, value in parent.run.metadata.items() if not key.startswith(RESERVED_PREFIX)}
    return {
        **inherited,
        **trigger.metadata,
        "hatchet__parent_workflow_run_id": parent.run.id,
        "hatchet__parent_step_run_id": parent.id,
    }


def _as_parent(task: Task) -> Parent:
    run = task.run
    wire_id = task.id if run.is_dag else run.id
    return Parent(task_id=task.id, run_id=run.id, wire_id=wire_id, retry_count=task.retry_count)


def _child_key(trigger: Trigger) -> str:
    return trigger.child_key or str(trigger.child_index or 0)
