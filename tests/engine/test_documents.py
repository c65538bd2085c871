"""Runs and tasks as REST shows them, and results, as Hatchet answered to the same questions."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

from mageflow.engine.contracts import condition_pb2 as conditions
from mageflow.engine.contracts import trigger_pb2 as trigger
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from tests.engine.conftest import Single
from tests.engine.raw_client import RawClient, labels, outputs, task, unique

NO_TIME = "0001-01-01T00:00:00Z"


def given(value: object, **parents: object) -> dict[str, Any]:
    """Return the input of a task in REST."""
    return {
        "input": value,
        "parents": parents,
        "triggered_by": "manual",
        "triggers": {"filter_payload": None},
        "user_data": None,
        "overrides": None,
    }


async def details(client: RawClient, run: str) -> Any:
    """Return the details of a run."""
    return await client.get(f"/api/v1/stable/workflow-runs/{run}")


async def events(client: RawClient, task_id: str) -> list[tuple[str, int, str, str, bool]]:
    """Return the history of a task, oldest first: type, attempt, message, error, whether a worker is named."""
    rows = (await client.get(f"/api/v1/stable/tasks/{task_id}/task-events"))["rows"]
    return [
        (row["eventType"], row["attempt"], row["message"], row["errorMessage"], "workerId" in row)
        for row in reversed(rows)
    ]


def started(attempt: int) -> list[tuple[str, int, str, str, bool]]:
    """Return the history of an attempt until it runs."""
    return [
        ("QUEUED", attempt, "", "", False),
        ("ASSIGNED", attempt, "", "", True),
        ("SENT_TO_WORKER", attempt, "Sent task run to the assigned worker", "", True),
        ("STARTED", attempt, "", "", True),
    ]


async def test_the_documents_of_a_dag(client: RawClient) -> None:
    """The output is that of the task that finished last. A task shows its direct parents' outputs only.

    The worker is given the outputs of all tasks that ended.
    """
    name = unique("dag")
    await client.put(
        name,
        task("first", name),
        task("second", name, parents=["first"]),
        task("third", name, parents=["second"]),
        on_failure_task=task("rescue", name),
    )
    async with client.worker(*(f"{name}:{each}" for each in ("first", "second", "third"))) as worker:
        run = await client.run(name, {"n": 1})
        for output in ({"one": 1}, {"two": 2}, {"three": 3}):
            action = await worker.next()
            await worker.start(action)
            await worker.complete(action, output)
        assert json.loads(action.action_payload)["parents"] == {"first": {"one": 1}, "second": {"two": 2}}
        result = await client.result(run)
    document = await details(client, run)
    assert (document["run"]["input"], document["run"]["output"]) == ({"n": 1}, {"three": 3})
    assert document["run"]["errorMessage"] == ""
    tasks = {each["displayName"].rsplit("-", 1)[0]: each for each in document["tasks"]}
    assert list(tasks) == ["rescue", "third", "second", "first"]
    assert tasks["third"]["input"] == given({"n": 1}, second={"two": 2})
    assert tasks["first"]["input"] == given({"n": 1})
    assert (tasks["rescue"]["status"], tasks["rescue"]["input"], tasks["rescue"]["output"]) == ("COMPLETED", {}, {})
    assert {each["createdAt"] for each in tasks.values()} == {NO_TIME}
    # A task is created when its parents have ended.
    created = [each["metadata"]["createdAt"] for each in tasks.values()]
    assert created == sorted(set(created), reverse=True)
    assert [each for each in tasks.values() if "workflowName" in each] == []
    finished = {
        each["taskDisplayName"].rsplit("-", 1)[0]: each["output"]
        for each in document["taskEvents"]
        if each["eventType"] == "FINISHED"
    }
    assert {key: json.loads(value) for key, value in finished.items()} == {
        "first": {"one": 1},
        "second": {"two": 2},
        "third": {"three": 3},
    }
    assert {each["output"] for each in document["taskEvents"] if each["eventType"] != "FINISHED"} == {""}
    assert outputs(result) == {
        "first": {"one": 1},
        "second": {"two": 2},
        "third": {"three": 3},
        "rescue": {"skipped": True},
    }


async def test_the_documents_of_a_run_of_one_task(single: Single) -> None:
    """Its input is everything that the task is given; the document of the task alone has the plain input."""
    await single.declare()
    run = await single.client.run(single.name, {"n": 1})
    action = await single.worker.next()
    await single.worker.start(action)
    await single.worker.complete(action, {"n": 2})
    await single.client.result(run)
    document = await details(single.client, run)
    assert (document["run"]["input"], document["run"]["output"]) == (given({"n": 1}), {"n": 2})
    assert document["taskEvents"] == []
    alone = await single.client.get(f"/api/v1/stable/tasks/{run}")
    assert (alone["input"], alone["output"], alone["createdAt"]) == ({"n": 1}, {"n": 2}, NO_TIME)
    assert alone["workflowConfig"]["Name"] == single.name
    assert await events(single.client, run) == [*started(1), ("FINISHED", 1, "", "", True)]


async def test_a_row_of_the_list_of_runs(client: RawClient) -> None:
    """A row has the type DAG and no action. Payloads are in it when the request asks for them."""
    name, mark = unique("row"), unique("mark")
    await client.put(name, task("work", name))
    async with client.worker(f"{name}:work") as worker:
        run = await client.run(name, {"n": 1}, additional_metadata=json.dumps({"mark": mark}))
        await worker.complete(await worker.next(), {"n": 2})
        await client.result(run)
    query = {"additional_metadata": f"mark:{mark}"}
    page = await client.get(f"{client.stable}/workflow-runs", **query)
    row = page["rows"][0]
    assert (row["type"], row["actionId"], row["workflowName"], row["numSpawnedChildren"]) == ("DAG", "", name, 0)
    assert (row["input"], row["output"], row["errorMessage"]) == ({}, {}, "")
    assert page["pagination"] == {"current_page": 1, "next_page": 2, "num_pages": 1}
    row = (await client.get(f"{client.stable}/workflow-runs", include_payloads="true", **query))["rows"][0]
    assert (row["input"], row["output"]) == (given({"n": 1}), {"n": 2})
    row = (await client.get(f"{client.stable}/workflow-runs", only_tasks="true", **query))["rows"][0]
    assert (row["type"], row["actionId"], row["workflowName"]) == ("TASK", f"{name}:work", name)


async def test_children_are_counted_in_the_document_of_the_task_alone(single: Single) -> None:
    """Lists and details of a run say 0."""
    client, child = single.client, unique("child")
    await client.put(child, task("work", child))
    await single.declare()
    run = await client.run(single.name)
    await single.worker.next()
    for index in range(3):
        await client.run(child, parent_id=run, parent_task_run_external_id=run, child_index=index)
    assert (await client.get(f"/api/v1/stable/tasks/{run}"))["numSpawnedChildren"] == 3
    assert (await details(client, run))["tasks"][0]["numSpawnedChildren"] == 0


async def test_the_history_of_retries(single: Single) -> None:
    """RETRYING belongs to the new attempt and says when it starts; QUEUED follows after the backoff.

    The error of a failed attempt stays in the run, and leaves the task, when a later attempt succeeds.
    """
    await single.declare(retries=2, backoff_factor=4.0, backoff_max_seconds=10)
    client, worker = single.client, single.worker
    run = await client.run(single.name)
    before = datetime.now(UTC)
    for number in range(2):
        action = await worker.next()
        await worker.start(action)
        await worker.fail(action, f"boom {number}")
    action = await worker.next()
    await worker.start(action)
    await worker.complete(action, {})
    await client.result(run)
    history = await events(client, run)
    messages = [each[2] for each in history if each[0] == "RETRYING"]
    assert [each.split(" (")[0] for each in messages] == [
        "This is retry number 1. Retrying in 4s",
        "This is retry number 2. Retrying in 10s",
    ]
    due = datetime.fromisoformat(messages[0].split("(")[1].removesuffix(")."))
    assert 2 <= (due - before).total_seconds() <= 8
    assert [(*each[:2], "", *each[3:]) if each[0] == "RETRYING" else each for each in history] == [
        *started(1),
        ("FAILED", 1, "", "boom 0", False),
        ("RETRYING", 2, "", "", False),
        *started(2),
        ("FAILED", 2, "", "boom 1", False),
        ("RETRYING", 3, "", "", False),
        *started(3),
        ("FINISHED", 3, "", "", True),
    ]
    document = await details(client, run)
    assert (document["run"]["errorMessage"], document["tasks"][0]["errorMessage"]) == ("boom 1", "")


async def test_a_timeout_is_a_message_and_no_error(single: Single) -> None:
    """The error text of a timed out run is empty in REST. The result over gRPC has it."""
    await single.declare(timeout="200ms")
    run = await single.client.run(single.name)
    await single.worker.start(await single.worker.next())
    result = await single.client.result(run)
    assert [each.error for each in result.results] == ["Task exceeded timeout of 200ms"]
    last = (await events(single.client, run))[-1]
    assert last == ("TIMED_OUT", 1, "Task exceeded timeout of 200ms", "", False)
    document = await details(single.client, run)
    assert (document["run"]["errorMessage"], document["tasks"][0]["errorMessage"]) == ("", "")


async def test_a_replay_is_in_the_history_of_the_attempt_that_it_ends(single: Single) -> None:
    """RETRIED_BY_USER has the number of the old attempt."""
    await single.declare()
    run = await single.client.run(single.name)
    await single.worker.complete(await single.worker.next())
    await single.client.result(run)
    await single.client.post(f"{single.client.stable}/tasks/replay", {"externalIds": [run]})
    await single.worker.next()
    history = await events(single.client, run)
    replayed = next(each for each in history if each[0] == "RETRIED_BY_USER")
    assert replayed == ("RETRIED_BY_USER", 1, "Task was replayed, resetting task result.", "", False)


async def test_the_result_of_none(client: RawClient) -> None:
    """A task that returns None sends an empty text: null in the details, and no output in the result."""
    name = unique("none")
    await client.put(name, task("work", name), task("more", name, parents=["work"]))
    async with client.worker(f"{name}:work", f"{name}:more") as worker:
        run = await client.run(name)
        for payload in ("", "null"):
            await worker.report(await worker.next(), 2, payload)
        result = await client.result(run)
    assert [each.WhichOneof("_output") for each in result.results] == [None, None]
    assert [each.HasField("error") for each in result.results] == [False, False]
    answer = await client.details(run)
    assert {key: value.output for key, value in answer.task_runs.items()} == {"work": b"null", "more": b"null"}
    assert (await details(client, run))["run"]["output"] == {}


async def test_the_definition_of_a_workflow_is_in_its_documents(client: RawClient) -> None:
    """Everything that a worker declared, with Hatchet's names, in the details of a run and in the version."""
    name = unique("config")
    base = conditions.BaseMatchCondition
    waits = conditions.TaskConditions(
        user_event_conditions=[
            conditions.UserEventMatchCondition(
                base=base(readable_data_key="e", action=conditions.QUEUE, or_group_id="g", expression="true"),
                user_event_key="k",
            )
        ],
        sleep_conditions=[
            conditions.SleepMatchCondition(
                base=base(readable_data_key="s", action=conditions.QUEUE, or_group_id="g"), sleep_for="10s"
            )
        ],
        parent_override_conditions=[
            conditions.ParentOverrideMatchCondition(
                base=base(action=conditions.SKIP, or_group_id="h", expression="output.n == 1"),
                parent_readable_id="first",
            )
        ],
    )
    limit = v1.Concurrency(expression="'c'", max_runs=2, limit_strategy=v1.CANCEL_IN_PROGRESS)
    registered = await client.put(
        name,
        task("first", name, retries=3, backoff_factor=2.0, slot_requests={"default": 1}, concurrency=[limit]),
        task(
            "second",
            name,
            parents=["first"],
            conditions=waits,
            slot_requests={"durable": 2},
            is_durable=True,
            worker_labels=labels(gpu=("big", True)),
            rate_limits=[v1.CreateTaskRateLimit(key="api", units=1, duration=v1.MINUTE)],
        ),
        description="what it does",
        event_triggers=["a:b"],
        cron_triggers=["0 0 1 1 *"],
        cron_input='{"n": 1}',
        sticky=v1.SOFT,
        default_priority=2,
        concurrency_arr=[limit],
        input_json_schema=b"{}",
        default_filters=[v1.DefaultFilter(expression="true", scope="s", payload=b'{"a": 1}')],
        idempotency=v1.IdempotencyConfig(expression="input.key", ttl_ms=5, method=v1.STATUS),
    )
    entry = {"Expression": "'c'", "MaxRuns": 2, "LimitStrategy": "CANCEL_IN_PROGRESS"}
    first = {
        "ReadableId": "first",
        "Action": f"{name}:first",
        "Timeout": "60s",
        "ScheduleTimeout": "5m",
        "Parents": [],
        "Retries": 3,
        "RateLimits": [],
        "DesiredWorkerLabels": None,
        "RetryBackoffFactor": 2.0,
        "RetryBackoffMaxSeconds": 86400,
        "TriggerConditions": [],
        "concurrency": [entry],
    }
    version = await client.get(f"/api/v1/workflows/{registered.workflow_id}/versions")
    config = version["workflowConfig"]
    second = config["Tasks"].pop(1)
    assert config == {
        "Name": name,
        "description": "what it does",
        "EventTriggers": ["a:b"],
        "CronTriggers": ["0 0 1 1 *"],
        "CronInput": base64.b64encode(b'{"n": 1}').decode(),
        "Sticky": "SOFT",
        "DefaultPriority": 2,
        "Tasks": [first],
        "concurrency": [entry],
        "inputJsonSchema": base64.b64encode(b"{}").decode(),
        "defaultFilters": [{"expression": "true", "scope": "s", "payload": {"a": 1}}],
        "idempotency": {"expression": "input.key", "ttlMs": 5, "method": "STATUS"},
    }
    assert (second["isDurable"], second["slotRequests"], second["RetryBackoffMaxSeconds"]) == (
        True,
        {"durable": 2},
        None,
    )
    assert second["DesiredWorkerLabels"]["gpu"]["StrValue"] == "big"
    assert trigger.WorkerLabelComparator.Name(trigger.EQUAL) == (
        second["DesiredWorkerLabels"]["gpu"]["Comparator"] or "EQUAL"
    )
    assert second["RateLimits"] == [
        {"Key": "api", "KeyExpr": None, "Units": 1, "UnitsExpr": None, "LimitExpr": None, "Duration": "MINUTE"}
    ]
    found = [
        (each["MatchConditionKind"], each["Action"], each["ReadableDataKey"], each["OrGroupIdIndex"])
        for each in second["TriggerConditions"]
    ]
    assert found == [
        ("USER_EVENT", "QUEUE", "e", 0),
        ("SLEEP", "QUEUE", "s", 0),
        ("PARENT_OVERRIDE", "SKIP", "first", 1),
    ]
    assert [each["Expression"] for each in second["TriggerConditions"]] == ["true", "", "output.n == 1"]
    run = await client.run(name, {"key": unique("key")})
    assert (await details(client, run))["workflowConfig"] == version["workflowConfig"] | {"Tasks": [first, second]}


async def test_the_limits_of_a_workflow_of_one_task_are_those_of_its_task(client: RawClient) -> None:
    """In the definition too: such a workflow is its task."""
    name = unique("limits")
    registered = await client.put(
        name, task("work", name), concurrency_arr=[v1.Concurrency(expression="'c'", max_runs=1)]
    )
    config = (await client.get(f"/api/v1/workflows/{registered.workflow_id}/versions"))["workflowConfig"]
    assert "concurrency" not in config
    assert config["Tasks"][0]["concurrency"] == [{"Expression": "'c'", "MaxRuns": 1, "LimitStrategy": None}]
