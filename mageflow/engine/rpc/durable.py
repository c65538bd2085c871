"""``v1.V1Dispatcher``: one stream per worker for the requests of all its durable tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import grpc

from mageflow.engine.contracts import dispatcher_pb2
from mageflow.engine.contracts import v1_dispatcher_pb2 as pb
from mageflow.engine.durable import DurableStream, DurableTasks
from mageflow.engine.durable.log import DurableLog, Entry, NonDeterminismError
from mageflow.engine.durable.waits import conditions_of
from mageflow.engine.errors import RequestError
from mageflow.engine.repository import Repository
from mageflow.engine.rpc.table import Handler, bidirectional, service, unary
from mageflow.engine.rpc.trigger import trigger_from

_log = logging.getLogger("mageflow.engine.rpc")


class DurableService:
    """The service.

    Args:
        repository: where tasks are found.
        durable: the logs of durable tasks.
    """

    def __init__(self, repository: Repository, durable: DurableTasks) -> None:
        self._repository = repository
        self._durable = durable

    def dispatcher_table(self) -> dict[str, Handler]:
        """Return the method about durable tasks that belongs to ``Dispatcher``, by name."""
        return {"RestoreEvictedTask": unary(dispatcher_pb2.RestoreEvictedTaskRequest, self._restore)}

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service. The two methods of engines before v0.80.0 are UNIMPLEMENTED."""
        return service("v1.V1Dispatcher", {"DurableTask": bidirectional(pb.DurableTaskRequest, self._durable_task)})

    def _restore(self, request: dispatcher_pb2.RestoreEvictedTaskRequest) -> dispatcher_pb2.RestoreEvictedTaskResponse:
        task = self._repository.task(request.task_run_external_id)
        return dispatcher_pb2.RestoreEvictedTaskResponse(requeued=self._durable.restore(task))

    async def _durable_task(
        self, requests: AsyncIterator[pb.DurableTaskRequest]
    ) -> AsyncIterator[pb.DurableTaskResponse]:
        stream = DurableStream()
        reader = asyncio.ensure_future(self._read(stream, requests))
        try:
            while (response := await stream.responses.get()) is not None:
                yield response
        finally:
            reader.cancel()
            self._durable.close(stream)

    async def _read(self, stream: DurableStream, requests: AsyncIterator[pb.DurableTaskRequest]) -> None:
        try:
            async for request in requests:
                self._handle(stream, request)
        finally:
            stream.responses.put_nowait(None)

    def _handle(self, stream: DurableStream, request: pb.DurableTaskRequest) -> None:
        """Answer one request. An exception must not end the stream, which serves every durable run of the worker."""
        kind = request.WhichOneof("message")
        try:
            if kind == "register_worker":
                worker_id = request.register_worker.worker_id
                self._durable.bind(worker_id, stream)
                reply = pb.DurableTaskResponseRegisterWorker(worker_id=worker_id)
                stream.responses.put_nowait(pb.DurableTaskResponse(register_worker=reply))
            elif kind == "worker_status":
                self._worker_status(stream, request.worker_status)
            elif kind == "wait_for":
                self._wait_for(stream, request.wait_for)
            elif kind == "trigger_runs":
                self._trigger_runs(stream, request.trigger_runs)
            elif kind == "memo":
                self._memo(stream, request.memo)
            elif kind == "complete_memo":
                self._complete_memo(request.complete_memo)
            elif kind == "evict_invocation":
                self._evict(stream, request.evict_invocation)
        except Exception:  # noqa: BLE001 - see the docstring
            _log.exception("durable request %s failed", kind)

    def _wait_for(self, stream: DurableStream, request: pb.DurableTaskWaitForRequest) -> None:
        log = self._log_of(stream, request.durable_task_external_id, request.invocation_count)
        if log is None:
            return
        try:
            entry = self._durable.wait_for(log, conditions_of(request.wait_for_conditions))
        except (NonDeterminismError, RequestError) as error:
            _refuse(stream, log, error)
            return
        ack = pb.DurableTaskEventWaitForAckResponse(ref=_ref(log, entry))
        stream.responses.put_nowait(pb.DurableTaskResponse(wait_for_ack=ack))

    def _trigger_runs(self, stream: DurableStream, request: pb.DurableTaskTriggerRunsRequest) -> None:
        log = self._log_of(stream, request.durable_task_external_id, request.invocation_count)
        if log is None:
            return
        try:
            entries = [self._durable.spawn(log, trigger_from(each)) for each in request.trigger_opts]
        except (NonDeterminismError, RequestError) as error:
            _refuse(stream, log, error)
            return
        ack = pb.DurableTaskEventTriggerRunsAckResponse(
            durable_task_external_id=log.task.id,
            invocation_count=log.task.invocation,
            run_entries=[
                pb.DurableTaskRunAckEntry(
                    node_id=entry.node,
                    branch_id=entry.branch,
                    workflow_run_external_id=entry.child_id,
                )
                for entry in entries
            ],
        )
        stream.responses.put_nowait(pb.DurableTaskResponse(trigger_runs_ack=ack))

    def _memo(self, stream: DurableStream, request: pb.DurableTaskMemoRequest) -> None:
        log = self._log_of(stream, request.durable_task_external_id, request.invocation_count)
        if log is None:
            return
        payload = request.payload if request.HasField("payload") else None
        try:
            entry = self._durable.memo(log, request.key)
        except NonDeterminismError as error:
            _refuse(stream, log, error)
            return
        ack = pb.DurableTaskEventMemoAckResponse(ref=_ref(log, entry), memo_already_existed=entry.satisfied)
        if entry.satisfied:
            ack.memo_result_payload = entry.payload
        elif payload is not None:
            self._durable.complete_memo(log, entry.branch, entry.node, payload)
        stream.responses.put_nowait(pb.DurableTaskResponse(memo_ack=ack))

    def _complete_memo(self, request: pb.DurableTaskCompleteMemoRequest) -> None:
        # The invocation is not compared: the request may arrive after the report that ends the task.
        ref = request.ref
        task = self._repository.tasks.get(ref.durable_task_external_id)
        log = None if task is None else self._durable.log_of(task)
        if log is not None:
            self._durable.complete_memo(log, ref.branch_id, ref.node_id, request.payload)

    def _worker_status(self, stream: DurableStream, request: pb.DurableTaskWorkerStatusRequest) -> None:
        for each in request.waiting_entries:
            log = self._log_of(stream, each.durable_task_external_id, each.invocation_count)
            if log is not None:
                self._durable.waiting_for(log, each.branch_id, each.node_id)

    def _evict(self, stream: DurableStream, request: pb.DurableTaskEvictInvocationRequest) -> None:
        log = self._durable.current_log(request.durable_task_external_id, request.invocation_count)
        if log is not None:
            self._durable.evict(log, request.reason)
        # A request of an older invocation is acknowledged too: the worker waits for the answer.
        ack = pb.DurableTaskEvictionAckResponse(
            invocation_count=request.invocation_count, durable_task_external_id=request.durable_task_external_id
        )
        stream.responses.put_nowait(pb.DurableTaskResponse(eviction_ack=ack))

    def _log_of(self, stream: DurableStream, task_id: str, invocation: int) -> DurableLog | None:
        """Return the log of the running invocation. For any other, ask the worker to give it up and return None."""
        log = self._durable.current_log(task_id, invocation)
        if log is None:
            notice = pb.DurableTaskServerEvictNotice(
                durable_task_external_id=task_id,
                invocation_count=invocation,
                reason="this invocation is not the task's current one",
            )
            stream.responses.put_nowait(pb.DurableTaskResponse(server_evict=notice))
        return log


def _ref(log: DurableLog, entry: Entry) -> pb.DurableEventLogEntryRef:
    return pb.DurableEventLogEntryRef(
        durable_task_external_id=log.task.id,
        invocation_count=log.task.invocation,
        branch_id=entry.branch,
        node_id=entry.node,
    )


def _refuse(stream: DurableStream, log: DurableLog, error: NonDeterminismError | RequestError) -> None:
    is_nondeterminism = isinstance(error, NonDeterminismError)
    response = pb.DurableTaskErrorResponse(
        ref=pb.DurableEventLogEntryRef(
            durable_task_external_id=log.task.id,
            invocation_count=log.task.invocation,
            branch_id=error.branch if is_nondeterminism else log.active,
            node_id=error.node if is_nondeterminism else log.node + 1,
        ),
        error_type=pb.DURABLE_TASK_ERROR_TYPE_NONDETERMINISM
        if is_nondeterminism
        else pb.DURABLE_TASK_ERROR_TYPE_UNSPECIFIED,
        error_message=str(error),
    )
    stream.responses.put_nowait(pb.DurableTaskResponse(error=response))
