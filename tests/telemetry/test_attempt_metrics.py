"""What an attempt counts, by name, labels and value."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from mageflow.interceptors import Stagger
from tests.telemetry.conftest import STAGGERED, Bench


@pytest.mark.parametrize(
    ("outcome", "error", "duration_label"),
    [
        ("succeeded", None, "ok"),
        ("failed", ValueError("x"), "error"),
        ("retried", ValueError("x"), "error"),
        ("timed_out", asyncio.CancelledError(), "error"),
        ("cancelled", asyncio.CancelledError(), None),
        ("skipped", asyncio.CancelledError(), None),
    ],
)
def test_each_outcome_is_counted_once(bench: Bench, outcome: str, error: BaseException | None, duration_label: str):
    """One run under its outcome, zero under the others; only what ran to an end has a duration."""
    bench.run(bench.attempt(), error, seconds=3.0, outcome=outcome)

    seen = bench.samples
    by_outcome = seen.by("outcome", "mageflow_task_runs_total", task="send")
    assert by_outcome == {
        each: float(each == outcome) for each in ("succeeded", "failed", "retried", "timed_out", "cancelled", "skipped")
    }
    durations = seen.by("outcome", "mageflow_task_run_duration_seconds_sum", task="send")
    assert durations == ({duration_label: 3.0} if duration_label else {})
    failures = 1.0 if outcome in ("failed", "retried") else 0.0
    assert seen.total("mageflow_task_failures_total", task="send", exception="ValueError") == failures


def test_duration_is_without_the_stagger_sleep(bench: Bench):
    """Sleeping is the stagger's, not the task's; each stage is charged with its own slot-seconds."""
    attempt = bench.attempt(STAGGERED)
    with bench.interceptor.attempt(attempt):
        attempt.enter("stagger", "stagger")
        with bench.interceptor.stagger(Stagger(attempt, 3.0, 2.0)):
            bench.clock.now += 2.0
        with bench.interceptor.execute(attempt):
            attempt.enter("running", "body")
            bench.clock.now += 0.5
        attempt.outcome = "succeeded"

    seen = bench.samples
    assert seen.value("mageflow_task_run_duration_seconds_sum", task="crowd", outcome="ok") == 0.5
    stages = seen.by("stage", "mageflow_task_stage_seconds_total", task="crowd")
    assert (stages["stagger"], stages["body"], stages["callbacks"]) == (2.0, 0.5, 0.0)
    assert seen.value("mageflow_stagger_delay_seconds_sum", task="crowd") == 2.0
    assert seen.value("mageflow_staggers_total", task="crowd", outcome="completed") == 1.0


def test_timeout_use_counts_extensions(bench: Bench):
    """The share is of the timeout as it was in the end."""
    bench.run(bench.attempt(), seconds=15.0, outcome="succeeded", extended_seconds=30.0)

    assert bench.samples.value("mageflow_task_timeout_used_ratio_sum", task="send") == 0.25


def test_queue_wait_counts_from_the_stamp(bench: Bench):
    """From the enqueue to the entry into the wrapper, seen by the consumer."""
    metadata = bench.enqueue()
    metadata["mageflow_enqueued_at"] = f"{time.time() - 7.0:.6f}"
    bench.run(bench.attempt(metadata=metadata), outcome="succeeded")

    assert bench.samples.value("mageflow_task_queue_wait_seconds_sum", task="send") == pytest.approx(7.0, abs=0.5)
    assert bench.logs.one("mageflow.task.finished")["queue_wait_s"] == pytest.approx(7.0, abs=0.5)


def test_a_scheduled_run_waits_from_its_due_time(bench: Bench):
    """An hour until it was due is no hour in the queue."""
    metadata = bench.enqueue(operation="schedule", source="schedule", due_at=datetime.now(UTC) - timedelta(seconds=2))
    metadata["mageflow_enqueued_at"] = f"{time.time() - 3600.0:.6f}"
    bench.run(bench.attempt(metadata=metadata), outcome="succeeded")

    assert bench.samples.value("mageflow_task_queue_wait_seconds_sum", task="send") == pytest.approx(2.0, abs=0.5)


@pytest.mark.parametrize("facts", [{"attempt_number": 2}, {"is_resumed": True}])
def test_queue_wait_is_recorded_once_per_run(bench: Bench, facts: dict[str, object]):
    """A retry and a resumed durable run have been in the queue before."""
    bench.run(bench.attempt(metadata=bench.enqueue(), **facts), outcome="succeeded")

    assert bench.samples.total("mageflow_task_queue_wait_seconds_count") == 0.0


def test_a_clock_ahead_of_ours_is_no_negative_wait(bench: Bench):
    """Skew clamps to 0, and is counted and logged when it is over a second."""
    for ahead in (0.4, 30.0):
        metadata = bench.enqueue()
        metadata["mageflow_enqueued_at"] = f"{time.time() + ahead:.6f}"
        bench.run(bench.attempt(metadata=metadata), outcome="succeeded")

    seen = bench.samples
    assert seen.value("mageflow_task_queue_wait_seconds_sum", task="send") == 0.0
    assert seen.value("mageflow_task_queue_wait_seconds_count", task="send") == 2.0
    assert seen.value("mageflow_telemetry_errors_total", signal="clock") == 1.0


def test_gauges_follow_the_live_table(bench: Bench):
    """While it runs an attempt is in flight in its phase and takes a slot; afterwards it does not."""
    attempt = bench.attempt()
    with bench.interceptor.attempt(attempt):
        attempt.enter("lock_wait", "lock_wait")
        bench.clock.now += 25.0
        during = bench.samples
        attempt.outcome = "succeeded"
    after = bench.samples

    assert during.value("mageflow_tasks_in_flight", task="send", phase="lock_wait") == 1.0
    assert during.value("mageflow_tasks_near_timeout", task="send") == 1.0
    assert during.value("mageflow_worker_slots_used", pool="default") == 1.0
    assert after.total("mageflow_tasks_in_flight") == 0.0
    assert after.total("mageflow_worker_slots_used") == 0.0


def test_a_body_that_outlives_its_attempt_is_an_orphan_until_it_ends(bench: Bench):
    """Cancelling an attempt does not stop its thread; the gauge shows it as long as it runs."""
    attempt = bench.attempt()
    bench.run(attempt, asyncio.CancelledError(), outcome="cancelled", thread_running=True)

    assert bench.samples.value("mageflow_task_orphan_threads", task="send") == 1.0
    assert bench.logs.one("mageflow.task.thread_orphaned")["level"] == "warning"
    attempt.thread_running = False
    assert bench.samples.total("mageflow_task_orphan_threads") == 0.0


def test_an_evicted_durable_invocation_is_no_end(bench: Bench):
    """It is counted when it goes on and ends; its slot time is counted now."""
    bench.run(bench.attempt(), asyncio.CancelledError(), seconds=2.0, evicted=True)

    seen = bench.samples
    assert seen.total("mageflow_task_runs_total") == 0.0
    assert seen.value("mageflow_task_stage_seconds_total", task="send", stage="body") == 2.0
    assert "mageflow.task.cancelled" not in bench.logs.names


def test_an_attempt_without_an_outcome_is_still_counted(bench: Bench):
    """Where the runner could not say how it ended, the exception does."""
    bench.run(bench.attempt())
    bench.run(bench.attempt(), ValueError("x"))
    bench.run(bench.attempt(), asyncio.CancelledError())

    counted = bench.samples.by("outcome", "mageflow_task_runs_total")
    assert (counted["succeeded"], counted["failed"], counted["cancelled"]) == (1.0, 1.0, 1.0)


def test_nothing_is_created_before_something_happens(bench: Bench):
    """The SDK's listener process imports the same program: declaring a task must leave no zero-valued twin."""
    assert len(bench.samples) == 0


def test_metrics_can_be_switched_off(make_bench):
    """Spans and logs go on, no series appears."""
    bench = make_bench(metrics=False)
    bench.run(bench.attempt(metadata=bench.enqueue()), outcome="succeeded")

    assert len(bench.samples) == 0
    assert bench.spans.one("process send").attributes["mageflow.task.outcome"] == "succeeded"
    assert bench.logs.named("mageflow.task.finished")
