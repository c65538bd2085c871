"""``v1.AdminService`` and ``WorkflowService``: registration, triggers, run details."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc

from mageflow.engine.actions import timestamp
from mageflow.engine.contracts import trigger_pb2, v1_workflows_pb2, workflows_pb2
from mageflow.engine.documents import moment_of, parse_object
from mageflow.engine.errors import (
    Collision,
    IdempotencyCollisionError,
    InvalidRequestError,
    NotFoundError,
    UnknownWorkflowError,
)
from mageflow.engine.model import Run, Task, TaskStatus
from mageflow.engine.rpc.table import service, unary
from mageflow.engine.rpc.triggers import trigger_from
from mageflow.engine.run_filter import RunFilter
from mageflow.engine.trigger import Trigger

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


class Admin:
    """``v1.AdminService``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service's table."""
        return service(
            "v1.AdminService",
            {
                "PutWorkflow": unary(v1_workflows_pb2.CreateWorkflowVersionRequest, self._put_workflow),
                "GetRunDetails": unary(v1_workflows_pb2.GetRunDetailsRequest, self._run_details),
                "TriggerWorkflowRun": unary(v1_workflows_pb2.TriggerWorkflowRunRequest, self._trigger_run),
                "CancelTasks": unary(v1_workflows_pb2.CancelTasksRequest, self._cancel),
                "ReplayTasks": unary(v1_workflows_pb2.ReplayTasksRequest, self._replay),
                "BranchDurableTask": unary(v1_workflows_pb2.BranchDurableTaskRequest, self._branch),
            },
        )

    def _put_workflow(
        self, request: v1_workflows_pb2.CreateWorkflowVersionRequest
    ) -> v1_workflows_pb2.CreateWorkflowVersionResponse:
        version = self._engine.registry.put(request)
        return v1_workflows_pb2.CreateWorkflowVersionResponse(id=version.id, workflow_id=version.workflow.id)

    def _run_details(self, request: v1_workflows_pb2.GetRunDetailsRequest) -> v1_workflows_pb2.GetRunDetailsResponse:
        run = self._engine.store.run(request.external_id)
        return v1_workflows_pb2.GetRunDetailsResponse(
            input=json.dumps(run.input).encode(),
            additional_metadata=json.dumps(run.metadata).encode(),
            status=run.status.public,
            done=run.done,
            is_evicted=_is_evicted(run),
            task_runs={name: _task_detail(task) for name, task in run.tasks.items() if task.created},
        )

    def _trigger_run(
        self, request: v1_workflows_pb2.TriggerWorkflowRunRequest
    ) -> v1_workflows_pb2.TriggerWorkflowRunResponse:
        run_id = self._engine.runs.trigger(
            Trigger(
                name=request.workflow_name,
                input=parse_object(request.input, "input"),
                metadata=parse_object(request.additional_metadata, "additional_metadata"),
                priority=request.priority if request.HasField("priority") else None,
                desired_labels=request.desired_worker_labels,
            )
        )
        return v1_workflows_pb2.TriggerWorkflowRunResponse(external_id=run_id)

    def _cancel(self, request: v1_workflows_pb2.CancelTasksRequest) -> v1_workflows_pb2.CancelTasksResponse:
        done = self._engine.runs.cancel_listed(self._chosen(request))
        return v1_workflows_pb2.CancelTasksResponse(cancelled_tasks=done)

    def _replay(self, request: v1_workflows_pb2.ReplayTasksRequest) -> v1_workflows_pb2.ReplayTasksResponse:
        done = self._engine.runs.replay_listed(self._chosen(request))
        return v1_workflows_pb2.ReplayTasksResponse(replayed_tasks=done)

    def _branch(self, request: v1_workflows_pb2.BranchDurableTaskRequest) -> v1_workflows_pb2.BranchDurableTaskResponse:
        task = self._engine.store.task(request.task_external_id)
        branch_id = self._engine.durable.branch(task, request.node_id, request.branch_id or None)
        return v1_workflows_pb2.BranchDurableTaskResponse(
            task_external_id=task.id, node_id=request.node_id, branch_id=branch_id
        )

    def _chosen(self, request: v1_workflows_pb2.CancelTasksRequest | v1_workflows_pb2.ReplayTasksRequest) -> list[str]:
        """Return the ids a bulk request means: those it lists, or those its filter finds; without either, none."""
        if request.external_ids or not request.HasField("filter"):
            return list(request.external_ids)
        wanted = request.filter
        pairs = (pair.partition(":") for pair in wanted.additional_metadata)
        chosen = RunFilter(
            since=moment_of(wanted.since, "since") if wanted.HasField("since") else None,
            until=moment_of(wanted.until, "until") if wanted.HasField("until") else None,
            statuses=frozenset(wanted.statuses),
            workflow_ids=frozenset(wanted.workflow_ids),
            metadata=tuple((key, value) for key, _, value in pairs),
        )
        return [run.id for run in self._engine.runs.select(chosen)]


class Workflows:
    """``WorkflowService``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service's table."""
        return service(
            "WorkflowService",
            {
                "TriggerWorkflow": unary(trigger_pb2.TriggerWorkflowRequest, self._trigger),
                "BulkTriggerWorkflow": unary(workflows_pb2.BulkTriggerWorkflowRequest, self._bulk_trigger),
                "ScheduleWorkflow": unary(workflows_pb2.ScheduleWorkflowRequest, self._schedule),
                "PutRateLimit": unary(workflows_pb2.PutRateLimitRequest, self._put_rate_limit),
                "PauseRateLimit": unary(workflows_pb2.PauseRateLimitRequest, self._pause_rate_limit),
            },
        )

    def _trigger(self, request: trigger_pb2.TriggerWorkflowRequest) -> workflows_pb2.TriggerWorkflowResponse:
        return workflows_pb2.TriggerWorkflowResponse(workflow_run_id=self._engine.runs.trigger(trigger_from(request)))

    def _bulk_trigger(
        self, request: workflows_pb2.BulkTriggerWorkflowRequest
    ) -> workflows_pb2.BulkTriggerWorkflowResponse:
        """Start all or none, except that a colliding idempotency key keeps only its own trigger from starting."""
        triggers = [trigger_from(each) for each in request.workflows]
        for trigger in triggers:
            self._engine.runs.check(trigger)
        started: list[str] = []
        collisions: list[Collision] = []
        for trigger in triggers:
            try:
                started.append(self._engine.runs.trigger(trigger))
            except IdempotencyCollisionError as collision:
                collisions.extend(collision.collisions)
        if collisions:
            raise IdempotencyCollisionError(collisions, started, bulk=True)
        return workflows_pb2.BulkTriggerWorkflowResponse(workflow_run_ids=started)

    def _schedule(self, request: workflows_pb2.ScheduleWorkflowRequest) -> workflows_pb2.WorkflowVersion:
        trigger = Trigger(
            name=request.name,
            input=parse_object(request.input, "input"),
            metadata=parse_object(request.additional_metadata, "additional_metadata"),
            priority=request.priority if request.HasField("priority") else None,
            parent_task_id=request.parent_task_run_external_id or None,
            child_index=request.child_index if request.HasField("child_index") else None,
            child_key=request.child_key or None,
        )
        try:
            workflow = self._engine.runs.validate(trigger)
        except UnknownWorkflowError as error:
            # Hatchet does look for the workflow of a scheduled run, and says so with this code.
            raise NotFoundError(str(error)) from error
        added = [self._engine.schedules.add(trigger, moment_of(moment, "moment")) for moment in request.schedules]
        version = workflow.current
        return workflows_pb2.WorkflowVersion(
            id=version.id,
            created_at=timestamp(version.created_at),
            updated_at=timestamp(version.created_at),
            workflow_id=workflow.id,
            scheduled_workflows=[
                workflows_pb2.ScheduledWorkflow(id=each.id, trigger_at=timestamp(each.at)) for each in added
            ],
        )

    def _put_rate_limit(self, request: workflows_pb2.PutRateLimitRequest) -> workflows_pb2.PutRateLimitResponse:
        if not request.key:
            raise InvalidRequestError("a rate limit needs a key")
        window = workflows_pb2.RateLimitDuration.Name(request.duration)
        self._engine.rate_limits.put(request.key, request.limit, window)
        return workflows_pb2.PutRateLimitResponse()

    def _pause_rate_limit(self, request: workflows_pb2.PauseRateLimitRequest) -> workflows_pb2.PauseRateLimitResponse:
        until = self._engine.rate_limits.pause(request.key, moment_of(request.paused_until, "paused_until"))
        return workflows_pb2.PauseRateLimitResponse(paused_until=timestamp(until))


def _is_evicted(run: Run) -> bool:
    return any(task.status is TaskStatus.EVICTED for task in run.tasks.values())


def _task_detail(task: Task) -> v1_workflows_pb2.TaskRunDetail:
    detail = v1_workflows_pb2.TaskRunDetail(
        external_id=task.id,
        readable_id=task.step.readable_id,
        status=task.status.public,
        is_evicted=task.status is TaskStatus.EVICTED,
    )
    if task.error:
        detail.error = task.error
    if task.status is TaskStatus.COMPLETED:
        detail.output = task.output_text.encode()
    return detail
