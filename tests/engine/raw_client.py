"""A client that sends single messages of the engine's protocol, and workers whose reports the test sends.

The SDK never sends an old retry count, opens two streams or lets a chunk overtake another on purpose; these tests do.
The messages are the SDK's own contracts, and the calls are real gRPC.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
from google.protobuf.message import Message

from mageflow.engine import Handshake
from mageflow.engine.contracts import dispatcher_pb2 as dispatcher
from mageflow.engine.contracts import events_pb2 as events
from mageflow.engine.contracts import trigger_pb2 as trigger
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from mageflow.engine.contracts import workflows_pb2 as workflows

TIMEOUT_SECONDS = 60.0
"""Answers come in milliseconds, on a machine that is busy with a test suite in many times that."""
_HEARTBEAT_SECONDS = 0.5


def unique(name: str) -> str:
    """Return a name no other test uses: the engine lives for the whole session."""
    return f"{name}-{uuid4().hex[:8]}"


def task(name: str, workflow: str, **options: Any) -> v1.CreateTaskOpts:
    """Return a task declaration with the SDK's defaults."""
    return v1.CreateTaskOpts(
        **{
            "readable_id": name,
            "action": f"{workflow}:{name}".lower(),
            "timeout": "60s",
            "schedule_timeout": "5m",
            **options,
        }
    )


class ManualWorker:
    """A registered worker whose stream the test opens and closes."""

    def __init__(self, client: "RawClient", worker_id: str) -> None:
        self.client = client
        self.id = worker_id
        self.actions: asyncio.Queue[dispatcher.AssignedAction] = asyncio.Queue()
        self._stream: asyncio.Task[None] | None = None
        self._call: Any = None
        self._heartbeats: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the action stream and wait until the worker is active."""
        self._call = self.client.stream(
            "Dispatcher/ListenV2", dispatcher.WorkerListenRequest(worker_id=self.id), dispatcher.AssignedAction
        )
        self._stream = asyncio.create_task(self._read(self._call))
        if self._heartbeats is None:
            self._heartbeats = asyncio.create_task(self._send_heartbeats())
        await self.client.until(self._is_active, "the worker's stream to be open")

    async def close(self) -> None:
        """Break the stream and stop the heartbeats, as a process that dies."""
        if self._heartbeats is not None:
            self._heartbeats.cancel()
            self._heartbeats = None
        if self._stream is not None:
            self._call.cancel()
            await asyncio.gather(self._stream, return_exceptions=True)
            self._stream = None

    async def next(self, within: float = TIMEOUT_SECONDS) -> dispatcher.AssignedAction:
        """Return the next action."""
        return await asyncio.wait_for(self.actions.get(), within)

    async def idle(self, seconds: float = 0.3) -> bool:
        """Return whether no action arrives in this time."""
        try:
            await asyncio.wait_for(self.actions.get(), seconds)
        except TimeoutError:
            return True
        return False

    async def report(self, action: dispatcher.AssignedAction, kind: int, payload: str = "", **fields: Any) -> None:
        """Send a step event about an action's attempt."""
        event = dispatcher.StepActionEvent(
            **{
                "worker_id": self.id,
                "task_run_external_id": action.task_run_external_id,
                "action_id": action.action_id,
                "event_type": kind,
                "event_payload": payload,
                "retry_count": action.retry_count,
                **fields,
            }
        )
        await self.client.call("Dispatcher/SendStepActionEvent", event, dispatcher.ActionEventResponse)

    async def start(self, action: dispatcher.AssignedAction) -> None:
        """Report STARTED."""
        await self.report(action, dispatcher.STEP_EVENT_TYPE_STARTED)

    async def complete(self, action: dispatcher.AssignedAction, output: object = None, **fields: Any) -> None:
        """Report COMPLETED with JSON output."""
        payload = json.dumps(output if output is not None else {})
        await self.report(action, dispatcher.STEP_EVENT_TYPE_COMPLETED, payload, **fields)

    async def fail(self, action: dispatcher.AssignedAction, error: str = "boom", **fields: Any) -> None:
        """Report FAILED."""
        await self.report(action, dispatcher.STEP_EVENT_TYPE_FAILED, error, **fields)

    async def heartbeat(self) -> None:
        """Send one heartbeat."""
        await self.client.call(
            "Dispatcher/Heartbeat", dispatcher.HeartbeatRequest(worker_id=self.id), dispatcher.HeartbeatResponse
        )

    async def _send_heartbeats(self) -> None:
        while True:
            await self.heartbeat()
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _is_active(self) -> bool:
        return (await self.client.get(f"/api/v1/workers/{self.id}"))["status"] == "ACTIVE"

    async def _read(self, call: AsyncIterator[dispatcher.AssignedAction]) -> None:
        async for action in call:
            self.actions.put_nowait(action)


class RawClient:
    """One client: gRPC and REST calls with its token. ``session`` makes HTTP requests without the token."""

    def __init__(self, handshake: Handshake, http: Any, *, token: str | None = None) -> None:
        self.handshake = handshake
        self.tenant = f"/api/v1/tenants/{handshake.tenant_id}"
        self.stable = f"/api/v1/stable/tenants/{handshake.tenant_id}"
        self._token = token or handshake.token
        self._metadata = (("authorization", f"bearer {self._token}"),)
        self.session = http
        self._channel = grpc.aio.insecure_channel(
            handshake.grpc_address, options=[("grpc.max_send_message_length", -1)]
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    # -- transport -----------------------------------------------------------------------------------------------

    async def call(self, method: str, request: Message, reply: type[Any]) -> Any:
        """Make a unary call."""
        unary = self._channel.unary_unary(
            f"/{method}", request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        return await unary(request, metadata=self._metadata, timeout=TIMEOUT_SECONDS)

    def stream(self, method: str, request: Message, reply: type[Any]) -> Any:
        """Open a server stream."""
        opened = self._channel.unary_stream(
            f"/{method}", request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        return opened(request, metadata=self._metadata)

    def bidirectional(self, method: str, requests: AsyncIterator[Any], kind: type[Any], reply: type[Any]) -> Any:
        """Open a stream in both directions."""
        opened = self._channel.stream_stream(
            f"/{method}", request_serializer=kind.SerializeToString, response_deserializer=reply.FromString
        )
        return opened(requests, metadata=self._metadata)

    async def http(self, verb: str, path: str, body: object = None, **query: Any) -> tuple[int, Any]:
        """Make a REST call; return status and JSON."""
        headers = {"Authorization": f"Bearer {self._token}"}
        url = self.handshake.api_url + path
        async with self.session.request(verb, url, json=body, params=query or None, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def get(self, path: str, **query: Any) -> Any:
        """GET that must succeed."""
        status, document = await self.http("GET", path, **query)
        assert status == 200, document
        return document

    async def post(self, path: str, body: object) -> Any:
        """POST that must succeed."""
        status, document = await self.http("POST", path, body)
        assert status == 200, document
        return document

    async def until(self, condition: Any, what: str, within: float = TIMEOUT_SECONDS) -> None:
        """Wait for a condition given as an async function."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while not await condition():
            assert loop.time() < deadline, f"waited {within} s for {what}"
            await asyncio.sleep(0.02)

    # -- what clients do -----------------------------------------------------------------------------------------

    async def put(self, name: str, *tasks: v1.CreateTaskOpts, **options: Any) -> Any:
        """Register a workflow."""
        request = v1.CreateWorkflowVersionRequest(name=name, tasks=tasks, **options)
        return await self.call("v1.AdminService/PutWorkflow", request, v1.CreateWorkflowVersionResponse)

    async def run(self, name: str, input: object = None, **options: Any) -> str:
        """Trigger a workflow; return the run id."""
        request = trigger.TriggerWorkflowRequest(name=name, input=json.dumps(input or {}), **options)
        reply = await self.call("WorkflowService/TriggerWorkflow", request, workflows.TriggerWorkflowResponse)
        return reply.workflow_run_id

    async def details(self, run_id: str) -> v1.GetRunDetailsResponse:
        """Return GetRunDetails."""
        return await self.call(
            "v1.AdminService/GetRunDetails", v1.GetRunDetailsRequest(external_id=run_id), v1.GetRunDetailsResponse
        )

    async def result(self, run_id: str, within: float = TIMEOUT_SECONDS) -> dispatcher.WorkflowRunEvent:
        """Return the run's result event."""

        async def ask() -> AsyncIterator[Any]:
            yield dispatcher.SubscribeToWorkflowRunsRequest(workflow_run_id=run_id)
            await asyncio.Event().wait()

        call = self.bidirectional(
            "Dispatcher/SubscribeToWorkflowRuns",
            ask(),
            dispatcher.SubscribeToWorkflowRunsRequest,
            dispatcher.WorkflowRunEvent,
        )
        try:
            return await asyncio.wait_for(call.read(), within)
        finally:
            call.cancel()

    async def status(self, run_id: str) -> str:
        """Return the run's status word."""
        return await self.get(f"/api/v1/stable/workflow-runs/{run_id}/status")

    async def reaches(self, run_id: str, status: str, within: float = TIMEOUT_SECONDS) -> None:
        """Wait until the run has a status."""

        async def there() -> bool:
            return await self.status(run_id) == status

        await self.until(there, f"run {run_id} to be {status}", within)

    async def history(self, run_id: str) -> list[str]:
        """Return the event types of all tasks, oldest first."""
        document = await self.get(f"/api/v1/stable/workflow-runs/{run_id}")
        # Hatchet keeps the events of a run with one task with the task alone.
        events = document["taskEvents"] or (await self.get(f"/api/v1/stable/tasks/{run_id}/task-events"))["rows"]
        return [event["eventType"] for event in reversed(events)]

    async def push(self, key: str, payload: object = None, **options: Any) -> events.Event:
        """Push an event."""
        request = events.PushEventRequest(key=key, payload=json.dumps(payload or {}), **options)
        return await self.call("EventsService/Push", request, events.Event)

    async def register(
        self,
        *actions: str,
        slots: Mapping[str, int] | None = None,
        labels: Mapping[str, str | int] | None = None,
    ) -> ManualWorker:
        """Register a worker; its stream is still closed."""
        request = dispatcher.WorkerRegisterRequest(
            worker_name=unique("worker"), actions=actions, slot_config=slots or {"default": 10}
        )
        for key, value in (labels or {}).items():
            if isinstance(value, int):
                request.labels[key].int_value = value
            else:
                request.labels[key].str_value = value
        reply = await self.call("Dispatcher/Register", request, dispatcher.WorkerRegisterResponse)
        return ManualWorker(self, reply.worker_id)

    @asynccontextmanager
    async def worker(self, *actions: str, **options: Any) -> AsyncIterator[ManualWorker]:
        """A worker with an open stream."""
        worker = await self.register(*actions, **options)
        await worker.open()
        try:
            yield worker
        finally:
            await worker.close()


def labels(**wishes: tuple[str | int, bool]) -> dict[str, trigger.DesiredWorkerLabels]:
    """Return desired labels: value and whether it is required."""
    return {
        key: trigger.DesiredWorkerLabels(
            **({"int_value": value} if isinstance(value, int) else {"str_value": value}), required=required
        )
        for key, (value, required) in wishes.items()
    }


def outputs(event: dispatcher.WorkflowRunEvent) -> dict[str, Any]:
    """Return completed outputs by task name."""
    return {each.task_name: json.loads(each.output) for each in event.results if each.output}


def errors(event: dispatcher.WorkflowRunEvent) -> dict[str, str]:
    """Return errors of failed and cancelled tasks by task name."""
    return {each.task_name: each.error for each in event.results if not each.output}
