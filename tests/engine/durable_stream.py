"""The durable stream of a worker, with requests that the test sends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from google.protobuf.message import Message

from mageflow.engine.contracts import condition_pb2 as conditions
from mageflow.engine.contracts import dispatcher_pb2 as dispatcher
from mageflow.engine.contracts import v1_dispatcher_pb2 as durable
from tests.engine.raw_client import TIMEOUT_SECONDS, ManualWorker, RawClient


class DurableStream:
    """One open stream: sends requests and reads responses by kind."""

    def __init__(self, client: RawClient, worker: ManualWorker) -> None:
        self._requests: asyncio.Queue[durable.DurableTaskRequest | None] = asyncio.Queue()
        self.call = client.bidirectional(
            "v1.V1Dispatcher/DurableTask", self._iterate(), durable.DurableTaskRequest, durable.DurableTaskResponse
        )
        self.send(register_worker=durable.DurableTaskRequestRegisterWorker(worker_id=worker.id))

    def send(self, **message: Message) -> None:
        """Send one request."""
        self._requests.put_nowait(durable.DurableTaskRequest(**message))

    async def next(self, kind: str, within: float = TIMEOUT_SECONDS) -> Any:
        """Return the next response, which must be of this kind."""
        response = await asyncio.wait_for(self.call.read(), within)
        assert response.WhichOneof("message") == kind, response
        return getattr(response, kind)

    async def sleep(self, action: dispatcher.AssignedAction, *seconds: str) -> Any:
        """Request a wait for several sleeps; return the reference of its entry."""
        listened = conditions.DurableEventListenerConditions(
            sleep_conditions=[
                conditions.SleepMatchCondition(
                    base=conditions.BaseMatchCondition(readable_data_key=f"sleep:{each}", or_group_id=str(uuid4())),
                    sleep_for=each,
                )
                for each in seconds
            ]
        )
        return await self.wait(action, listened)

    async def wait(self, action: dispatcher.AssignedAction, listened: conditions.DurableEventListenerConditions) -> Any:
        """Request a wait; return the reference of its entry."""
        self.send(
            wait_for=durable.DurableTaskWaitForRequest(
                invocation_count=action.durable_task_invocation_count,
                durable_task_external_id=action.task_run_external_id,
                wait_for_conditions=listened,
            )
        )
        return (await self.next("wait_for_ack")).ref

    def declare(self, *entries: Any) -> None:
        """Declare that the worker waits for these entries."""
        self.send(
            worker_status=durable.DurableTaskWorkerStatusRequest(
                waiting_entries=[
                    durable.DurableTaskAwaitedCompletedEntry(
                        durable_task_external_id=each.durable_task_external_id,
                        branch_id=each.branch_id,
                        node_id=each.node_id,
                        invocation_count=each.invocation_count,
                    )
                    for each in entries
                ]
            )
        )

    def evict(self, action: dispatcher.AssignedAction) -> None:
        """Give the invocation up."""
        self.send(
            evict_invocation=durable.DurableTaskEvictInvocationRequest(
                invocation_count=action.durable_task_invocation_count,
                durable_task_external_id=action.task_run_external_id,
                reason="test",
            )
        )

    async def _iterate(self) -> AsyncIterator[durable.DurableTaskRequest]:
        while (request := await self._requests.get()) is not None:
            yield request
