"""``Dispatcher``: what workers say and hear, and who waits for results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc

from mageflow.engine.actions import timestamp
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.durations import parse_duration
from mageflow.engine.errors import InvalidRequestError, NotFoundError
from mageflow.engine.model import Run, Task, TaskStatus
from mageflow.engine.results import ResultStream
from mageflow.engine.rpc.table import bidirectional, server_stream, service, unary
from mageflow.engine.settings import ENGINE_VERSION
from mageflow.engine.workers import labels_of

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


class Dispatcher:
    """The service."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service's table."""
        return service(
            "Dispatcher",
            {
                "GetVersion": unary(pb.GetVersionRequest, self._get_version),
                "Register": unary(pb.WorkerRegisterRequest, self._register),
                "ListenV2": server_stream(pb.WorkerListenRequest, self._listen),
                "Heartbeat": unary(pb.HeartbeatRequest, self._heartbeat),
                "Unsubscribe": unary(pb.WorkerUnsubscribeRequest, self._unsubscribe),
                "UpsertWorkerLabels": unary(pb.UpsertWorkerLabelsRequest, self._upsert_labels),
                "SendStepActionEvent": unary(pb.StepActionEvent, self._step_event),
                "SendBatchActionEvent": unary(pb.BatchActionEvent, self._batch_event),
                "SubscribeToWorkflowRuns": bidirectional(pb.SubscribeToWorkflowRunsRequest, self._results),
                "SubscribeToWorkflowEvents": server_stream(pb.SubscribeToWorkflowEventsRequest, self._run_events),
                "RefreshTimeout": unary(pb.RefreshTimeoutRequest, self._refresh_timeout),
                "ReleaseSlot": unary(pb.ReleaseSlotRequest, self._release_slot),
                "RestoreEvictedTask": unary(pb.RestoreEvictedTaskRequest, self._restore),
            },
        )

    # -- workers -------------------------------------------------------------------------------------------------

    def _get_version(self, _request: pb.GetVersionRequest) -> pb.GetVersionResponse:
        return pb.GetVersionResponse(version=ENGINE_VERSION)

    def _register(self, request: pb.WorkerRegisterRequest) -> pb.WorkerRegisterResponse:
        if not request.worker_name:
            raise InvalidRequestError("a worker needs a name")
        worker = self._engine.workers.register(request)
        return pb.WorkerRegisterResponse(tenant_id=self._engine.tenant_id, worker_id=worker.id, worker_name=worker.name)

    async def _listen(self, request: pb.WorkerListenRequest) -> AsyncIterator[pb.AssignedAction]:
        worker = self._engine.store.worker(request.worker_id)
        async for action in self._engine.workers.listen(worker):
            yield action

    def _heartbeat(self, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        self._engine.workers.heartbeat(request.worker_id)
        return pb.HeartbeatResponse()

    def _unsubscribe(self, request: pb.WorkerUnsubscribeRequest) -> pb.WorkerUnsubscribeResponse:
        return pb.WorkerUnsubscribeResponse(tenant_id=self._engine.tenant_id, worker_id=request.worker_id)

    def _upsert_labels(self, request: pb.UpsertWorkerLabelsRequest) -> pb.UpsertWorkerLabelsResponse:
        worker = self._engine.store.worker(request.worker_id)
        self._engine.workers.upsert_labels(worker, labels_of(request.labels))
        return pb.UpsertWorkerLabelsResponse(tenant_id=self._engine.tenant_id, worker_id=worker.id)

    # -- ends and progress of attempts ---------------------------------------------------------------------------

    def _step_event(self, event: pb.StepActionEvent) -> pb.ActionEventResponse:
        """Take a worker's report; anything about another attempt or an ended task is answered OK and ignored."""
        task = self._engine.store.tasks.get(event.task_run_external_id)
        if task is not None and task.retry_count == event.retry_count and task.status is TaskStatus.RUNNING:
            self._apply(task, event)
        return pb.ActionEventResponse(tenant_id=self._engine.tenant_id, worker_id=event.worker_id)

    def _apply(self, task: Task, event: pb.StepActionEvent) -> None:
        lifecycle = self._engine.lifecycle
        if event.event_type == pb.STEP_EVENT_TYPE_STARTED:
            lifecycle.attempt_started(task)
        elif event.event_type == pb.STEP_EVENT_TYPE_COMPLETED:
            lifecycle.attempt_completed(task, event.event_payload)
        elif event.event_type == pb.STEP_EVENT_TYPE_FAILED:
            lifecycle.attempt_failed(
                task,
                event.event_payload,
                retryable=not event.should_not_retry,
                retry_after=event.retry_after_ms / 1000 if event.HasField("retry_after_ms") else None,
            )
        elif event.event_type == pb.STEP_EVENT_TYPE_CANCELLED:
            lifecycle.finish(task, TaskStatus.CANCELLED, message="cancelled by the worker")

    def _batch_event(self, event: pb.BatchActionEvent) -> pb.ActionEventResponse:
        self._engine.batches.event(event)
        return pb.ActionEventResponse(tenant_id=self._engine.tenant_id, worker_id=event.worker_id)

    def _refresh_timeout(self, request: pb.RefreshTimeoutRequest) -> pb.RefreshTimeoutResponse:
        """Push the deadline out, counted from the current deadline. Hatchet answers NOT_FOUND to nothing at all."""
        increment = parse_duration(request.increment_timeout_by)
        task = self._running(request.task_run_external_id)
        if increment == 0:
            raise NotFoundError(f"task {task.id} is extended by {request.increment_timeout_by!r}, which is nothing")
        clock = self._engine.clock
        remaining = (task.deadline or clock.monotonic()) - clock.monotonic() + increment
        self._engine.lifecycle.start_deadline(task, remaining)
        self._engine.lifecycle.record(task, "TIMEOUT_REFRESHED", f"timeout refreshed by {request.increment_timeout_by}")
        return pb.RefreshTimeoutResponse(timeout_at=timestamp(clock.now() + timedelta(seconds=remaining)))

    def _release_slot(self, request: pb.ReleaseSlotRequest) -> pb.ReleaseSlotResponse:
        task = self._running(request.task_run_external_id)
        self._engine.lifecycle.release_slots(task)
        self._engine.lifecycle.record(task, "SLOT_RELEASED")
        return pb.ReleaseSlotResponse()

    def _restore(self, request: pb.RestoreEvictedTaskRequest) -> pb.RestoreEvictedTaskResponse:
        task = self._engine.store.task(request.task_run_external_id)
        return pb.RestoreEvictedTaskResponse(requeued=self._engine.durable.restore(task))

    def _running(self, task_id: str) -> Task:
        task = self._engine.store.task(task_id)
        if task.status is not TaskStatus.RUNNING:
            raise NotFoundError(f"task {task_id} is not running")
        return task

    # -- subscriptions -------------------------------------------------------------------------------------------

    async def _results(
        self, requests: AsyncIterator[pb.SubscribeToWorkflowRunsRequest]
    ) -> AsyncIterator[pb.WorkflowRunEvent]:
        stream = ResultStream()
        reader = asyncio.ensure_future(self._read_ids(stream, requests))
        try:
            while True:
                yield await stream.queue.get()
        finally:
            reader.cancel()
            self._engine.results.close(stream)

    async def _read_ids(self, stream: ResultStream, requests: AsyncIterator[pb.SubscribeToWorkflowRunsRequest]) -> None:
        # The client may half-close and still wait for answers, so the end of its ids is not the end of the stream.
        async for request in requests:
            self._engine.results.subscribe(stream, request.workflow_run_id)

    async def _run_events(self, request: pb.SubscribeToWorkflowEventsRequest) -> AsyncIterator[pb.WorkflowEvent]:
        events = self._engine.run_events
        if request.workflow_run_id:
            run: Run = self._engine.store.run(request.workflow_run_id)
            queue = events.subscribe(run)
            try:
                while True:
                    event = await queue.get()
                    yield event
                    if event.hangup:
                        return
            finally:
                events.unsubscribe(run, queue)
        key, value = request.additional_meta_key, request.additional_meta_value
        if not key:
            raise InvalidRequestError("subscribe with a workflow_run_id, or with additional_meta_key and its value")
        queue = events.subscribe_metadata(key, value)
        try:
            while True:
                yield await queue.get()
        finally:
            events.unsubscribe_metadata(key, value, queue)
