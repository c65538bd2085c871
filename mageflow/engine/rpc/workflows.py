"""``WorkflowService``: triggers, scheduled runs, rate limits."""

from __future__ import annotations

import grpc

from mageflow.engine.contracts import trigger_pb2, workflows_pb2
from mageflow.engine.errors import (
    Collision,
    IdempotencyCollisionError,
    InvalidRequestError,
    NotFoundError,
    UnknownWorkflowError,
)
from mageflow.engine.formats import timestamp
from mageflow.engine.parsing import parse_object, utc_time
from mageflow.engine.rate_limits import RateLimits
from mageflow.engine.rpc.table import service, unary
from mageflow.engine.rpc.trigger import trigger_from
from mageflow.engine.runs import Runs
from mageflow.engine.schedules import Schedules
from mageflow.engine.trigger import Trigger


class WorkflowService:
    """The service.

    Args:
        runs: starts runs.
        schedules: starts them later.
        rate_limits: the buckets.
    """

    def __init__(self, runs: Runs, schedules: Schedules, rate_limits: RateLimits) -> None:
        self._runs = runs
        self._schedules = schedules
        self._rate_limits = rate_limits

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service."""
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
        return workflows_pb2.TriggerWorkflowResponse(workflow_run_id=self._runs.trigger(trigger_from(request)))

    def _bulk_trigger(
        self, request: workflows_pb2.BulkTriggerWorkflowRequest
    ) -> workflows_pb2.BulkTriggerWorkflowResponse:
        """Start all runs or none. Only a collision of idempotency keys leaves a single run out."""
        triggers = [trigger_from(each) for each in request.workflows]
        for trigger in triggers:
            self._runs.check(trigger)
        started: list[str] = []
        collisions: list[Collision] = []
        for trigger in triggers:
            try:
                started.append(self._runs.trigger(trigger))
            except IdempotencyCollisionError as collision:
                collisions.extend(collision.collisions)
        if collisions:
            raise IdempotencyCollisionError(collisions, started, bulk=True)
        return workflows_pb2.BulkTriggerWorkflowResponse(workflow_run_ids=started)

    def _schedule(self, request: workflows_pb2.ScheduleWorkflowRequest) -> workflows_pb2.WorkflowVersion:
        trigger = Trigger(
            workflow_name=request.name,
            input=parse_object(request.input, "input"),
            metadata=parse_object(request.additional_metadata, "additional_metadata"),
            priority=request.priority if request.HasField("priority") else None,
            parent_task_id=request.parent_task_run_external_id or None,
            child_index=request.child_index if request.HasField("child_index") else None,
            child_key=request.child_key or None,
        )
        try:
            workflow = self._runs.workflow_of(trigger)
        except UnknownWorkflowError as error:
            # For a scheduled run, Hatchet looks for the workflow and answers with this status.
            raise NotFoundError(str(error)) from error
        if request.schedules:
            _check_scheduled(request)
        added = [self._schedules.add(trigger, utc_time(moment, "moment")) for moment in request.schedules]
        version = workflow.current
        return workflows_pb2.WorkflowVersion(
            id=version.id,
            created_at=timestamp(version.created_at),
            updated_at=timestamp(version.created_at),
            workflow_id=workflow.id,
            scheduled_workflows=[
                workflows_pb2.ScheduledWorkflow(id=each.id, trigger_at=timestamp(each.trigger_at)) for each in added
            ],
        )

    def _put_rate_limit(self, request: workflows_pb2.PutRateLimitRequest) -> workflows_pb2.PutRateLimitResponse:
        if not request.key:
            raise InvalidRequestError("a rate limit needs a key")
        window = workflows_pb2.RateLimitDuration.Name(request.duration)
        self._rate_limits.put(request.key, request.limit, window)
        return workflows_pb2.PutRateLimitResponse()

    def _pause_rate_limit(self, request: workflows_pb2.PauseRateLimitRequest) -> workflows_pb2.PauseRateLimitResponse:
        until = self._rate_limits.pause(request.key, utc_time(request.paused_until, "paused_until"))
        return workflows_pb2.PauseRateLimitResponse(paused_until=timestamp(until))


def _check_scheduled(request: workflows_pb2.ScheduleWorkflowRequest) -> None:
    """Refuse what Hatchet's database does not take: an empty text in a column of JSON.

    Hatchet answers with an internal error, which the SDK sends again and again.

    Raises:
        InvalidRequestError: input or metadata is empty text.
    """
    if not request.input:
        raise InvalidRequestError("input of a scheduled run must be a JSON object, not empty text")
    if request.HasField("additional_metadata") and not request.additional_metadata:
        raise InvalidRequestError("additional_metadata of a scheduled run must be a JSON object, not empty text")
