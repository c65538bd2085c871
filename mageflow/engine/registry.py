"""PutWorkflow: workflow definitions by name, versioned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.crons import check_expression
from mageflow.engine.documents import parse_object
from mageflow.engine.durations import parse_duration
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import BatchConfig, Step, Workflow, WorkflowVersion, new_id

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_DEFAULT_TIMEOUT = "60s"
_DEFAULT_SCHEDULE_TIMEOUT = "5m"
_DEFAULT_BATCH_INTERVAL_MS = 1000
_DEFAULT_BATCH_GROUP_KEY = "'default'"
_DEFAULT_BATCH_MAX_RUNS = 100
_VERSIONS_KEPT = 20


class Registry:
    """Registration of workflows; the id of a name never changes, the last registration wins."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, request: pb.CreateWorkflowVersionRequest) -> WorkflowVersion:
        """Register a workflow, replacing its event triggers, declared filters and declared crons.

        An unchanged definition keeps its version. Runs keep the version they started with.

        Raises:
            InvalidRequestError: no name, no tasks, a duplicate or unknown task name, a cycle, a bad duration,
                cron expression or JSON document.
        """
        # Everything is checked before anything is changed.
        steps = _steps(request)
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


def _steps(request: pb.CreateWorkflowVersionRequest) -> dict[str, Step]:
    if not request.name:
        raise InvalidRequestError("a workflow needs a name")
    if not request.tasks:
        raise InvalidRequestError(f"workflow {request.name!r} has no tasks")
    steps: dict[str, Step] = {}
    for options in request.tasks:
        if options.readable_id in steps:
            raise InvalidRequestError(f"workflow {request.name!r} has two tasks named {options.readable_id!r}")
        steps[options.readable_id] = _step(options, is_on_failure=False)
    _check_parents(request.name, steps)
    if request.HasField("on_failure_task"):
        handler = _step(request.on_failure_task, is_on_failure=True)
        if handler.readable_id in steps:
            raise InvalidRequestError(f"workflow {request.name!r} has two tasks named {handler.readable_id!r}")
        steps[handler.readable_id] = handler
    return steps


def _check_parents(workflow: str, steps: dict[str, Step]) -> None:
    for step in steps.values():
        for parent in step.parents:
            if parent not in steps:
                raise InvalidRequestError(f"task {step.readable_id!r} of {workflow!r} names unknown parent {parent!r}")
    ready: set[str] = set()
    while len(ready) < len(steps):
        more = {name for name, step in steps.items() if name not in ready and ready.issuperset(step.parents)}
        if not more:
            raise InvalidRequestError(f"the tasks of workflow {workflow!r} wait for each other in a circle")
        ready |= more


def _step(options: pb.CreateTaskOpts, *, is_on_failure: bool) -> Step:
    timeout_text = options.timeout or _DEFAULT_TIMEOUT
    for sleep in options.conditions.sleep_conditions:
        parse_duration(sleep.sleep_for)
    return Step(
        id=new_id(),
        readable_id=options.readable_id,
        action=options.action.lower(),
        timeout=parse_duration(timeout_text),
        timeout_text=timeout_text,
        schedule_timeout=parse_duration(options.schedule_timeout or _DEFAULT_SCHEDULE_TIMEOUT),
        parents=() if is_on_failure else tuple(options.parents),
        retries=options.retries,
        backoff_factor=options.backoff_factor if options.HasField("backoff_factor") else None,
        backoff_max=options.backoff_max_seconds if options.HasField("backoff_max_seconds") else None,
        slots=dict(options.slot_requests) or {"durable" if options.is_durable else "default": 1},
        labels=options.worker_labels,
        rate_limits=list(options.rate_limits),
        concurrency=list(options.concurrency),
        conditions=options.conditions if options.HasField("conditions") and not is_on_failure else None,
        is_durable=options.is_durable,
        is_on_failure=is_on_failure,
        batch=_batch(options.batch) if options.HasField("batch") else None,
    )


def _batch(config: pb.TaskBatchConfig) -> BatchConfig:
    interval_ms = config.batch_max_interval_ms if config.HasField("batch_max_interval_ms") else 0
    return BatchConfig(
        max_size=max(1, config.batch_max_size),
        interval=(interval_ms or _DEFAULT_BATCH_INTERVAL_MS) / 1000,
        group_key=(config.batch_group_key if config.HasField("batch_group_key") else "") or _DEFAULT_BATCH_GROUP_KEY,
        max_runs=(config.batch_group_max_runs if config.HasField("batch_group_max_runs") else 0)
        or _DEFAULT_BATCH_MAX_RUNS,
        broadcast_output=config.broadcast_output,
    )
