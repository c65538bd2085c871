"""The ``Dispatcher`` methods about running attempts: reports of workers, timeouts and slots."""

from __future__ import annotations

from datetime import timedelta

from mageflow.engine.batches import Batches
from mageflow.engine.clock import Clock
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.durations import parse_duration
from mageflow.engine.errors import NotFoundError
from mageflow.engine.formats import timestamp
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.model import Task, TaskStatus
from mageflow.engine.repository import Repository
from mageflow.engine.rpc.table import Handler, unary
from mageflow.engine.timeouts import Timeouts


class ReportMethods:
    """A worker's reports about attempts.

    Args:
        tenant_id: the id of the one tenant.
        repository: where tasks are found.
        lifecycle: applies reports about single tasks.
        batches: applies reports about items of batches.
    """

    def __init__(self, tenant_id: str, repository: Repository, lifecycle: Lifecycle, batches: Batches) -> None:
        self._tenant_id = tenant_id
        self._repository = repository
        self._lifecycle = lifecycle
        self._batches = batches

    def table(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "SendStepActionEvent": unary(pb.StepActionEvent, self._report),
            "SendBatchActionEvent": unary(pb.BatchActionEvent, self._report_batch),
        }

    def _report(self, event: pb.StepActionEvent) -> pb.ActionEventResponse:
        """Apply a report. A report about another attempt or an ended task is answered OK and ignored."""
        task = self._repository.tasks.get(event.task_run_external_id)
        if task is not None and task.retry_count == event.retry_count and task.status is TaskStatus.RUNNING:
            self._apply(task, event)
        return pb.ActionEventResponse(tenant_id=self._tenant_id, worker_id=event.worker_id)

    def _apply(self, task: Task, event: pb.StepActionEvent) -> None:
        if event.event_type == pb.STEP_EVENT_TYPE_STARTED:
            self._lifecycle.attempt_started(task)
        elif event.event_type == pb.STEP_EVENT_TYPE_COMPLETED:
            self._lifecycle.attempt_completed(task, event.event_payload)
        elif event.event_type == pb.STEP_EVENT_TYPE_FAILED:
            self._lifecycle.attempt_failed(
                task,
                event.event_payload,
                retryable=not event.should_not_retry,
                retry_after=event.retry_after_ms / 1000 if event.HasField("retry_after_ms") else None,
            )
        elif event.event_type == pb.STEP_EVENT_TYPE_CANCELLED:
            self._lifecycle.finish(task, TaskStatus.CANCELLED, message="cancelled by the worker")

    def _report_batch(self, event: pb.BatchActionEvent) -> pb.ActionEventResponse:
        self._batches.report(event)
        return pb.ActionEventResponse(tenant_id=self._tenant_id, worker_id=event.worker_id)


class AttemptMethods:
    """Requests of a running task about its own attempt.

    Args:
        clock: times.
        repository: where tasks are found.
        lifecycle: frees slots.
        timeouts: extends deadlines.
    """

    def __init__(self, clock: Clock, repository: Repository, lifecycle: Lifecycle, timeouts: Timeouts) -> None:
        self._clock = clock
        self._repository = repository
        self._lifecycle = lifecycle
        self._timeouts = timeouts

    def table(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "RefreshTimeout": unary(pb.RefreshTimeoutRequest, self._refresh_timeout),
            "ReleaseSlot": unary(pb.ReleaseSlotRequest, self._release_slot),
        }

    def _refresh_timeout(self, request: pb.RefreshTimeoutRequest) -> pb.RefreshTimeoutResponse:
        """Extend the deadline, counted from the current one. As in Hatchet, an extension of 0 is NOT_FOUND."""
        increment = parse_duration(request.increment_timeout_by)
        task = self._running(request.task_run_external_id)
        if increment == 0:
            raise NotFoundError(f"task {task.id} is extended by {request.increment_timeout_by!r}, which is nothing")
        remaining = self._timeouts.extend(task, increment)
        self._lifecycle.record(task, "TIMEOUT_REFRESHED", f"Timeout refreshed by {request.increment_timeout_by}")
        return pb.RefreshTimeoutResponse(timeout_at=timestamp(self._clock.now() + timedelta(seconds=remaining)))

    def _release_slot(self, request: pb.ReleaseSlotRequest) -> pb.ReleaseSlotResponse:
        task = self._running(request.task_run_external_id)
        self._lifecycle.release_slots(task)
        self._lifecycle.record(task, "SLOT_RELEASED")
        return pb.ReleaseSlotResponse()

    def _running(self, task_id: str) -> Task:
        task = self._repository.task(task_id)
        if task.status is not TaskStatus.RUNNING:
            raise NotFoundError(f"task {task_id} is not running")
        return task
