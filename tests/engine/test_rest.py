"""REST: lists and their filters, pauses, crons, schedules, metrics, traces."""

import asyncio
import gc
import json
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from mageflow.engine import LocalEngine
from mageflow.engine.contracts import Timestamp
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from mageflow.engine.contracts import workflows_pb2 as workflows
from mageflow.engine.core import Engine
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import Run
from mageflow.engine.settings import Settings
from mageflow.engine.trigger import Trigger
from tests.engine.conftest import Single
from tests.engine.raw_client import RawClient, task, unique


async def ids(client: RawClient, **query: Any) -> list[str]:
    """Return the run ids a list query finds, newest first."""
    rows = (await client.get(f"{client.stable}/workflow-runs", **query))["rows"]
    return [row["workflowRunExternalId"] for row in rows]


async def test_runs_are_listed_newest_first_and_can_be_filtered(single: Single) -> None:
    """Metadata, status, workflow, time, worker; external ids follow the same filters."""
    client, mark = single.client, unique("mark")
    registered = await client.put(single.name, task("work", single.name))
    before = datetime.now(UTC).isoformat()
    runs = [
        await client.run(single.name, additional_metadata=json.dumps({"mark": mark, "url": "http://x", "n": n}))
        for n in range(3)
    ]
    await single.worker.complete(await single.worker.next())
    await client.result(runs[0])
    assert await ids(client, additional_metadata=f"mark:{mark}") == runs[::-1]
    assert await ids(client, additional_metadata=f"mark:{mark}", statuses="COMPLETED") == runs[:1]
    assert await ids(client, workflow_ids=registered.workflow_id, since=before) == runs[::-1]
    assert await ids(client, workflow_ids=registered.workflow_id, until=before) == []
    assert await ids(client, additional_metadata="url:http://x", workflow_ids=registered.workflow_id) == runs[::-1]
    assert await ids(client, worker_id=single.worker.id) == runs[::-1]
    assert await ids(client, workflow_ids=registered.workflow_id, offset=1, limit=1) == [runs[1]]
    listed = await client.get(f"{client.stable}/workflow-runs/external-ids", additional_metadata=f"mark:{mark}")
    assert listed == runs[::-1]
    page = await client.get(f"{client.stable}/workflow-runs", workflow_ids=registered.workflow_id, limit=2)
    assert page["pagination"] == {"current_page": 1, "next_page": 2, "num_pages": 2}
    hidden = await client.get(
        f"{client.stable}/workflow-runs", additional_metadata=f"mark:{mark}", include_payloads="false"
    )
    assert all(row["input"] == row["output"] == {} for row in hidden["rows"])


async def test_a_filter_cancels_and_replays_what_it_finds(client: RawClient) -> None:
    """Bulk operations take the same filters in the body."""
    name, mark = unique("bulk"), unique("mark")
    await client.put(name, task("work", name))
    runs = [await client.run(name, additional_metadata=json.dumps({"mark": mark})) for _ in range(3)]
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    body = {"filter": {"since": since, "additionalMetadata": [f"mark:{mark}"]}}
    assert set((await client.post(f"{client.stable}/tasks/cancel", body))["ids"]) == set(runs)
    assert await ids(client, additional_metadata=f"mark:{mark}", statuses="CANCELLED") == runs[::-1]
    assert set((await client.post(f"{client.stable}/tasks/replay", body))["ids"]) == set(runs)
    assert await ids(client, additional_metadata=f"mark:{mark}", statuses="QUEUED") == runs[::-1]


async def test_a_run_shows_its_shape_and_its_history(single: Single) -> None:
    """Details: run, tasks, shape; attempts are counted from 1.

    Hatchet keeps the events of a run of one task, newest first, with the task alone.
    """
    client = single.client
    await single.declare()
    run = (
        await client.post(f"{client.stable}/workflow-runs/trigger", {"workflowName": single.name, "input": {"n": 1}})
    )["run"]["metadata"]["id"]
    action = await single.worker.next()
    await single.worker.start(action)
    await single.worker.complete(action, {"n": 2})
    await client.result(run)
    document = await client.get(f"/api/v1/stable/workflow-runs/{run}")
    assert (document["run"]["input"]["input"], document["run"]["output"]) == ({"n": 1}, {"n": 2})
    assert [each["taskName"] for each in document["shape"]] == ["work"]
    assert document["taskEvents"] == []
    rows = (await client.get(f"/api/v1/stable/tasks/{run}/task-events"))["rows"]
    assert [row["eventType"] for row in rows] == ["FINISHED", "STARTED", "SENT_TO_WORKER", "ASSIGNED", "QUEUED"]
    assert [row["id"] for row in rows] == sorted((row["id"] for row in rows), reverse=True)
    summary = document["tasks"][0]
    assert (summary["attempt"], summary["retryCount"], summary["type"]) == (1, 0, "TASK")
    assert summary["displayName"].startswith("work-")
    assert summary["duration"] >= 0
    alone = await client.get(f"/api/v1/stable/tasks/{run}")
    assert alone == {**summary, "input": {"n": 1}, "workflowConfig": document["workflowConfig"]}


async def test_the_runs_of_a_paused_workflow_wait_and_start_when_it_is_unpaused(single: Single) -> None:
    """Paused: runs stay QUEUED without using up their schedule timeout; unpaused they run in order."""
    client = single.client
    registered = await client.put(single.name, task("work", single.name, schedule_timeout="300ms"))
    path = f"/api/v1/workflows/{registered.workflow_id}"
    pause = {"pause": {"action": "pause", "pausedWorkflowQueueTTL": "1m"}}
    assert (await client.http("PATCH", path, pause))[1]["isPaused"] is True
    runs = [await client.run(single.name) for _ in range(2)]
    assert await single.worker.idle(0.5)
    assert await client.status(runs[0]) == "QUEUED"
    assert (await client.http("PATCH", path, {"pause": {"action": "unpause"}}))[1]["isPaused"] is False
    assert [(await single.worker.next()).workflow_run_id for _ in runs] == runs


async def test_a_pause_that_ended_in_time_cancels_nothing_later(client: RawClient) -> None:
    """The time to live counts only while the workflow is paused. After that, a task waits for a worker as any other."""
    name = unique("unpaused")
    registered = await client.put(name, task("work", name))
    path = f"/api/v1/workflows/{registered.workflow_id}"
    await client.http("PATCH", path, {"pause": {"action": "pause", "pausedWorkflowQueueTTL": "3s"}})
    run = await client.run(name)
    await client.http("PATCH", path, {"pause": {"action": "unpause"}})
    await asyncio.sleep(3.5)
    assert await client.status(run) == "QUEUED"
    async with client.worker(f"{name}:work") as worker:
        assert (await worker.next()).workflow_run_id == run


async def test_a_pause_longer_than_its_time_to_live_cancels(single: Single) -> None:
    """After the time to live of its queue, a waiting run is CANCELLED."""
    client = single.client
    registered = await client.put(single.name, task("work", single.name))
    pause = {"pause": {"action": "pause", "pausedWorkflowQueueTTL": "200ms"}}
    await client.http("PATCH", f"/api/v1/workflows/{registered.workflow_id}", pause)
    await client.reaches(await client.run(single.name), "CANCELLED")


async def test_a_workflow_keeps_its_id_over_versions_and_is_deleted_with_its_crons(client: RawClient) -> None:
    """An unchanged registration is the same version, a changed one a new version. Delete removes the crons too."""
    name = unique("versions")
    first = await client.put(name, task("work", name), cron_triggers=["0 0 1 1 *"])
    assert await client.put(name, task("work", name), cron_triggers=["0 0 1 1 *"]) == first
    second = await client.put(name, task("work", name, retries=1), cron_triggers=["0 0 1 1 *"])
    assert (second.workflow_id, second.id == first.id) == (first.workflow_id, False)
    rows = (await client.get(f"{client.tenant}/workflows", name=name.upper()))["rows"]
    assert [(row["name"], len(row["versions"])) for row in rows] == [(name, 2)]
    assert (await client.get(f"/api/v1/workflows/{first.workflow_id}/versions"))["metadata"]["id"] == second.id
    assert (await client.http("DELETE", f"/api/v1/workflows/{first.workflow_id}"))[0] == 204
    assert (await client.get(f"{client.tenant}/workflows/crons", workflowId=first.workflow_id))["rows"] == []
    assert (await client.http("GET", f"/api/v1/workflows/{first.workflow_id}"))[0] == 404


async def test_a_declared_cron_is_replaced_with_its_workflow_and_others_stay(client: RawClient) -> None:
    """A registration replaces the crons that it declared. Crons that were made over the API stay."""
    name = unique("crons")
    registered = await client.put(name, task("work", name), cron_triggers=["0 0 1 1 *"], cron_input='{"n": 1}')
    body = {"cronName": "mine", "cronExpression": "0 0 2 2 *", "input": {"n": 2}, "additionalMetadata": {"a": "b"}}
    made = await client.post(f"{client.tenant}/workflows/{name}/crons", body)
    assert (made["method"], made["enabled"], made["priority"]) == ("API", True, 1)
    # Hatchet takes each pair of name and expression once.
    status, document = await client.http("POST", f"{client.tenant}/workflows/{name}/crons", body)
    assert (status, "already exists" in str(document)) == (400, True)
    for other in ({"cronName": "other"}, {"cronExpression": "0 0 4 4 *"}):
        again = await client.post(f"{client.tenant}/workflows/{name}/crons", body | other)
        assert (await client.http("DELETE", f"{client.tenant}/workflows/crons/{again['metadata']['id']}"))[0] == 204
    await client.put(name, task("work", name), cron_triggers=["0 0 3 3 *"])
    rows = (await client.get(f"{client.tenant}/workflows/crons", workflowId=registered.workflow_id))["rows"]
    assert {(row["cron"], row["method"]) for row in rows} == {("0 0 2 2 *", "API"), ("0 0 3 3 *", "DEFAULT")}
    run = (await client.post(f"{client.tenant}/workflows/crons/{made['metadata']['id']}", None))["externalId"]
    document = (await client.get(f"/api/v1/stable/workflow-runs/{run}"))["run"]
    assert document["input"]["input"] == {"n": 2}
    assert document["additionalMetadata"]["hatchet__cron_name"] == "mine"
    assert (await client.http("DELETE", f"{client.tenant}/workflows/crons/{made['metadata']['id']}"))[0] == 204


async def test_a_cron_fires_in_utc_with_seconds_and_can_be_stopped(single: Single) -> None:
    """Six fields: seconds first. Disabled it does not fire."""
    client = single.client
    await single.declare()
    body = {"cronName": "fast", "cronExpression": "*/5 * * * * *", "input": {}, "additionalMetadata": {}}
    made = await client.post(f"{client.tenant}/workflows/{single.name}/crons", body)
    action = await single.worker.next()
    due = datetime.fromisoformat(json.loads(action.additional_metadata)["hatchet__cron_scheduled_at"])
    assert (due.second % 5, due.microsecond, due.utcoffset()) == (0, 0, timedelta(0))
    path = f"{client.tenant}/workflows/crons/{made['metadata']['id']}"
    assert (await client.http("PATCH", path, {"enabled": False}))[0] == 204
    while not await single.worker.idle(0.6):
        pass
    assert (await client.get(path))["enabled"] is False
    await client.http("DELETE", path)


async def test_a_cron_may_name_its_zone() -> None:
    """Nine in Tokyo is midnight in UTC. A zone that does not exist is refused like any bad expression."""
    engine = Engine(Settings(), str(uuid4()))
    name = unique("zone")
    engine.registry.put(v1.CreateWorkflowVersionRequest(name=name, tasks=[task("work", name)]))
    workflow = engine.repository.workflow_named(name)
    assert workflow is not None
    cron = engine.crons.add(workflow, "CRON_TZ=Asia/Tokyo 0 9 * * *")
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert cron.timer is not None
    wait = cron.timer.when() - asyncio.get_running_loop().time()
    assert abs(wait - (midnight - now).total_seconds()) < 2
    engine.crons.remove(cron)
    with pytest.raises(InvalidRequestError, match="invalid cron expression"):
        engine.crons.add(workflow, "CRON_TZ=Nowhere/City 0 9 * * *")


async def test_scheduled_runs_can_be_moved_listed_and_deleted(single: Single) -> None:
    """The time can be changed until it has come. A time in the past starts the run at once."""
    client = single.client
    registered = await client.put(single.name, task("work", single.name))
    far = (datetime.now(UTC) + timedelta(days=10)).isoformat()
    path = f"{client.tenant}/workflows/scheduled"
    made: list[str] = []
    for n in range(3):
        body = {"triggerAt": far, "input": {"n": n}}
        added = await client.post(f"{client.tenant}/workflows/{single.name}/scheduled", body)
        made.append(added["metadata"]["id"])
    rows = (await client.get(path, workflowId=registered.workflow_id))["rows"]
    assert [row["metadata"]["id"] for row in rows] == made
    waiting = {"priority": 1, "workflowRunCreatedAt": "0001-01-01T00:00:00Z", "workflowRunName": ""}
    assert {name: rows[0][name] for name in waiting} == waiting
    now = datetime.now(UTC).isoformat()
    assert (await client.http("PATCH", f"{path}/{made[0]}", {"triggerAt": now}))[0] == 200
    assert json.loads((await single.worker.next()).action_payload)["input"] == {"n": 0}
    assert "workflowRunId" in await client.get(f"{path}/{made[0]}")
    unknown = "00000000-0000-0000-0000-000000000000"
    deleted = await client.post(f"{path}/bulk-delete", {"scheduledWorkflowRunIds": [made[1], unknown]})
    assert (deleted["deletedIds"], [each["id"] for each in deleted["errors"]]) == ([made[1]], [unknown])
    assert (await client.http("DELETE", f"{path}/{made[2]}"))[0] == 204
    assert await single.worker.idle(0.2)


async def test_a_run_scheduled_over_grpc_appears_in_the_list(client: RawClient) -> None:
    """ScheduleWorkflow answers with ids that REST knows."""
    name = unique("scheduled")
    await client.put(name, task("work", name))
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    request = workflows.ScheduleWorkflowRequest(name=name, schedules=[moment], input='{"n": 1}')
    reply = await client.call("WorkflowService/ScheduleWorkflow", request, workflows.WorkflowVersion)
    document = await client.get(f"{client.tenant}/workflows/scheduled/{reply.scheduled_workflows[0].id}")
    assert (document["workflowName"], document["input"]) == (name, {"n": 1})


async def test_scheduled_runs_and_crons_are_filtered_by_metadata_without_colons(client: RawClient) -> None:
    """As Hatchet's routes of both do; those of runs split at the first colon."""
    name, mark = unique("filtered"), unique("mark")
    await client.put(name, task("work", name))
    far = (datetime.now(UTC) + timedelta(days=10)).isoformat()
    for key in ("mark", "other"):
        body = {"triggerAt": far, "input": {}, "additionalMetadata": {key: mark, "url": "http://x"}}
        await client.post(f"{client.tenant}/workflows/{name}/scheduled", body)
    path = f"{client.tenant}/workflows/scheduled"
    assert len((await client.get(path, additionalMetadata=f"mark:{mark}", statuses="SCHEDULED"))["rows"]) == 1
    for wrong in ("url:http://x", "mark"):
        for listed in (path, f"{client.tenant}/workflows/crons"):
            status, document = await client.http("GET", listed, additionalMetadata=wrong)
            assert (status, "must be in the format key:value" in str(document)) == (400, True)
        status, _ = await client.http("POST", f"{path}/bulk-delete", {"filter": {"additionalMetadata": [wrong]}})
        assert status == 400
    deleted = await client.post(f"{path}/bulk-delete", {"filter": {"additionalMetadata": [f"other:{mark}"]}})
    assert len(deleted["deletedIds"]) == 1


async def test_bulk_operations_over_grpc_do_the_same_as_over_rest(client: RawClient) -> None:
    """Newer clients may trigger, cancel and replay over gRPC, by ids or by filter."""
    name, mark = unique("twins"), unique("mark")
    registered = await client.put(name, task("work", name))
    request = v1.TriggerWorkflowRunRequest(
        workflow_name=name, input=b"{}", additional_metadata=json.dumps({"mark": mark}).encode()
    )
    reply = await client.call("v1.AdminService/TriggerWorkflowRun", request, v1.TriggerWorkflowRunResponse)
    run = reply.external_id
    chosen = v1.TasksFilter(additional_metadata=[f"mark:{mark}"], workflow_ids=[registered.workflow_id])
    cancel = v1.CancelTasksRequest(filter=chosen)
    cancelled = await client.call("v1.AdminService/CancelTasks", cancel, v1.CancelTasksResponse)
    assert list(cancelled.cancelled_tasks) == [run]
    replay = v1.ReplayTasksRequest(external_ids=[run])
    replayed = await client.call("v1.AdminService/ReplayTasks", replay, v1.ReplayTasksResponse)
    assert list(replayed.replayed_tasks) == [run]
    assert await client.status(run) == "QUEUED"


async def test_an_event_that_cannot_start_one_workflow_starts_the_others(client: RawClient) -> None:
    """A run whose idempotency key fails is left out. The push succeeds."""
    key = unique("partly")
    broken, whole = unique("broken"), unique("whole")
    config = v1.IdempotencyConfig(expression="input.missing", ttl_ms=1000)
    await client.put(broken, task("work", broken), event_triggers=[key], idempotency=config)
    await client.put(whole, task("work", whole), event_triggers=[key])
    event = await client.push(key, {"n": 1})
    document = await client.get(f"{client.stable}/events/{event.event_id}")
    assert len(document["triggeredRuns"]) == 1


async def test_metrics_count_what_waits_and_what_ran(client: RawClient) -> None:
    """Status counts per workflow, waiting tasks per action, and stats per task."""
    name = unique("metrics")
    registered = await client.put(name, task(name, name))
    for _ in range(3):
        await client.run(name)
    counts = await client.get(f"{client.stable}/task-metrics", workflow_ids=registered.workflow_id)
    assert {each["status"]: each["count"] for each in counts} == {
        "QUEUED": 3,
        "RUNNING": 0,
        "COMPLETED": 0,
        "CANCELLED": 0,
        "FAILED": 0,
    }
    assert (await client.get(f"{client.tenant}/step-run-queue-metrics"))["queues"][f"{name}:{name}"] == 3
    queued = (await client.get(f"{client.tenant}/task-stats"))[name]["queued"]
    assert (queued["total"], queued["oldest"]) == (3, queued["oldestExcludingRetries"])
    assert (await client.get(client.tenant))["version"] == "V1"


async def test_an_exported_span_is_read_back_beside_the_engines_own(single: Single) -> None:
    """A run belongs to the trace in its ``traceparent``. The engine adds a wait and an execution span per attempt."""
    client = single.client
    await single.declare(retries=1)
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    run = await client.run(single.name, additional_metadata=json.dumps({"traceparent": f"00-{trace}-{parent}-01"}))
    await single.worker.fail(await single.worker.next(), "first attempt")
    await single.worker.complete(await single.worker.next())
    await client.result(run)
    export = ExportTraceServiceRequest()
    span = (
        export.resource_spans.add()
        .scope_spans.add()
        .spans.add(
            trace_id=bytes.fromhex(trace), span_id=secrets.token_bytes(8), name="user.span", kind="SPAN_KIND_CLIENT"
        )
    )
    span.start_time_unix_nano, span.end_time_unix_nano = time.time_ns(), time.time_ns() + 5_000
    span.attributes.append(KeyValue(key="answer", value=AnyValue(int_value=42)))
    await client.call("opentelemetry.proto.collector.trace.v1.TraceService/Export", export, ExportTraceServiceRequest)
    rows = (await client.get(f"{client.stable}/traces", run_external_id=run))["rows"]
    assert {row["traceId"] for row in rows} == {trace}
    assert len({row["spanId"] for row in rows}) == len(rows) == 6
    named = {(row["spanName"], row["retryCount"]): row for row in rows}
    assert named["hatchet.engine.start_step_run", 0]["statusMessage"] == "first attempt"
    assert named["hatchet.engine.start_step_run", 1]["statusCode"] == "OK"
    assert named["hatchet.engine.workflow_run", 0]["parentSpanId"] == parent
    assert (named["user.span", 0]["spanKind"], named["user.span", 0]["spanAttributes"]) == ("CLIENT", {"answer": "42"})


@pytest.mark.parametrize("sent", [None, "", "garbage", "00-abc-def-01"])
async def test_a_run_without_a_trace_gets_one(single: Single, sent: str | None) -> None:
    """As in Hatchet, its metadata gets a ``traceparent`` of the run's own root span. Its children get the same."""
    client = single.client
    await single.declare()
    metadata = {"mine": 1} if sent is None else {"mine": 1, "traceparent": sent}
    run = await client.run(single.name, additional_metadata=json.dumps(metadata))
    action = await single.worker.next()
    received = json.loads(action.additional_metadata)
    _, trace, root, flags = received.pop("traceparent").split("-")
    assert (received, flags, len(trace), len(root)) == ({"mine": 1}, "01", 32, 16)
    child = await client.run(single.name, parent_id=run, parent_task_run_external_id=run, child_index=0)
    assert json.loads((await single.worker.next()).additional_metadata)["traceparent"] == f"00-{trace}-{root}-01"
    rows = (await client.get(f"{client.stable}/traces", run_external_id=child))["rows"]
    roots = [row for row in rows if row["spanName"] == "hatchet.engine.workflow_run"]
    assert [(row["traceId"], row["spanId"] == root) for row in roots] == [(trace, True), (trace, False)]
    assert roots[0].get("parentSpanId") is None


async def test_a_chain_of_descendants_keeps_no_ancestor_in_memory() -> None:
    """A task that starts its own successor again and again must not keep all earlier runs in memory."""
    engine = Engine(Settings(keep_finished=2), str(uuid4()))
    name = unique("line")
    engine.registry.put(v1.CreateWorkflowVersionRequest(name=name, tasks=[task("work", name)]))
    event = engine.events.push("unrelated", {})
    parent: str | None = None
    for _ in range(20):
        run = engine.runs.start(Trigger(workflow_name=name, parent_task_id=parent, event_id=event.id))
        if parent is not None:
            engine.bulk.cancel([parent])
        parent = run.id
    gc.collect()
    alive = [each for each in gc.get_objects() if isinstance(each, Run) and each.workflow.name == name]
    assert len(alive) == 3


async def test_runs_beyond_the_limit_are_forgotten_oldest_first() -> None:
    """A limited number of finished runs stays readable. Live runs always do."""
    async with LocalEngine(keep_finished=3) as engine, aiohttp.ClientSession() as http:
        client = RawClient(engine.handshake, http)
        name = unique("forgotten")
        await client.put(name, task("work", name))
        async with client.worker(f"{name}:work", slots={"default": 100}) as worker:
            live = await client.run(name)
            await worker.next()
            runs: list[str] = []
            for _ in range(6):
                runs.append(await client.run(name))
                await worker.complete(await worker.next())
                await client.result(runs[-1])
            found = [(await client.http("GET", f"/api/v1/stable/workflow-runs/{run}"))[0] for run in [live, *runs]]
            assert found == [200, 404, 404, 404, 200, 200, 200]
        await client.close()
