"""PutWorkflow: workflow definitions by name, versioned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.crons import check_expression
from mageflow.engine.definitions import check_definition, steps_of
from mageflow.engine.documents import parse_object
from mageflow.engine.model import Workflow, WorkflowVersion, new_id

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_VERSIONS_KEPT = 20


class Registry:
    """Registration of workflows; the id of a name never changes, the last registration wins."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, request: pb.CreateWorkflowVersionRequest) -> WorkflowVersion:
        """Register a workflow, replacing its event triggers, declared filters and declared crons.

        An unchanged definition keeps its version. Runs keep the version they started with.

        Raises:
            InvalidRequestError: see ``check_definition`` and ``steps_of``; a bad cron expression or JSON document.
        """
        # Everything is checked before anything is changed.
        check_definition(request)
        steps = steps_of(request)
        cron_input = parse_object(request.cron_input, "cron_input")
        for expression in request.cron_triggers:
            check_expression(expression)
        filters = [(each, parse_object(each.payload, "filter payload")) for each in request.default_filters]
        store = self._engine.store
        now = self._engine.clock.now()
        workflow = store.workflow_named(request.name)
        if workflow is None:
            workflow = Workflow(id=new_id(), name=request.name, created_at=now)
            store.workflows[workflow.id] = workflow
            store.workflow_ids_by_name[workflow.name] = workflow.id
        workflow.event_triggers = tuple(request.event_triggers)
        self._engine.events.replace_declared_filters(workflow, filters)
        self._engine.crons.replace_declared(workflow, list(request.cron_triggers), cron_input)
        fingerprint = _fingerprint(request)
        if workflow.versions and workflow.current.fingerprint == fingerprint:
            return workflow.current
        concurrency = list(request.concurrency_arr)
        if request.HasField("concurrency"):
            concurrency.insert(0, request.concurrency)
        version = WorkflowVersion(
            id=new_id(),
            workflow=workflow,
            fingerprint=fingerprint,
            created_at=now,
            steps=steps,
            concurrency=concurrency,
            sticky=pb.StickyStrategy.Name(request.sticky) if request.HasField("sticky") else None,
            idempotency=request.idempotency if request.HasField("idempotency") else None,
            default_priority=request.default_priority or 1,
            input_schema=request.input_json_schema,
        )
        workflow.versions.append(version)
        del workflow.versions[:-_VERSIONS_KEPT]
        return version

    def delete(self, workflow: Workflow) -> None:
        """Forget a workflow with its crons, filters and scheduled runs; its runs go on."""
        store = self._engine.store
        for cron in self._engine.crons.of(workflow):
            self._engine.crons.remove(cron)
        for each in self._engine.events.filters_of(workflow):
            del self._engine.events.filters[each.id]
        self._engine.schedules.remove_of(workflow)
        self._engine.pauses.unpause(workflow)
        store.workflows.pop(workflow.id, None)
        store.workflow_ids_by_name.pop(workflow.name, None)


def _fingerprint(request: pb.CreateWorkflowVersionRequest) -> bytes:
    return request.SerializeToString(deterministic=True)
