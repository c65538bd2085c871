"""Messages with random content in any order: a fitting status for each, and an engine that lives on."""

import asyncio
import json
import random
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mageflow.engine import LocalEngine
from mageflow.engine.contracts import dispatcher_pb2 as dispatcher
from mageflow.engine.contracts import events_pb2 as events
from mageflow.engine.contracts import trigger_pb2 as trigger
from mageflow.engine.contracts import v1_dispatcher_pb2 as durable
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from mageflow.engine.contracts import workflows_pb2 as workflows
from tests.engine.raw_client import RawClient, outputs, task, unique

CALLS: list[tuple[str, type[Message], type[Message]]] = [
    ("v1.AdminService/PutWorkflow", v1.CreateWorkflowVersionRequest, v1.CreateWorkflowVersionResponse),
    ("v1.AdminService/GetRunDetails", v1.GetRunDetailsRequest, v1.GetRunDetailsResponse),
    ("WorkflowService/TriggerWorkflow", trigger.TriggerWorkflowRequest, workflows.TriggerWorkflowResponse),
    ("WorkflowService/ScheduleWorkflow", workflows.ScheduleWorkflowRequest, workflows.WorkflowVersion),
    ("WorkflowService/PutRateLimit", workflows.PutRateLimitRequest, workflows.PutRateLimitResponse),
    ("Dispatcher/Register", dispatcher.WorkerRegisterRequest, dispatcher.WorkerRegisterResponse),
    ("Dispatcher/Heartbeat", dispatcher.HeartbeatRequest, dispatcher.HeartbeatResponse),
    ("Dispatcher/SendStepActionEvent", dispatcher.StepActionEvent, dispatcher.ActionEventResponse),
    ("Dispatcher/SendBatchActionEvent", dispatcher.BatchActionEvent, dispatcher.ActionEventResponse),
    ("Dispatcher/RefreshTimeout", dispatcher.RefreshTimeoutRequest, dispatcher.RefreshTimeoutResponse),
    ("Dispatcher/ReleaseSlot", dispatcher.ReleaseSlotRequest, dispatcher.ReleaseSlotResponse),
    ("Dispatcher/UpsertWorkerLabels", dispatcher.UpsertWorkerLabelsRequest, dispatcher.UpsertWorkerLabelsResponse),
    ("EventsService/Push", events.PushEventRequest, events.Event),
    ("EventsService/PutLog", events.PutLogRequest, events.PutLogResponse),
    ("EventsService/PutStreamEvent", events.PutStreamEventRequest, events.PutStreamEventResponse),
]
# The statuses of refusals. UNKNOWN and INTERNAL would be failures of the engine.
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
}
TEXTS = [
    "",
    "a",
    "work",
    "0",
    "1h",
    "-5s",
    "{}",
    "[]",
    "null",
    '{"n": 1}',
    "input.n",
    "'x'",
    "1 +",
    "* * * * *",
    "ü\x00",
]
SPOIL = 0.12


def sensible(method: str, name: str, run: str, worker: str) -> dict[str, Any]:
    """Return the fields of a call that would do something; a storm spoils some of them."""
    tasks = [{"readable_id": each, "action": f"{name}:{each}", "timeout": "1m"} for each in ("work", "more")]
    return {
        "v1.AdminService/PutWorkflow": {"name": name, "tasks": tasks, "event_triggers": ["storm:*"]},
        "v1.AdminService/GetRunDetails": {"external_id": run},
        "WorkflowService/TriggerWorkflow": {"name": name, "input": "{}", "priority": 1},
        "WorkflowService/ScheduleWorkflow": {"name": name, "input": "{}", "schedules": [{"seconds": 1}]},
        "WorkflowService/PutRateLimit": {"key": name, "limit": 5, "duration": 0},
        "Dispatcher/Register": {"worker_name": name, "actions": [f"{name}:more"], "slot_config": {"default": 1}},
        "Dispatcher/Heartbeat": {"worker_id": worker},
        "Dispatcher/SendStepActionEvent": {"worker_id": worker, "task_run_external_id": run, "event_type": 3},
        "Dispatcher/SendBatchActionEvent": {"worker_id": worker, "items": [{"task_run_external_id": run}]},
        "Dispatcher/RefreshTimeout": {"task_run_external_id": run, "increment_timeout_by": "5s"},
        "Dispatcher/ReleaseSlot": {"task_run_external_id": run},
        "Dispatcher/UpsertWorkerLabels": {"worker_id": worker, "labels": {"a": {"str_value": "b"}}},
        "EventsService/Push": {"key": "storm:x", "payload": "{}"},
        "EventsService/PutLog": {"task_run_external_id": run, "message": "a line"},
        "EventsService/PutStreamEvent": {"task_run_external_id": run, "message": b"a chunk", "event_index": 0},
    }[method]


def spoil(message: Message, source: random.Random, odds: float = SPOIL, depth: int = 0) -> None:
    """Put plausible nonsense into some fields of a message, and into messages inside it."""
    for descriptor in message.DESCRIPTOR.fields:
        if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
            continue
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE:
            value = getattr(message, descriptor.name)
            inner = list(value) if descriptor.is_repeated else [value] if message.HasField(descriptor.name) else []
            if source.random() < odds and depth < 3:
                inner.append(value.add() if descriptor.is_repeated else value)
            for each in inner:
                spoil(each, source, odds, depth + 1)
        elif source.random() < odds:
            values = [nonsense(descriptor, source) for _ in range(source.randint(1, 2))]
            if descriptor.is_repeated:
                getattr(message, descriptor.name).extend(values)
            else:
                setattr(message, descriptor.name, values[0])


def nonsense(descriptor: FieldDescriptor, source: random.Random) -> Any:
    """Return a value of the field's type."""
    kind = descriptor.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = source.choice(TEXTS)
        return text.encode() if descriptor.type == FieldDescriptor.TYPE_BYTES else text
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return source.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return source.choice([value.number for value in descriptor.enum_type.values])
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return source.choice([0.0, -1.5, 2.0, 1e300])
    return source.choice([0, 1, 2, 5, 2**31 - 1])


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_the_engine_survives_any_sequence_of_messages(engine: LocalEngine, seed: int) -> None:
    """Calls in any order with any content: each is answered with a fitting status, and the engine still runs tasks."""
    asyncio.run(storm(engine, random.Random(seed)))


async def storm(engine: LocalEngine, source: random.Random) -> None:
    """Send eighty spoilt calls and a spoilt durable stream while a worker works; then do real work."""
    async with aiohttp.ClientSession() as http:
        client = RawClient(engine.handshake, http)
        name = unique("storm")
        await client.put(name, task("work", name, retries=2, is_durable=source.random() < 0.5))
        async with client.worker(f"{name}:work", slots={"default": 5, "durable": 5}) as worker:
            run = await client.run(name)
            accepted = 0
            for _ in range(80):
                method, request_type, reply_type = source.choice(CALLS)
                request = request_type(**sensible(method, name, run, worker.id))
                spoil(request, source)
                try:
                    reply = await client.call(method, request, reply_type)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in REFUSALS:
                        pytest.fail(f"{method} answered {error} to {request}")
                else:
                    accepted += 1
                    run = getattr(reply, "workflow_run_id", run)
            # A storm of which nothing gets through would prove nothing.
            assert accepted > 10
            await spoilt_stream(client, source, run, worker.id)
        await still_works(client)
        await client.close()


async def spoilt_stream(client: RawClient, source: random.Random, task_id: str, worker_id: str) -> None:
    """Send nonsense on the durable stream; it must stay open."""
    answered = asyncio.Event()
    place = {"durable_task_external_id": task_id, "invocation_count": 1}
    kinds: list[dict[str, Any]] = [
        {"register_worker": {"worker_id": worker_id}},
        {"memo": {**place, "key": b"k"}},
        {"trigger_runs": {**place, "trigger_opts": [{"name": "storm", "input": "{}"}]}},
        {"wait_for": {**place, "wait_for_conditions": {"sleep_conditions": [{"sleep_for": "1s"}]}}},
        {"worker_status": {"waiting_entries": [{**place, "branch_id": 1, "node_id": 1}]}},
        {"complete_memo": {"ref": {**place, "branch_id": 1, "node_id": 1}, "payload": b"1"}},
        {"evict_invocation": place},
    ]

    async def requests() -> Any:
        for _ in range(30):
            request = durable.DurableTaskRequest(**source.choice(kinds))
            spoil(request, source, odds=0.05)
            yield request
        yield durable.DurableTaskRequest(
            evict_invocation=durable.DurableTaskEvictInvocationRequest(durable_task_external_id="last")
        )
        await answered.wait()

    call = client.bidirectional(
        "v1.V1Dispatcher/DurableTask", requests(), durable.DurableTaskRequest, durable.DurableTaskResponse
    )
    while True:
        response = await asyncio.wait_for(call.read(), 60)
        assert response is not grpc.aio.EOF, "the durable stream ended"
        if response.eviction_ack.durable_task_external_id == "last":
            break
    answered.set()
    call.cancel()


async def still_works(client: RawClient) -> None:
    """Run one task from start to end."""
    name = unique("alive")
    await client.put(name, task("work", name))
    async with client.worker(f"{name}:work") as worker:
        run = await client.run(name, {"n": 1})
        action = await worker.next()
        assert json.loads(action.action_payload)["input"] == {"n": 1}
        await worker.complete(action, {"alive": True})
        assert outputs(await client.result(run)) == {"work": {"alive": True}}
