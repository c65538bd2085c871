"""Every way an attempt can end, on a real worker: metrics, spans and log events say the same, with values."""

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from hatchet_sdk import Context, NonRetryableException
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

from mageflow.testing.capture import capture_logs
from tests.integration.conftest import until

CANARY = "canary-7f3a9"


class Message(BaseModel):
    x: int = 0
    secret: str = ""


def outcomes(samples: Any, task: str) -> dict[str, float]:
    return {key: value for key, value in samples.by("outcome", "mageflow_task_runs_total", task=task).items() if value}


async def test_a_result_that_cannot_be_sent_is_a_failure_and_is_counted_as_one(observed, mageflow_worker):
    """The worker fails to serialise the result after the body: metrics must not count a success."""
    client = observed.client

    @client.task(name="null", retries=1)
    async def null(msg: Message) -> dict[str, Any]:
        return {"text": "a\0b"}

    @client.task(name="object")
    def of_object(msg: Message) -> dict[str, Any]:
        return {"lock": threading.Lock()}

    @client.task(name="fine")
    def fine(msg: Message) -> Message:
        return msg

    mageflow_worker.in_process(client, "unsendable", workflows=[null, of_object, fine])
    for task, says in ((null, "null character"), (of_object, "Failed to serialize")):
        with pytest.raises(Exception, match=says):
            await task.aio_run(Message())
    assert await fine.aio_run(Message(x=4)) == Message(x=4)
    assert outcomes(observed.samples, "null") == {"retried": 1, "failed": 1}
    assert outcomes(observed.samples, "object") == {"failed": 1}
    assert outcomes(observed.samples, "fine") == {"succeeded": 1}


@pytest.mark.slow
async def test_every_outcome_is_the_same_in_metric_span_and_log(observed, mageflow_worker):
    """Succeeded, failed, retried, timed out, cancelled; spans carry the outcome, logs the ids of their span."""
    client = observed.client
    started = asyncio.Event()
    loop = asyncio.get_running_loop()
    release_thread = threading.Event()

    @client.task(name="good")
    async def good(msg: Message) -> dict[str, Any]:
        return {"x": msg.x, "secret": msg.secret}

    @client.task(name="bad")
    async def bad(msg: Message) -> dict[str, Any]:
        raise KeyError(msg.secret)

    @client.task(name="flaky", retries=2)
    @client.with_ctx
    def flaky(msg: Message, ctx: Context) -> dict[str, Any]:
        if ctx.attempt_number < 2:
            raise ConnectionError(msg.secret)
        return {"attempt": ctx.attempt_number}

    @client.task(name="final", retries=2)
    async def final(msg: Message) -> dict[str, Any]:
        raise NonRetryableException(msg.secret)

    @client.task(name="slow", execution_timeout=timedelta(seconds=3))
    async def slow(msg: Message) -> dict[str, Any]:
        await asyncio.sleep(90)
        return {}

    @client.task(name="stopped")
    async def stopped(msg: Message) -> dict[str, Any]:
        loop.call_soon_threadsafe(started.set)
        await asyncio.sleep(90)
        return {}

    @client.task(name="stuck-thread", execution_timeout=timedelta(seconds=3))
    def stuck_thread(msg: Message) -> dict[str, Any]:
        release_thread.wait(90)
        return {}

    @client.task(name="undumpable")
    async def undumpable(msg: Message) -> Any:
        return [1, 2]

    tasks = [good, bad, flaky, final, slow, stopped, stuck_thread, undumpable]
    with capture_logs() as logs:
        mageflow_worker.in_process(client, "outcomes", workflows=tasks)
        secret = Message(x=1, secret=CANARY)
        assert await good.aio_run(secret) == {"x": 1, "secret": CANARY}
        with pytest.raises(Exception, match="KeyError"):
            await bad.aio_run(secret)
        assert await flaky.aio_run(secret) == {"attempt": 2}
        with pytest.raises(Exception, match="NonRetryable"):
            await final.aio_run(secret)
        with pytest.raises(Exception, match="exceeded timeout"):
            await slow.aio_run(secret)
        with pytest.raises(Exception, match="Tasks must return"):
            await undumpable.aio_run(secret)
        reference = await stopped.aio_run(secret, wait_for_result=False)
        await asyncio.wait_for(started.wait(), 60)
        await client.runs.aio_cancel(reference.workflow_run_id)
        with pytest.raises(Exception, match="exceeded timeout"):
            await stuck_thread.aio_run(secret)
        orphans = lambda: observed.samples.value("mageflow_task_orphan_threads", task="stuck-thread")  # noqa: E731
        await until(lambda: orphans() == 1)
        assert orphans() == 1
        release_thread.set()
        await until(lambda: orphans() == 0)
        assert orphans() == 0
        await until(lambda: observed.spans.named("process stopped"))

    samples = observed.samples
    expected = {
        "good": {"succeeded": 1},
        "bad": {"failed": 1},
        "flaky": {"retried": 1, "succeeded": 1},
        "final": {"failed": 1},
        "slow": {"timed_out": 1},
        "stopped": {"cancelled": 1},
        "stuck-thread": {"timed_out": 1},
        "undumpable": {"failed": 1},
    }
    assert {task: outcomes(samples, task) for task in expected} == expected
    assert samples.value("mageflow_task_failures_total", task="bad", exception="KeyError") == 1
    assert samples.value("mageflow_task_run_duration_seconds_count", task="flaky", outcome="error") == 1
    assert samples.value("mageflow_task_queue_wait_seconds_count", task="flaky") == 1  # the first attempt only
    assert samples.value("mageflow_task_timeout_seconds", task="slow") == 3
    assert samples.value("mageflow_task_stage_seconds_total", task="slow", stage="body") > 1
    assert samples.total("mageflow_tasks_in_flight") == 0

    by_outcome = {
        (span.attributes["messaging.destination.name"], span.attributes["mageflow.task.outcome"]): span
        for span in observed.spans
        if span.kind is SpanKind.CONSUMER
    }
    assert {(task, outcome) for task, counts in expected.items() for outcome in counts} == set(by_outcome)
    for (_, outcome), span in by_outcome.items():
        is_error = outcome in ("failed", "retried", "timed_out")
        assert (span.status.status_code is StatusCode.ERROR) == is_error
    assert by_outcome["flaky", "retried"].attributes["mageflow.task.attempt"] == 1
    assert by_outcome["flaky", "succeeded"].attributes["mageflow.task.attempt"] == 2
    assert by_outcome["flaky", "retried"].context.trace_id == by_outcome["flaky", "succeeded"].context.trace_id

    producers = {span.context.span_id: span for span in observed.spans if span.kind is SpanKind.PRODUCER}
    for span in by_outcome.values():
        assert span.parent.span_id in producers
    spans = {f"{span.context.span_id:016x}": span for span in observed.spans}
    ended = [each for each in logs.events if each["event"] == "mageflow.task.finished"]
    assert {(each["task"], each["outcome"]) for each in ended} >= {("good", "succeeded"), ("flaky", "succeeded")}
    for record in logs.events:
        if record["event"].startswith("mageflow.task.") and "step_run_id" in record:
            assert "span_id" in record, record
            assert spans[record["span_id"]].attributes["messaging.destination.name"] == record["task"]
            assert record["trace_id"] == f"{spans[record['span_id']].context.trace_id:032x}"
    assert {each["task"] for each in logs.named("mageflow.task.timed_out")} == {"slow", "stuck-thread"}
    assert [each["task"] for each in logs.named("mageflow.task.thread_orphaned")] == ["stuck-thread"]

    # The marker was in every input, in an output and in every exception: by default it is in no signal.
    recorded = "".join(span.to_json() for span in observed.spans) + repr(logs.events)
    assert CANARY not in recorded
    assert CANARY not in repr(dict(samples))
