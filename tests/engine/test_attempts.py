"""Attempts: retries, backoff, timeouts, cancellation, and reports that come too late."""

import json
import time

import grpc
import pytest

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from tests.engine.conftest import SPEED, Single
from tests.engine.raw_client import errors, outputs


async def test_a_completed_attempt_publishes_its_output(single: Single) -> None:
    """COMPLETED ends the run. Its output is the worker's JSON, under the task's name."""
    await single.declare()
    run = await single.client.run(single.name, {"n": 1})
    action = await single.worker.next()
    assert action.task_run_external_id == action.workflow_run_id == run
    await single.worker.start(action)
    await single.worker.complete(action, {"n": 2})
    assert outputs(await single.client.result(run)) == {"work": {"n": 2}}


async def test_an_empty_output_is_an_empty_object(single: Single) -> None:
    """Empty text and null are valid outputs and mean ``{}``."""
    await single.declare()
    for payload in ("", "null"):
        run = await single.client.run(single.name)
        await single.worker.report(await single.worker.next(), pb.STEP_EVENT_TYPE_COMPLETED, payload)
        await single.client.result(run)
        assert (await single.client.get(f"/api/v1/stable/workflow-runs/{run}"))["run"]["output"] == {}


async def test_output_that_is_not_json_fails_the_task_without_a_retry(single: Single) -> None:
    """The engine cannot send such output to a client."""
    await single.declare(retries=3)
    run = await single.client.run(single.name)
    await single.worker.report(await single.worker.next(), pb.STEP_EVENT_TYPE_COMPLETED, "not json")
    assert errors(await single.client.result(run)) == {"work": "task output is not valid JSON"}


async def test_output_with_a_nul_character_fails_the_task(single: Single) -> None:
    """Hatchet's database cannot store it."""
    await single.declare(retries=3)
    run = await single.client.run(single.name)
    await single.worker.complete(await single.worker.next(), {"text": "a\0b"})
    assert "NUL" in errors(await single.client.result(run))["work"]


async def test_an_error_with_a_nul_character_is_warned_of(single: Single, caplog: pytest.LogCaptureFixture) -> None:
    """Hatchet cannot store it, and its run stays RUNNING until the timeout. The engine fails the task and warns."""
    await single.declare()
    run = await single.client.run(single.name)
    await single.worker.fail(await single.worker.next(), "bad byte \0 in it")
    assert errors(await single.client.result(run)) == {"work": "bad byte \0 in it"}

    async def warned() -> bool:
        return f"task {run}" in caplog.text and "NUL" in caplog.text

    await single.client.until(warned, "the warning")


async def test_a_worker_receives_the_same_payload_as_from_hatchet(single: Single) -> None:
    """``triggered_by`` is always "manual". Only on_failure tasks receive the errors of other tasks."""
    await single.declare()
    await single.client.run(single.name, {"n": 1})
    assert json.loads((await single.worker.next()).action_payload) == {
        "input": {"n": 1},
        "triggered_by": "manual",
        "parents": {},
        "triggers": {"filter_payload": None},
        "user_data": None,
        "overrides": None,
    }


async def test_a_failure_is_retried_while_retries_are_left(single: Single) -> None:
    """Each attempt has the next retry count. The text of the last failure is the run's error, unchanged."""
    await single.declare(retries=2)
    run = await single.client.run(single.name)
    for attempt in range(3):
        action = await single.worker.next()
        assert action.retry_count == attempt
        await single.worker.fail(action, f"failure {attempt}")
    assert errors(await single.client.result(run)) == {"work": "failure 2"}
    history = await single.client.history(run)
    assert (history.count("FAILED"), history.count("RETRYING")) == (3, 2)


async def test_a_failure_that_must_not_be_retried_is_not(single: Single) -> None:
    """``should_not_retry`` fails the task although retries are left."""
    await single.declare(retries=5)
    run = await single.client.run(single.name)
    await single.worker.fail(await single.worker.next(), "final", should_not_retry=True)
    assert errors(await single.client.result(run)) == {"work": "final"}


async def test_backoff_grows_with_the_attempt_and_is_capped(single: Single) -> None:
    """Delay = min(cap, factor ** failures so far). The engine's speed shortens it."""
    await single.declare(retries=3, backoff_factor=10.0, backoff_max_seconds=20)
    await single.client.run(single.name)
    waits: list[float] = []
    action = await single.worker.next()
    for _ in range(3):
        failed_at = time.monotonic()
        await single.worker.fail(action)
        action = await single.worker.next()
        waits.append((time.monotonic() - failed_at) * SPEED)
    assert waits[0] >= 9.9
    assert waits[1] >= 19.9
    assert 19.9 <= waits[2] < 1000  # without the cap 1000; a busy machine adds to 20
    await single.worker.complete(action)


async def test_retry_after_replaces_the_backoff_and_uses_up_a_retry(single: Single) -> None:
    """The worker's ``retry_after_ms`` is used instead of the backoff."""
    await single.declare(retries=1, backoff_factor=1000.0)
    run = await single.client.run(single.name)
    action = await single.worker.next()
    failed_at = time.monotonic()
    await single.worker.fail(action, retry_after_ms=2000)
    action = await single.worker.next()
    assert 1.9 <= (time.monotonic() - failed_at) * SPEED < 1000
    await single.worker.fail(action, "second", retry_after_ms=2000)
    assert errors(await single.client.result(run)) == {"work": "second"}


async def test_reports_about_an_old_attempt_are_answered_and_ignored(single: Single) -> None:
    """A report with another retry count, or about an ended task, changes nothing and is answered OK."""
    await single.declare(retries=1)
    run = await single.client.run(single.name)
    first = await single.worker.next()
    await single.worker.fail(first)
    second = await single.worker.next()
    await single.worker.complete(first, {"from": "first"})
    assert await single.client.status(run) == "RUNNING"
    await single.worker.complete(second, {"from": "second"})
    await single.worker.fail(second, "too late")
    await single.worker.start(second)
    assert outputs(await single.client.result(run)) == {"work": {"from": "second"}}


async def test_a_timeout_cancels_the_old_attempt_and_retries(single: Single) -> None:
    """CANCEL has the retry count of the attempt that timed out, the new START has the next one."""
    await single.declare(retries=1, timeout="300ms")
    run = await single.client.run(single.name)
    first = await single.worker.next()
    cancel, second = await single.worker.next(), await single.worker.next()
    assert (cancel.action_type, cancel.retry_count) == (pb.CANCEL_STEP_RUN, first.retry_count)
    assert (second.action_type, second.retry_count) == (pb.START_STEP_RUN, 1)
    assert (await single.worker.next()).action_type == pb.CANCEL_STEP_RUN
    assert errors(await single.client.result(run)) == {"work": "Task exceeded timeout of 300ms"}
    assert "TIMED_OUT" in await single.client.history(run)


async def test_a_refreshed_timeout_counts_from_the_deadline(single: Single) -> None:
    """The increment is added to the current deadline, not to the time. A task that does not run is NOT_FOUND."""
    await single.declare(timeout="60s")
    run = await single.client.run(single.name)
    action = await single.worker.next()
    assigned_at = time.time()
    request = pb.RefreshTimeoutRequest(task_run_external_id=run, increment_timeout_by="120s")
    reply = await single.client.call("Dispatcher/RefreshTimeout", request, pb.RefreshTimeoutResponse)
    assert reply.timeout_at.ToMilliseconds() / 1000 - assigned_at == pytest.approx(180, abs=20)
    await single.worker.complete(action)
    await single.client.result(run)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await single.client.call("Dispatcher/RefreshTimeout", request, pb.RefreshTimeoutResponse)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_extension_by_zero_is_not_found(single: Single) -> None:
    """Hatchet answers NOT_FOUND to "0s". A malformed duration is an invalid argument, also for an unknown task."""
    await single.declare()
    action = await single.worker.next() if await single.client.run(single.name) else None
    assert action is not None
    for text, code in (("0s", "NOT_FOUND"), ("0", "INVALID_ARGUMENT"), ("-5s", "INVALID_ARGUMENT")):
        request = pb.RefreshTimeoutRequest(task_run_external_id=action.task_run_external_id, increment_timeout_by=text)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await single.client.call("Dispatcher/RefreshTimeout", request, pb.RefreshTimeoutResponse)
        assert refused.value.code() is grpc.StatusCode[code], text


async def test_a_task_that_no_worker_takes_is_cancelled_after_its_schedule_timeout(single: Single) -> None:
    """No retry and no message to a worker. The status is CANCELLED in gRPC and FAILED in REST."""
    await single.declare(retries=3, schedule_timeout="200ms", action=f"{single.name}:nobody")
    run = await single.client.run(single.name)
    assert errors(await single.client.result(run)) == {"work": ""}
    assert (await single.client.details(run)).status == v1.CANCELLED
    assert await single.client.status(run) == "FAILED"
    rows = (await single.client.get(f"{single.client.stable}/workflow-runs", statuses="FAILED"))["rows"]
    assert run in {row["workflowRunExternalId"] for row in rows}
    assert (await single.client.history(run))[-1] == "SCHEDULING_TIMED_OUT"
    await single.client.post(f"{single.client.stable}/tasks/replay", {"externalIds": [run]})
    assert await single.client.status(run) == "QUEUED"


async def test_cancelling_signals_the_worker_and_ignores_what_comes_after(single: Single) -> None:
    """A cancelled task ends at once. Its worker receives the cancellation, and a late result is ignored."""
    await single.declare(retries=3)
    run = await single.client.run(single.name)
    action = await single.worker.next()
    assert await single.client.post(f"{single.client.stable}/tasks/cancel", {"externalIds": [run]}) == {"ids": [run]}
    cancel = await single.worker.next()
    assert (cancel.action_type, cancel.task_run_external_id, cancel.retry_count) == (pb.CANCEL_STEP_RUN, run, 0)
    await single.worker.complete(action, {"late": True})
    assert await single.client.status(run) == "CANCELLED"
    assert errors(await single.client.result(run)) == {"work": ""}


async def test_a_replayed_run_keeps_its_ids_and_gets_a_new_result(single: Single) -> None:
    """The run is live again before the reply, so a later request for the result waits for the new one."""
    await single.declare()
    run = await single.client.run(single.name)
    await single.worker.complete(await single.worker.next(), {"n": 1})
    await single.client.result(run)
    assert await single.client.post(f"{single.client.stable}/tasks/replay", {"externalIds": [run]}) == {"ids": [run]}
    again = await single.worker.next()
    assert (again.task_run_external_id, again.retry_count) == (run, 1)
    await single.worker.complete(again, {"n": 2})
    assert outputs(await single.client.result(run)) == {"work": {"n": 2}}


async def test_a_released_slot_lets_the_next_task_in(single: Single) -> None:
    """ReleaseSlot frees the slot while the task goes on running."""
    await single.declare(slot_requests={"default": 10})
    first, second = await single.client.run(single.name), await single.client.run(single.name)
    action = await single.worker.next()
    assert await single.worker.idle()
    await single.client.call(
        "Dispatcher/ReleaseSlot", pb.ReleaseSlotRequest(task_run_external_id=first), pb.ReleaseSlotResponse
    )
    assert (await single.worker.next()).task_run_external_id == second
    await single.worker.complete(action, {"still": "running"})
    assert outputs(await single.client.result(first)) == {"work": {"still": "running"}}


async def test_an_action_no_worker_could_receive_fails_its_task(single: Single) -> None:
    """A client's channel receives at most 4 MiB. A larger action would break the worker's stream again and again."""
    await single.declare()
    run = await single.client.run(single.name, {"blob": "x" * (4 * 1024 * 1024 - 200)})
    assert "exceeds" in errors(await single.client.result(run))["work"]
