"""Attempts: retries, backoff, timeouts, cancellation, and reports that come too late."""

import json
import time

import grpc
import pytest

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from tests.engine.conftest import SPEED, Single
from tests.engine.wire import errors, outputs


async def test_a_completed_attempt_publishes_its_output(single: Single) -> None:
    """COMPLETED ends the run; its output is the worker's JSON, under the task's name."""
    await single.declare()
    run = await single.wire.run(single.name, {"n": 1})
    action = await single.worker.next()
    assert action.task_run_external_id == action.workflow_run_id == run
    await single.worker.start(action)
    await single.worker.complete(action, {"n": 2})
    assert outputs(await single.wire.result(run)) == {"work": {"n": 2}}


async def test_an_empty_output_is_an_empty_object(single: Single) -> None:
    """Empty text and null are legal outputs and mean ``{}``."""
    await single.declare()
    for payload in ("", "null"):
        run = await single.wire.run(single.name)
        await single.worker.report(await single.worker.next(), pb.STEP_EVENT_TYPE_COMPLETED, payload)
        await single.wire.result(run)
        assert (await single.wire.get(f"/api/v1/stable/workflow-runs/{run}"))["run"]["output"] == {}


async def test_output_that_is_not_json_fails_the_task_without_a_retry(single: Single) -> None:
    """The engine cannot hand such output to anyone."""
    await single.declare(retries=3)
    run = await single.wire.run(single.name)
    await single.worker.report(await single.worker.next(), pb.STEP_EVENT_TYPE_COMPLETED, "not json")
    assert errors(await single.wire.result(run)) == {"work": "task output is not valid JSON"}


async def test_output_with_a_nul_character_fails_the_task(single: Single) -> None:
    """Hatchet's database cannot hold it."""
    await single.declare(retries=3)
    run = await single.wire.run(single.name)
    await single.worker.complete(await single.worker.next(), {"text": "a\0b"})
    assert "NUL" in errors(await single.wire.result(run))["work"]


async def test_an_error_with_a_nul_character_is_warned_of(single: Single, caplog: pytest.LogCaptureFixture) -> None:
    """Hatchet cannot store it, and its run hangs until the timeout; here it fails as it should."""
    await single.declare()
    run = await single.wire.run(single.name)
    await single.worker.fail(await single.worker.next(), "bad byte \0 in it")
    assert errors(await single.wire.result(run)) == {"work": "bad byte \0 in it"}

    async def warned() -> bool:
        return f"task {run}" in caplog.text and "NUL" in caplog.text

    await single.wire.until(warned, "the warning")


async def test_a_worker_is_told_what_hatchet_tells_it(single: Single) -> None:
    """``triggered_by`` is always "manual"; errors of other tasks are for on_failure tasks alone."""
    await single.declare()
    await single.wire.run(single.name, {"n": 1})
    assert json.loads((await single.worker.next()).action_payload) == {
        "input": {"n": 1},
        "triggered_by": "manual",
        "parents": {},
        "triggers": {"filter_payload": None},
        "user_data": None,
        "overrides": None,
    }


async def test_a_failure_is_retried_while_retries_are_left(single: Single) -> None:
    """Each attempt carries the next retry count; the last failure's text is the run's error, verbatim."""
    await single.declare(retries=2)
    run = await single.wire.run(single.name)
    for attempt in range(3):
        action = await single.worker.next()
        assert action.retry_count == attempt
        await single.worker.fail(action, f"failure {attempt}")
    assert errors(await single.wire.result(run)) == {"work": "failure 2"}
    history = await single.wire.history(run)
    assert (history.count("FAILED"), history.count("RETRYING")) == (3, 2)


async def test_a_failure_that_says_so_is_not_retried(single: Single) -> None:
    """``should_not_retry`` ends the task whatever retries are left."""
    await single.declare(retries=5)
    run = await single.wire.run(single.name)
    await single.worker.fail(await single.worker.next(), "final", should_not_retry=True)
    assert errors(await single.wire.result(run)) == {"work": "final"}


async def test_backoff_grows_with_the_attempt_and_is_capped(single: Single) -> None:
    """Delay = min(cap, factor ** retries so far); the engine's speed shortens it."""
    await single.declare(retries=3, backoff_factor=4.0, backoff_max_seconds=8)
    await single.wire.run(single.name)
    waits: list[float] = []
    action = await single.worker.next()
    for _ in range(3):
        await single.worker.fail(action)
        failed_at = time.monotonic()
        action = await single.worker.next()
        waits.append((time.monotonic() - failed_at) * SPEED)
    assert waits[0] == pytest.approx(4, abs=3)
    assert waits[1] == pytest.approx(8, abs=3)
    assert waits[2] == pytest.approx(8, abs=3)
    await single.worker.complete(action)


async def test_retry_after_replaces_the_backoff_and_uses_up_a_retry(single: Single) -> None:
    """A worker that knows better when to come back is believed."""
    await single.declare(retries=1, backoff_factor=1000.0)
    run = await single.wire.run(single.name)
    await single.worker.fail(await single.worker.next(), retry_after_ms=2000)
    failed_at = time.monotonic()
    action = await single.worker.next()
    assert (time.monotonic() - failed_at) * SPEED == pytest.approx(2, abs=3)
    await single.worker.fail(action, "second", retry_after_ms=2000)
    assert errors(await single.wire.result(run)) == {"work": "second"}


async def test_reports_about_an_old_attempt_are_answered_and_ignored(single: Single) -> None:
    """A report with another retry count, or about an ended task, changes nothing and is no error."""
    await single.declare(retries=1)
    run = await single.wire.run(single.name)
    first = await single.worker.next()
    await single.worker.fail(first)
    second = await single.worker.next()
    await single.worker.complete(first, {"from": "first"})
    assert await single.wire.status(run) == "RUNNING"
    await single.worker.complete(second, {"from": "second"})
    await single.worker.fail(second, "too late")
    await single.worker.start(second)
    assert outputs(await single.wire.result(run)) == {"work": {"from": "second"}}


async def test_a_timeout_cancels_the_old_attempt_and_retries(single: Single) -> None:
    """CANCEL carries the timed-out attempt's retry count, the new START the next one."""
    await single.declare(retries=1, timeout="300ms")
    run = await single.wire.run(single.name)
    first = await single.worker.next()
    cancel, second = await single.worker.next(), await single.worker.next()
    assert (cancel.action_type, cancel.retry_count) == (pb.CANCEL_STEP_RUN, first.retry_count)
    assert (second.action_type, second.retry_count) == (pb.START_STEP_RUN, 1)
    assert (await single.worker.next()).action_type == pb.CANCEL_STEP_RUN
    assert errors(await single.wire.result(run)) == {"work": "Task exceeded timeout of 300ms"}
    assert "TIMED_OUT" in await single.wire.history(run)


async def test_a_refreshed_timeout_counts_from_the_deadline(single: Single) -> None:
    """The increment is added to the current deadline, not to now; a task that is not running is NOT_FOUND."""
    await single.declare(timeout="1s")
    run = await single.wire.run(single.name)
    action = await single.worker.next()
    assigned_at = time.time()
    request = pb.RefreshTimeoutRequest(task_run_external_id=run, increment_timeout_by="2s")
    reply = await single.wire.call("Dispatcher/RefreshTimeout", request, pb.RefreshTimeoutResponse)
    assert reply.timeout_at.ToMilliseconds() / 1000 - assigned_at == pytest.approx(3, abs=0.3)
    await single.worker.complete(action)
    await single.wire.result(run)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await single.wire.call("Dispatcher/RefreshTimeout", request, pb.RefreshTimeoutResponse)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_extension_of_nothing_finds_no_task(single: Single) -> None:
    """What Hatchet answers to "0s"; a duration of another form is an invalid argument, whatever the task."""
    await single.declare()
    action = await single.worker.next() if await single.wire.run(single.name) else None
    assert action is not None
    for text, code in (("0s", "NOT_FOUND"), ("0", "INVALID_ARGUMENT"), ("-5s", "INVALID_ARGUMENT")):
        request = pb.RefreshTimeoutRequest(task_run_external_id=action.task_run_external_id, increment_timeout_by=text)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await single.wire.call("Dispatcher/RefreshTimeout", request, pb.RefreshTimeoutResponse)
        assert refused.value.code() is grpc.StatusCode[code], text


async def test_a_task_nobody_takes_is_cancelled_after_its_schedule_timeout(single: Single) -> None:
    """Schedule timeout: no retry, no signal to a worker. gRPC calls it CANCELLED and REST lists it as FAILED."""
    await single.declare(retries=3, schedule_timeout="200ms", action=f"{single.name}:nobody")
    run = await single.wire.run(single.name)
    assert errors(await single.wire.result(run)) == {"work": ""}
    assert (await single.wire.details(run)).status == v1.CANCELLED
    assert await single.wire.status(run) == "FAILED"
    rows = (await single.wire.get(f"{single.wire.stable}/workflow-runs", statuses="FAILED"))["rows"]
    assert run in {row["workflowRunExternalId"] for row in rows}
    assert (await single.wire.history(run))[-1] == "SCHEDULING_TIMED_OUT"
    await single.wire.post(f"{single.wire.stable}/tasks/replay", {"externalIds": [run]})
    assert await single.wire.status(run) == "QUEUED"


async def test_cancelling_signals_the_worker_and_ignores_what_comes_after(single: Single) -> None:
    """A cancelled task ends at once; its worker is told, and its late result is dropped."""
    await single.declare(retries=3)
    run = await single.wire.run(single.name)
    action = await single.worker.next()
    assert await single.wire.post(f"{single.wire.stable}/tasks/cancel", {"externalIds": [run]}) == {"ids": [run]}
    cancel = await single.worker.next()
    assert (cancel.action_type, cancel.task_run_external_id, cancel.retry_count) == (pb.CANCEL_STEP_RUN, run, 0)
    await single.worker.complete(action, {"late": True})
    assert await single.wire.status(run) == "CANCELLED"
    assert errors(await single.wire.result(run)) == {"work": ""}


async def test_a_replayed_run_keeps_its_ids_and_gets_a_new_result(single: Single) -> None:
    """The run is open again before the reply, so whoever asks then waits for the new result."""
    await single.declare()
    run = await single.wire.run(single.name)
    await single.worker.complete(await single.worker.next(), {"n": 1})
    await single.wire.result(run)
    assert await single.wire.post(f"{single.wire.stable}/tasks/replay", {"externalIds": [run]}) == {"ids": [run]}
    again = await single.worker.next()
    assert (again.task_run_external_id, again.retry_count) == (run, 1)
    await single.worker.complete(again, {"n": 2})
    assert outputs(await single.wire.result(run)) == {"work": {"n": 2}}


async def test_a_released_slot_lets_the_next_task_in(single: Single) -> None:
    """ReleaseSlot frees the slot while the task goes on running."""
    await single.declare(slot_requests={"default": 10})
    first, second = await single.wire.run(single.name), await single.wire.run(single.name)
    action = await single.worker.next()
    assert await single.worker.idle()
    await single.wire.call(
        "Dispatcher/ReleaseSlot", pb.ReleaseSlotRequest(task_run_external_id=first), pb.ReleaseSlotResponse
    )
    assert (await single.worker.next()).task_run_external_id == second
    await single.worker.complete(action, {"still": "running"})
    assert outputs(await single.wire.result(first)) == {"work": {"still": "running"}}


async def test_an_action_no_worker_could_receive_fails_its_task(single: Single) -> None:
    """A client's channel takes 4 MiB; a larger action would tear the worker's stream down again and again."""
    await single.declare()
    run = await single.wire.run(single.name, {"blob": "x" * 4_190_000})
    assert "exceeds" in errors(await single.wire.result(run))["work"]
