"""Attempts that Hatchet ended in another way than the worker can see: Hatchet's answer is counted."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry.trace import SpanKind
from pydantic import BaseModel

from mageflow.testing.capture import capture_logs
from tests.integration.conftest import until
from tests.integration.test_outcomes import outcomes


class Message(BaseModel):
    x: int = 0


class Longest:
    """Draws the whole window."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


@pytest.fixture
def release(mageflow_worker: Any) -> Iterator[threading.Event]:
    """Lets a function end that blocks the loop of its worker. It is set in any case, so that the worker can stop."""
    event = threading.Event()
    yield event
    event.set()


def corrected(samples: Any) -> dict[tuple[str, str], float]:
    return {
        (labels["from"], labels["to"]): value
        for (name, labels), value in (((each[0], dict(each[1])), value) for each, value in samples.items())
        if name == "mageflow_task_outcomes_corrected_total" and value
    }


@pytest.mark.slow
async def test_runs_that_hatchet_timed_out_before_the_worker_began_are_counted_so(
    make_observed, mageflow_worker, release
):
    """The loop is blocked when they arrive: their functions return at once, and Hatchet has ended them already."""
    observed = make_observed(random=Longest())
    client = observed.client

    @client.task(name="block", retries=0, execution_timeout=timedelta(seconds=180))
    async def block(msg: Message) -> dict[str, Any]:
        release.wait(90)  # it is to block the loop
        return {}

    @client.task(name="late", execution_timeout=timedelta(seconds=1))
    async def late(msg: Message) -> dict[str, Any]:
        return {}

    @client.task(name="late-thread", execution_timeout=timedelta(seconds=1))
    def late_thread(msg: Message) -> dict[str, Any]:
        return {}

    # Without the extension, which Hatchet refuses, the delay is a tenth of this: the cancellation arrives during it.
    @client.task(name="late-staggered", execution_timeout=timedelta(seconds=10))
    @client.stagger_execution(wait_delta=timedelta(seconds=20))
    async def late_staggered(msg: Message) -> dict[str, Any]:
        return {}

    @client.task(name="late-enough", execution_timeout=timedelta(seconds=180))
    async def late_enough(msg: Message) -> dict[str, Any]:
        return {}

    tasks = [block, late, late_thread, late_staggered, late_enough]
    with capture_logs() as logs:
        mageflow_worker.in_process(client, "late", workflows=tasks)
        await block.aio_run(Message(), wait_for_result=False)
        await until(lambda: observed.samples.value("mageflow_tasks_in_flight", task="block", phase="running") == 1)
        references = [await task.aio_run(Message(x=x), wait_for_result=False) for task in tasks[1:] for x in range(2)]
        ends = await asyncio.gather(*(each.aio_result() for each in references[:6]), return_exceptions=True)
        await asyncio.sleep(1)  # the loop was blocked for longer than their timeout, by the worker's own measure too
        release.set()
        ends += await asyncio.gather(*(each.aio_result() for each in references[6:]), return_exceptions=True)
        await until(lambda: observed.samples.total("mageflow_task_runs_total") == 9)
        # An attempt is counted first, then logged, and its span ends last.
        await until(lambda: len([each for each in observed.spans if each.kind is SpanKind.CONSUMER]) == 9)

    assert ["exceeded timeout" in str(end) for end in ends] == [True] * 6 + [False] * 2
    samples = observed.samples
    for task in ("late", "late-thread", "late-staggered"):
        assert outcomes(samples, task) == {"timed_out": 2}, task
        assert samples.value("mageflow_task_run_duration_seconds_count", task=task, outcome="error") == 2
        assert samples.total("mageflow_task_run_duration_seconds_count", task=task, outcome="ok") == 0
    assert outcomes(samples, "late-enough") == {"succeeded": 2}
    assert outcomes(samples, "block") == {"succeeded": 1}
    assert corrected(samples) == {("succeeded", "timed_out"): 4, ("cancelled", "timed_out"): 2}

    spans = [each for each in observed.spans if each.kind is SpanKind.CONSUMER and "late" in each.name]
    assert [each.attributes["mageflow.task.outcome"] for each in spans].count("timed_out") == 6
    by_id = {f"{each.context.span_id:016x}": each for each in observed.spans}
    timed_out = logs.named("mageflow.task.timed_out")
    assert len(timed_out) == 6
    for record in timed_out:
        assert by_id[record["span_id"]].attributes["messaging.destination.name"] == record["task"]


@pytest.mark.slow
async def test_a_cancellation_seen_too_late_is_not_a_success(observed, mageflow_worker, release):
    """The body blocks the loop past its timeout; Hatchet cancelled the run before, or timed it out."""
    client = observed.client

    @client.task(name="blocks", execution_timeout=timedelta(seconds=3))
    async def blocks(msg: Message) -> dict[str, Any]:
        release.wait(90)  # it is to block the loop
        return {}

    mageflow_worker.in_process(client, "blocking", workflows=[blocks])
    running = lambda: observed.samples.value("mageflow_tasks_in_flight", task="blocks", phase="running")  # noqa: E731
    reference = await blocks.aio_run(Message(), wait_for_result=False)
    await until(lambda: running() == 1)
    await client.runs.aio_cancel(reference.workflow_run_id)
    await asyncio.sleep(4)  # the timeout passes meanwhile
    release.set()
    await until(lambda: outcomes(observed.samples, "blocks") == {"cancelled": 1})
    release.clear()
    with pytest.raises(Exception, match="exceeded timeout"):
        await blocks.aio_run(Message())
    await asyncio.sleep(1)
    release.set()
    await until(lambda: outcomes(observed.samples, "blocks") == {"cancelled": 1, "timed_out": 1})
    assert corrected(observed.samples) == {("succeeded", "cancelled"): 1, ("succeeded", "timed_out"): 1}


async def test_a_result_that_is_too_large_fails_at_once(observed, mageflow_worker):
    """The SDK cannot send its report. Without the examination the run hangs until its timeout, and is run again."""
    client = observed.client

    @client.task(name="huge", retries=2)
    async def huge(msg: Message) -> dict[str, Any]:
        return {"text": "ä" * msg.x}

    mageflow_worker.in_process(client, "huge", workflows=[huge])
    assert await huge.aio_run(Message(x=2_000_000)) == {"text": "ä" * 2_000_000}
    with pytest.raises(Exception, match="too large: its report has 42"):
        await asyncio.wait_for(huge.aio_run(Message(x=2_100_000)), 50)
    assert outcomes(observed.samples, "huge") == {"succeeded": 1, "failed": 1}
    assert observed.samples.value("mageflow_task_failures_total", task="huge", exception="IllegalTaskOutputError") == 1


@pytest.mark.parametrize("is_async", [True, False])
async def test_each_run_of_a_batch_is_counted_as_hatchet_ends_it(observed, mageflow_worker, is_async):
    """A missing output fails all; an output that cannot be serialised fails its own run, and Hatchet retries that."""
    client = observed.client

    def answer(items: dict[str, Message]) -> Any:
        if any(each.x == 9 for each in items.values()):
            return {key: {"x": each.x} for key, each in items.items() if each.x != 9}
        return {key: {"x": object() if each.x == 1 else each.x} for key, each in items.items()}

    async def answer_async(items: dict[str, Message]) -> Any:
        return answer(items)

    options: dict[str, Any] = {"batch_max_size": 4, "batch_max_interval": timedelta(seconds=60)}
    batch = client.batch_task(name="batch", **options)(answer_async if is_async else answer)
    mageflow_worker.in_process(client, "batches", workflows=[batch])

    async def run(numbers: list[int]) -> list[bool]:
        ends = await asyncio.gather(*(batch.aio_run(Message(x=x)) for x in numbers), return_exceptions=True)
        return [isinstance(each, dict) for each in ends]

    assert await run([0, 1, 2, 3]) == [True, False, True, True]
    await until(lambda: outcomes(observed.samples, "batch") == {"succeeded": 3, "failed": 1})
    assert await run([9, 0, 2, 3]) == [False] * 4
    await until(lambda: outcomes(observed.samples, "batch") == {"succeeded": 3, "failed": 5})
    await until(lambda: len([each for each in observed.spans if each.kind is SpanKind.CONSUMER]) == 2)
    failures = observed.samples.by("exception", "mageflow_task_failures_total", task="batch")
    assert failures == {"IllegalTaskOutputError": 1, "ValueError": 4}
    duration = "mageflow_task_run_duration_seconds_count"
    assert observed.samples.by("outcome", duration, task="batch") == {"ok": 3, "error": 5}
    enqueued = observed.samples.value("mageflow_tasks_enqueued_total", task="batch", source="direct", result="ok")
    assert enqueued == 8
