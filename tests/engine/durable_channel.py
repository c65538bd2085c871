"""A worker's durable stream in the test's hands."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

from google.protobuf.message import Message

from mageflow.engine.contracts import condition_pb2 as conditions
from mageflow.engine.contracts import dispatcher_pb2 as dispatcher
from mageflow.engine.contracts import v1_dispatcher_pb2 as durable
from tests.engine.wire import PATIENCE, HandWorker, Wire


class DurableChannel:
    """A worker's durable stream: requests as the test sends them, responses by kind."""

    def __init__(self, wire: Wire, worker: HandWorker) -> None:
        self._requests: asyncio.Queue[durable.DurableTaskRequest | None] = asyncio.Queue()
        self.call = wire.bidirectional(
            "v1.V1Dispatcher/DurableTask", self._iterate(), durable.DurableTaskRequest, durable.DurableTaskResponse
        )
        self.send(register_worker=durable.DurableTaskRequestRegisterWorker(worker_id=worker.id))

    def send(self, **message: Message) -> None:
        """Send one request."""
        self._requests.put_nowait(durable.DurableTaskRequest(**message))

    async def next(self, kind: str, within: float = PATIENCE) -> Any:
        """Return the next response, which must be of this kind."""
        response = await asyncio.wait_for(self.call.read(), within)
        assert response.WhichOneof("message") == kind, response
        return getattr(response, kind)

    async def sleep(self, action: dispatcher.AssignedAction, *seconds: str) -> Any:
        """Ask for a wait on sleeps, all of which must pass; return its place."""
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
        """Ask for a wait; return its place."""
        self.send(
            wait_for=durable.DurableTaskWaitForRequest(
                invocation_count=action.durable_task_invocation_count,
                durable_task_external_id=action.task_run_external_id,
                wait_for_conditions=listened,
            )
        )
        return (await self.next("wait_for_ack")).ref

    def declare(self, *places: Any) -> None:
        """Say that these entries are waited for."""
        self.send(
            worker_status=durable.DurableTaskWorkerStatusRequest(
                waiting_entries=[
                    durable.DurableTaskAwaitedCompletedEntry(
                        durable_task_external_id=each.durable_task_external_id,
                        branch_id=each.branch_id,
                        node_id=each.node_id,
                        invocation_count=each.invocation_count,
                    )
                    for each in places
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
