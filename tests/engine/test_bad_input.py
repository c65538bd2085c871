"""Bad input: the right status code, and an engine that lives on."""

import json
from typing import Any
from uuid import uuid4

import aiohttp
import grpc
import pytest
from google.protobuf.message import Message

from mageflow.engine import LocalEngine
from mageflow.engine.contracts import condition_pb2 as conditions
from mageflow.engine.contracts import dispatcher_pb2 as dispatcher
from mageflow.engine.contracts import events_pb2 as events
from mageflow.engine.contracts import trigger_pb2 as trigger
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from mageflow.engine.contracts import workflows_pb2 as workflows
from tests.engine.raw_client import RawClient, task, unique

UNKNOWN_ID = "5d9c3a52-8a5e-4b3c-9f3e-2d1f0c7b6a59"


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return code and text with which a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), refused.value.details() or ""


async def test_a_run_of_an_unknown_workflow_never_starts(client: RawClient, caplog: pytest.LogCaptureFixture) -> None:
    """As in Hatchet, the client gets an id. A warning in the log names the workflow and the registered ones."""
    name = unique("known")
    await client.put(name, task("work", name))
    run = await client.run("not-registered")
    assert (await refusal(client.details(run)))[0] is grpc.StatusCode.NOT_FOUND
    assert (await client.http("GET", f"/api/v1/stable/workflow-runs/{run}/status"))[0] == 404

    async def warned() -> bool:
        return f"run {run} of 'not-registered' will never start" in caplog.text

    await client.until(warned, "the warning")
    assert "registered: " in caplog.text


async def test_a_scheduled_run_of_an_unknown_workflow_is_not_found(client: RawClient) -> None:
    """Hatchet looks for the workflow when a run of it is scheduled. The text says what to do."""
    request = workflows.ScheduleWorkflowRequest(name="not-registered", schedules=[{"seconds": 1}])
    code, text = await refusal(client.call("WorkflowService/ScheduleWorkflow", request, workflows.WorkflowVersion))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "start a worker that registers it" in text


@pytest.mark.parametrize("field", ["input", "additional_metadata"])
async def test_a_nul_character_is_an_invalid_argument(client: RawClient, field: str) -> None:
    """Hatchet's database cannot store it. With one more backslash, "u0000" is plain text."""
    name = unique("nul")
    await client.put(name, task("work", name))
    request = trigger.TriggerWorkflowRequest(name=name, **{field: json.dumps({"a": "x\0y"})})
    code, message = await refusal(
        client.call("WorkflowService/TriggerWorkflow", request, workflows.TriggerWorkflowResponse)
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "NUL" in message
    request = trigger.TriggerWorkflowRequest(name=name, **{field: json.dumps({"a": "\\u0000"})})
    await client.call("WorkflowService/TriggerWorkflow", request, workflows.TriggerWorkflowResponse)


async def test_an_unknown_parent_is_not_found(client: RawClient) -> None:
    """Text that is not a UUID is an invalid argument."""
    name = unique("orphan")
    await client.put(name, task("work", name))
    missing = str(uuid4())
    code, _ = await refusal(client.run(name, parent_id=missing, parent_task_run_external_id=missing, child_index=0))
    assert code is grpc.StatusCode.NOT_FOUND
    code, _ = await refusal(client.run(name, parent_id="no", parent_task_run_external_id="no", child_index=0))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    code, _ = await refusal(client.run(name, desired_worker_id="no"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("field", ["input", "additional_metadata"])
@pytest.mark.parametrize("text", ["{", "[1]", '"text"', "7"])
async def test_what_is_no_json_object_is_an_invalid_argument(client: RawClient, field: str, text: str) -> None:
    """Input and metadata are objects."""
    name = unique("bad-json")
    await client.put(name, task("work", name))
    request = trigger.TriggerWorkflowRequest(**{"name": name, field: text})
    code, message = await refusal(
        client.call("WorkflowService/TriggerWorkflow", request, workflows.TriggerWorkflowResponse)
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in message


@pytest.mark.parametrize("field", ["input", "additional_metadata"])
@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": -Infinity}'])
async def test_numbers_that_only_python_writes_are_no_json(client: RawClient, field: str, text: str) -> None:
    """Hatchet's reader refuses them. The SDK writes them for a float of that value."""
    name = unique("not-a-number")
    await client.put(name, task("work", name))
    request = trigger.TriggerWorkflowRequest(**{"name": name, field: text})
    code, message = await refusal(
        client.call("WorkflowService/TriggerWorkflow", request, workflows.TriggerWorkflowResponse)
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "no JSON number" in message


@pytest.mark.parametrize(
    "wrong", [{"input": ""}, {"additional_metadata": ""}, {"input": "{"}, {"additional_metadata": "{"}]
)
async def test_a_scheduled_run_needs_json(client: RawClient, wrong: dict[str, str]) -> None:
    """Hatchet takes no empty text here, unlike in a run that starts at once. Without times nothing is stored."""
    name = unique("scheduled-empty")
    await client.put(name, task("work", name))
    far: list[Any] = [{"seconds": 4_000_000_000}]
    whole = workflows.ScheduleWorkflowRequest(**({"name": name, "schedules": far, "input": "{}"} | wrong))
    code, message = await refusal(client.call("WorkflowService/ScheduleWorkflow", whole, workflows.WorkflowVersion))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(wrong)) in message
    none = workflows.ScheduleWorkflowRequest(name=name)
    answer = await client.call("WorkflowService/ScheduleWorkflow", none, workflows.WorkflowVersion)
    assert list(answer.scheduled_workflows) == []
    assert (await client.get(f"{client.tenant}/workflows/scheduled", workflowId=answer.workflow_id))["rows"] == []


async def test_null_is_an_input_but_no_metadata(client: RawClient) -> None:
    """Hatchet answers with an internal error to metadata of null, and takes it in a scheduled run."""
    name = unique("null")
    await client.put(name, task("work", name))
    await client.run(name, input=None)
    code, message = await refusal(client.run(name, additional_metadata="null"))
    assert (code, "additional_metadata" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize("priority", [0, 4, -1])
async def test_a_priority_outside_one_to_three_is_an_invalid_argument(client: RawClient, priority: int) -> None:
    """The engine uses 4 for retries."""
    name = unique("priority")
    await client.put(name, task("work", name))
    assert (await refusal(client.run(name, priority=priority)))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_bulk_trigger_with_an_unknown_workflow_starts_the_others(client: RawClient) -> None:
    """Every item has an id, in the order of the request."""
    name = unique("bulk")
    await client.put(name, task("work", name))
    request = workflows.BulkTriggerWorkflowRequest(workflows=[{"name": name}, {"name": "unknown"}, {"name": name}])
    ids = (
        await client.call("WorkflowService/BulkTriggerWorkflow", request, workflows.BulkTriggerWorkflowResponse)
    ).workflow_run_ids
    assert [await client.status(ids[0]), await client.status(ids[2])] == ["QUEUED", "QUEUED"]
    assert (await refusal(client.details(ids[1])))[0] is grpc.StatusCode.NOT_FOUND


async def test_a_bulk_trigger_with_one_bad_item_starts_nothing(client: RawClient) -> None:
    """All triggers of a bulk request are checked first."""
    name = unique("bulk")
    registered = await client.put(name, task("work", name))
    request = workflows.BulkTriggerWorkflowRequest(workflows=[{"name": name}, {"name": name, "priority": 7}])
    code, _ = await refusal(
        client.call("WorkflowService/BulkTriggerWorkflow", request, workflows.BulkTriggerWorkflowResponse)
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    rows = (await client.get(f"{client.stable}/workflow-runs", workflow_ids=registered.workflow_id))["rows"]
    assert rows == []


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ([], "no tasks"),
        ([{"readable_id": "a", "timeout": "soon"}], "invalid duration"),
        ([{"readable_id": "a", "schedule_timeout": "5 minutes"}], "invalid duration"),
        ([{"readable_id": "a"}, {"readable_id": "a"}], "two tasks named"),
        ([{"readable_id": "a", "parents": ["b"]}], "unknown parent"),
        ([{"readable_id": "a", "parents": ["b"]}, {"readable_id": "b", "parents": ["a"]}], "circle"),
        ([{"readable_id": "a", "parents": ["a"]}], "circle"),
        ([{"readable_id": "a", "timeout": "-5s"}], "invalid duration"),
        ([{"readable_id": "a", "timeout": "7us"}], "invalid duration"),
        ([{"readable_id": "a", "schedule_timeout": ""}], "invalid duration"),
        ([{"readable_id": "a b"}], "needs a name of letters"),
        ([{"readable_id": "a", "retries": -1}], "retries must be 0 or more"),
        ([{"readable_id": "a", "backoff_factor": 0.5}], "backoff_factor must be from 1 to 1000"),
        ([{"readable_id": "a", "backoff_factor": 2000}], "backoff_factor must be from 1 to 1000"),
        ([{"readable_id": "a", "backoff_max_seconds": 0}], "backoff_max_seconds must be 1 or more"),
        ([{"readable_id": "a", "batch": {}}], "batch_max_size must be 1 or more"),
        ([{"readable_id": "a", "rate_limits": [{"units": 1}]}], "needs a key"),
        ([{"readable_id": "a", "concurrency": [{"expression": "nonsense("}]}], "invalid CEL expression"),
        ([{"readable_id": "a", "concurrency": [{"expression": ""}]}], "needs a CEL expression"),
    ],
)
async def test_a_definition_that_cannot_work_is_refused_with_the_reason(
    client: RawClient, tasks: list[dict[str, Any]], reason: str
) -> None:
    """PutWorkflow checks before anything is changed."""
    code, text = await refusal(client.put(unique("bad"), *(v1.CreateTaskOpts(**each) for each in tasks)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in text


async def test_a_bad_sleep_in_a_condition_is_refused_at_registration(client: RawClient) -> None:
    """Later there is no caller to answer."""
    name = unique("bad-sleep")
    declared = conditions.TaskConditions(sleep_conditions=[conditions.SleepMatchCondition(sleep_for="a while")])
    code, text = await refusal(client.put(name, task("work", name, conditions=declared)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "a while" in text


async def test_a_bad_cron_is_refused_and_the_old_ones_stay(client: RawClient) -> None:
    """A registration with one bad cron changes no cron."""
    name = unique("bad-cron")
    registered = await client.put(name, task("work", name), cron_triggers=["0 0 1 1 *"])
    code, _ = await refusal(client.put(name, task("work", name), cron_triggers=["1 2 3 4 *", "every day"]))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    rows = (await client.get(f"{client.tenant}/workflows/crons", workflowId=registered.workflow_id))["rows"]
    assert [row["cron"] for row in rows] == ["0 0 1 1 *"]


@pytest.mark.parametrize(
    ("verb", "path", "body", "status"),
    [
        ("GET", "/api/v1/stable/workflow-runs/nothing", None, 400),
        ("GET", f"/api/v1/stable/workflow-runs/{UNKNOWN_ID}", None, 404),
        ("GET", "/api/v1/stable/tasks/nothing/logs", None, 400),
        ("GET", f"/api/v1/stable/tasks/{UNKNOWN_ID}/logs", None, 404),
        ("GET", "/api/v1/workflows/nothing", None, 404),
        ("GET", "/api/v1/no/such/path", None, 404),
        ("DELETE", "/api/v1/workers/nothing", None, 405),
        ("POST", "{stable}/tasks/cancel", {"externalIds": ["nothing"]}, 400),
        ("POST", "{stable}/tasks/replay", {"externalIds": ["nothing"]}, 400),
        ("POST", "{stable}/tasks/replay", {"filter": {"since": "yesterday"}}, 400),
        ("POST", "{stable}/workflow-runs/trigger", {"workflowName": "unknown"}, 400),
        ("POST", "{tenant}/workflows/nobody/crons", {"cronExpression": "* * * * *"}, 400),
        ("POST", "{tenant}/workflows/nobody/scheduled", {"triggerAt": "2026-01-01T00:00:00Z"}, 400),
        ("GET", "{stable}/workflow-runs?limit=many", None, 400),
        ("GET", "{stable}/workflow-runs?limit=0", None, 400),
        ("GET", "{stable}/workflow-runs?offset=-1", None, 400),
        ("POST", "{stable}/cel/debug", {"expression": "true", "input": []}, 400),
        ("POST", "{tenant}/workflows/scheduled/bulk-delete", {}, 400),
        ("POST", "{tenant}/workflows/scheduled/bulk-delete", {"filter": []}, 400),
    ],
)
async def test_rest_refuses_in_its_own_form(client: RawClient, verb: str, path: str, body: Any, status: int) -> None:
    """Every error is ``{"errors": [{"description": ...}]}`` with the right code."""
    got, document = await client.http(verb, path.format(stable=client.stable, tenant=client.tenant), body)
    assert got == status
    assert document["errors"][0]["description"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("{stable}/workflow-runs/trigger", {"workflowName": "{name}"}),
        ("{tenant}/workflows/{name}/scheduled", {"triggerAt": "2126-01-01T00:00:00Z"}),
        ("{tenant}/workflows/{name}/crons", {"cronName": "yearly", "cronExpression": "0 0 1 1 *"}),
    ],
)
async def test_rest_takes_the_same_input_metadata_and_priority_as_hatchet(
    client: RawClient, path: str, body: dict[str, str]
) -> None:
    """An absent object and null are an empty one. Any other value is refused, and nothing is made."""
    name = unique("rest-input")
    await client.put(name, task("work", name))
    path = path.format(stable=client.stable, tenant=client.tenant, name=name)
    body = {key: value.format(name=name) for key, value in body.items()}
    for wrong in ({"input": []}, {"input": "text"}, {"additionalMetadata": [1]}, {"priority": 9}, {"priority": 0}):
        status, document = await client.http("POST", path, body | wrong)
        assert (status, next(iter(wrong)) in document["errors"][0]["description"]) == (400, True), wrong
    listed = [f"{client.tenant}/workflows/scheduled", f"{client.tenant}/workflows/crons"]
    rows = [row for each in listed for row in (await client.get(each, limit=500))["rows"]]
    assert [row for row in rows if row["workflowName"] == name] == []
    await client.post(path, body | {"input": None, "additionalMetadata": None})


async def test_a_cron_over_rest_needs_a_name(client: RawClient) -> None:
    """As in Hatchet; a declared cron has none."""
    name = unique("nameless")
    await client.put(name, task("work", name))
    for nameless in ({}, {"cronName": ""}, {"cronName": None}):
        body = {"cronExpression": "0 0 1 1 *", **nameless}
        status, document = await client.http("POST", f"{client.tenant}/workflows/{name}/crons", body)
        assert (status, "name is required" in str(document)) == (400, True)


async def test_unknown_ids_can_be_cancelled_but_not_replayed(client: RawClient) -> None:
    """As in Hatchet, a cancellation is answered with all ids of the request, a replay with the ids of reset tasks."""
    name = unique("ended")
    await client.put(name, task("work", name))
    run = await client.run(name)
    for _ in range(2):
        ids = [UNKNOWN_ID, run]
        assert await client.post(f"{client.stable}/tasks/cancel", {"externalIds": ids}) == {"ids": ids}
        assert await client.status(run) == "CANCELLED"
    assert await client.post(f"{client.stable}/tasks/replay", {"externalIds": [UNKNOWN_ID, run]}) == {"ids": [run]}
    for bulk in ("cancel", "replay"):
        assert await client.post(f"{client.stable}/tasks/{bulk}", {"externalIds": []}) == {"ids": []}
        assert await client.post(f"{client.stable}/tasks/{bulk}", {}) == {"ids": []}


@pytest.mark.parametrize("name", ["", "two words", "umlaut-ä", "a:b", "a/b", "a\n"])
async def test_a_name_hatchet_refuses_is_refused(client: RawClient, name: str) -> None:
    """A name has at least one ASCII letter, digit, dot, underscore or dash, and no other character."""
    code, text = await refusal(client.put(name, task("work", "any")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "needs a name of letters" in text


async def test_an_idempotency_key_needs_an_expression_and_a_time(client: RawClient) -> None:
    """Both are checked when the workflow is registered."""
    for bad in ({"expression": "nonsense(", "ttl_ms": 5}, {"expression": "", "ttl_ms": 5}, {"expression": "input.id"}):
        name = unique("key")
        code, text = await refusal(client.put(name, task("work", name), idempotency=v1.IdempotencyConfig(**bad)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "idempotency key" in text


ASKED_BY_ID: list[tuple[str, type[Message], str]] = [
    ("v1.AdminService/GetRunDetails", v1.GetRunDetailsRequest, "external_id"),
    ("Dispatcher/Heartbeat", dispatcher.HeartbeatRequest, "worker_id"),
    ("Dispatcher/UpsertWorkerLabels", dispatcher.UpsertWorkerLabelsRequest, "worker_id"),
    ("Dispatcher/ReleaseSlot", dispatcher.ReleaseSlotRequest, "task_run_external_id"),
    ("EventsService/PutLog", events.PutLogRequest, "task_run_external_id"),
    ("EventsService/PutStreamEvent", events.PutStreamEventRequest, "task_run_external_id"),
]


@pytest.mark.parametrize(("method", "request_type", "field"), ASKED_BY_ID, ids=[each[0] for each in ASKED_BY_ID])
async def test_an_id_that_is_no_uuid_is_an_invalid_argument(
    client: RawClient, method: str, request_type: type[Message], field: str
) -> None:
    """An unknown UUID is NOT_FOUND; other text is no id."""
    for text, expected in ((UNKNOWN_ID, "NOT_FOUND"), ("nope", "INVALID_ARGUMENT"), ("", "INVALID_ARGUMENT")):
        code, _ = await refusal(client.call(method, request_type(**{field: text}), dispatcher.HeartbeatResponse))
        assert code is grpc.StatusCode[expected], text


@pytest.mark.parametrize("method", ["Dispatcher/Listen", "WorkflowService/PutWorkflow", "NoService/Anything"])
async def test_a_method_the_engine_does_not_have_is_named(client: RawClient, method: str) -> None:
    """UNIMPLEMENTED with the name of the method, which gRPC's own answer does not have. The SDK does not retry it."""
    code, text = await refusal(client.call(method, dispatcher.HeartbeatRequest(), dispatcher.HeartbeatResponse))
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert method in text
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.stream(method, dispatcher.HeartbeatRequest(), dispatcher.HeartbeatResponse).read()
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_body_that_is_no_json_is_a_bad_request(engine: LocalEngine, client: RawClient) -> None:
    """The status is 400, not 500."""
    async with aiohttp.ClientSession() as http:
        url = f"{engine.handshake.api_url}{client.stable}/tasks/cancel"
        headers = {"Authorization": f"Bearer {engine.handshake.token}"}
        async with http.post(url, data=b"{", headers=headers) as response:
            assert response.status == 400


async def test_a_message_beyond_the_limit_is_resource_exhausted(client: RawClient) -> None:
    """The limit is 4 MiB, as in Hatchet."""
    code, _ = await refusal(client.run("any", {"blob": "x" * (4 * 1024 * 1024)}))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await client.run("any", {"blob": "x" * (4 * 1024 * 1024 - 1000)})
