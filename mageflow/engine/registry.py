"""Registered workflows (``PutWorkflow``): definitions by name, in versions."""

from __future__ import annotations

from mageflow.engine.clock import Clock
from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.crons import Crons, check_expression
from mageflow.engine.definitions import Workflow, WorkflowVersion
from mageflow.engine.filters import Filters
from mageflow.engine.parsing import parse_object
from mageflow.engine.registration import check_registration, task_definitions
from mageflow.engine.repository import Repository
from mageflow.engine.signals import Signal
from mageflow.engine.values import new_id

_VERSIONS_KEPT = 20


class Registry:
    """Registers workflows. The id of a name never changes, and the last registration is the current version.

    Args:
        clock: times.
        repository: where the workflows are.
        filters: the event filters that a registration declares.
        crons: the crons that a registration declares.

    Attributes:
        deleted: a workflow was deleted; every part deletes what it keeps for it.
    """

    def __init__(self, clock: Clock, repository: Repository, filters: Filters, crons: Crons) -> None:
        self.deleted = Signal[[Workflow]]()
        self._clock = clock
        self._repository = repository
        self._filters = filters
        self._crons = crons

    def put(self, request: pb.CreateWorkflowVersionRequest) -> WorkflowVersion:
        """Register a workflow, and replace its event triggers, declared filters and declared crons.

        An unchanged definition keeps its version. Runs keep the version they started with.

        Raises:
            InvalidRequestError: the definition is not valid, a cron expression is not, or a document is not JSON.
        """
        # Everything is checked before anything is changed.
        check_registration(request)
        tasks = task_definitions(request)
        cron_input = parse_object(request.cron_input, "cron_input")
        for expression in request.cron_triggers:
            check_expression(expression)
        filters = [(each, parse_object(each.payload, "filter payload")) for each in request.default_filters]
        now = self._clock.now()
        workflow = self._repository.workflow_named(request.name)
        if workflow is None:
            workflow = Workflow(id=new_id(), name=request.name, created_at=now)
            self._repository.add_workflow(workflow)
        workflow.event_triggers = tuple(request.event_triggers)
        self._filters.replace_declared(workflow, filters)
        self._crons.replace_declared(workflow, list(request.cron_triggers), cron_input)
        fingerprint = request.SerializeToString(deterministic=True)
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
            tasks=tasks,
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
        """Delete a workflow with its crons, filters and scheduled runs. Its runs go on."""
        self._repository.remove_workflow(workflow)
        self.deleted.send(workflow)
