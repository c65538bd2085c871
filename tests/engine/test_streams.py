"""Events, run event streams, results, logs."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import pytest

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.contracts import events_pb2 as events
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from tests.engine.conftest import Single
from tests.engine.raw_client import TIMEOUT_SECONDS, RawClient, task, unique


async def put_chunk(client: RawClient, run: str, text: str, index: int | None) -> None:
    """Put one stream chunk."""
    request = events.PutStreamEventRequest(task_run_external_id=run, message=text.encode())
    if index is not None:
        request.event_index = index
    await client.call("EventsService/PutStreamEvent", request, events.PutStreamEventResponse)


def subscribe(client: RawClient, **selector: str) -> Any:
    """Open a run's event stream."""
    request = pb.SubscribeToWorkflowEventsRequest(**selector)
    return client.stream("Dispatcher/SubscribeToWorkflowEvents", request, pb.WorkflowEvent)


async def read_all(call: Any) -> list[pb.WorkflowEvent]:
    """Read to the end of the stream."""
    stream: list[pb.WorkflowEvent] = []
    while (event := await asyncio.wait_for(call.read(), TIMEOUT_SECONDS)) is not grpc.aio.EOF:
        stream.append(event)
    return stream


def chunks(stream: list[pb.WorkflowEvent]) -> list[str]:
    """Return the texts of the chunks."""
    return [event.event_payload for event in stream if event.event_type == pb.RESOURCE_EVENT_TYPE_STREAM]


@pytest.mark.parametrize("late", [False, True], ids=["live", "late"])
async def test_chunks_arrive_in_order_of_their_index(single: Single, late: bool) -> None:
    """Each chunk is a separate call and may overtake another. A late subscriber gets all chunks from the start."""
    client = single.client
    await single.declare()
    run = await client.run(single.name)
    action = await single.worker.next()
    await single.worker.start(action)
    live = subscribe(client, workflow_run_id=run)
    for index in (1, 0, 3, 2):
        await put_chunk(client, run, f"chunk {index}", index)
    await single.worker.complete(action, {"n": 1})
    await client.result(run)
    if late:
        live.cancel()
        live = subscribe(client, workflow_run_id=run)
    stream = await read_all(live)
    assert chunks(stream) == [f"chunk {index}" for index in range(4)]
    kinds = [event.event_type for event in stream]
    assert kinds[0] == pb.RESOURCE_EVENT_TYPE_STARTED
    assert kinds[-2:] == [pb.RESOURCE_EVENT_TYPE_COMPLETED] * 2
    assert (stream[-1].resource_type, stream[-1].hangup) == (pb.RESOURCE_TYPE_WORKFLOW_RUN, True)


async def test_a_chunk_that_never_comes_does_not_hold_back_the_rest(single: Single) -> None:
    """Later chunks wait a limited time for a missing one. At the end of the task all are sent."""
    client = single.client
    await single.declare()
    run = await client.run(single.name)
    action = await single.worker.next()
    live = subscribe(client, workflow_run_id=run)
    await put_chunk(client, run, "one", 1)
    assert (await asyncio.wait_for(live.read(), TIMEOUT_SECONDS)).event_payload == "one"
    await put_chunk(client, run, "five", 5)
    await single.worker.complete(action)
    assert chunks(await read_all(live)) == ["five"]


async def test_a_subscription_by_metadata_receives_the_events_of_every_such_run(client: RawClient) -> None:
    """Key and value select runs; no run id is needed."""
    name, value = unique("by-metadata"), unique("value")
    await client.put(name, task("work", name))
    async with client.worker(f"{name}:work") as worker:
        live = subscribe(client, additional_meta_key="order", additional_meta_value=value)

        async def run_both() -> str:
            run = await client.run(name, additional_metadata=json.dumps({"order": value}))
            await client.run(name, additional_metadata=json.dumps({"order": "other"}))
            for _ in range(2):
                await worker.complete(await worker.next())
            return run

        # A subscription by metadata is live only and has no acknowledgement: its first event shows that it is there.
        reading = asyncio.ensure_future(live.read())
        runs = [await run_both()]
        while not (await asyncio.wait({reading}, timeout=0.5))[0]:
            runs.append(await run_both())
        runs.append(await run_both())
        heard = [(await reading).workflow_run_id]
        while heard.count(runs[-1]) < 2:
            heard.append((await asyncio.wait_for(live.read(), TIMEOUT_SECONDS)).workflow_run_id)
        assert set(heard) <= set(runs)
        live.cancel()


async def test_the_stream_of_an_unknown_run_is_not_found(client: RawClient) -> None:
    """The SDK's iterator ends then."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await read_all(subscribe(client, workflow_run_id=str(uuid4())))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_result_is_sent_whether_asked_before_or_after_the_end(single: Single) -> None:
    """Ids may repeat and may come before or after the end. The stream stays open and answers each."""
    client = single.client
    await single.declare()
    run = await client.run(single.name)
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def ids() -> AsyncIterator[pb.SubscribeToWorkflowRunsRequest]:
        while True:
            yield pb.SubscribeToWorkflowRunsRequest(workflow_run_id=await asked.get())

    call = client.bidirectional(
        "Dispatcher/SubscribeToWorkflowRuns", ids(), pb.SubscribeToWorkflowRunsRequest, pb.WorkflowRunEvent
    )
    asked.put_nowait(run)
    asked.put_nowait(run)
    await single.worker.complete(await single.worker.next(), {"n": 1})
    assert (await asyncio.wait_for(call.read(), TIMEOUT_SECONDS)).workflow_run_id == run
    asked.put_nowait(run)
    assert (await asyncio.wait_for(call.read(), TIMEOUT_SECONDS)).workflow_run_id == run
    call.cancel()


async def test_a_result_larger_than_a_client_can_receive_loses_its_outputs_not_the_stream(client: RawClient) -> None:
    """The outputs of a DAG together may be too large. The event is then sent without them."""
    name = unique("large")
    names = ["one", "two"]
    await client.put(name, *(task(each, name) for each in names))
    async with client.worker(*(f"{name}:{each}" for each in names)) as worker:
        run = await client.run(name)
        for _ in names:
            await worker.complete(await worker.next(), {"blob": "x" * 3_000_000})
        result = await client.result(run)
        assert all("larger than a client can receive" in each.output for each in result.results)


async def test_a_message_that_just_fits_a_client_is_delivered_whole(single: Single) -> None:
    """As by Hatchet: a client receives 4 MiB. Names and ids of an action or a result take some hundred bytes."""
    blob = "x" * (4 * 1024 * 1024 - 2000)
    await single.declare()
    run = await single.client.run(single.name, {"blob": blob})
    action = await single.worker.next()
    assert json.loads(action.action_payload)["input"] == {"blob": blob}
    await single.worker.complete(action, {"blob": blob})
    result = await single.client.result(run)
    assert json.loads(result.results[0].output) == {"blob": blob}


async def test_an_event_starts_workflows_by_key_and_wildcard(client: RawClient) -> None:
    """``*`` matches any text. The metadata of the run names the event."""
    prefix = unique("shop")
    exact, wild, other = unique("exact"), unique("wild"), unique("other")
    for name, trigger in ((exact, f"{prefix}:paid"), (wild, f"{prefix}:*"), (other, f"{prefix}:sent")):
        await client.put(name, task("work", name), event_triggers=[trigger])
    event = await client.push(f"{prefix}:paid", {"n": 1})
    document = await client.get(f"{client.stable}/events/{event.event_id}")
    runs = [
        await client.get(f"/api/v1/stable/workflow-runs/{each['workflowRunId']}") for each in document["triggeredRuns"]
    ]
    assert {run["workflowConfig"]["Name"] for run in runs} == {exact, wild}
    metadata = runs[0]["run"]["additionalMetadata"]
    assert metadata.pop("traceparent")
    assert metadata == {"hatchet__event_id": event.event_id, "hatchet__event_key": f"{prefix}:paid"}
    assert document["workflowRunSummary"]["queued"] == 2


async def test_filters_decide_which_events_start_a_run(client: RawClient) -> None:
    """With filters: only events of the filter's scope, one run per filter that is true; errors count as false."""
    key, name = unique("filtered"), unique("filtered")
    declared = [
        v1.DefaultFilter(expression="input.n > payload.least", scope="a", payload=b'{"least": 1}'),
        v1.DefaultFilter(expression="input.missing == 1", scope="a", payload=b"{}"),
    ]
    workflow = await client.put(name, task("work", name), event_triggers=[key], default_filters=declared)
    body = {"workflowId": workflow.workflow_id, "scope": "b", "expression": "true", "payload": {"from": "api"}}
    added = await client.post(f"{client.stable}/filters", body)

    async def started(scope: str | None, n: int) -> list[str | None]:
        event = await client.push(key, {"n": n}, **({} if scope is None else {"scope": scope}))
        document = await client.get(f"{client.stable}/events/{event.event_id}")
        return [each.get("filterId") for each in document["triggeredRuns"]]

    assert len(await started("a", 2)) == 1
    assert await started("a", 1) == []
    assert await started(None, 2) == []
    assert await started("b", 0) == [added["metadata"]["id"]]
    await client.put(name, task("work", name), event_triggers=[key])
    assert await started("a", 2) == []
    assert await started("b", 0) == [added["metadata"]["id"]]


async def test_logs_are_kept_per_task_even_when_they_come_late(single: Single) -> None:
    """Log lines may arrive after the task ended; the list can be narrowed by level and text."""
    client = single.client
    await single.declare()
    run = await client.run(single.name)
    await single.worker.complete(await single.worker.next())
    for level, message in (("INFO", "all is well"), ("ERROR", "it is not")):
        request = events.PutLogRequest(task_run_external_id=run, message=message, level=level)
        request.created_at.GetCurrentTime()
        await client.call("EventsService/PutLog", request, events.PutLogResponse)
    rows = (await client.get(f"/api/v1/stable/tasks/{run}/logs"))["rows"]
    assert [row["message"] for row in rows] == ["all is well", "it is not"]
    rows = (await client.get(f"/api/v1/stable/tasks/{run}/logs", levels="ERROR"))["rows"]
    assert [row["message"] for row in rows] == ["it is not"]
