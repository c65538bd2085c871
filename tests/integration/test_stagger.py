"""Staggered tasks on a real worker and engine: the delay causes no timeout, holds no thread and can be cancelled."""

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from hatchet_sdk import Context
from pydantic import BaseModel

from tests.integration.conftest import until


class Message(BaseModel):
    x: int = 0


class Always:
    """Draws the whole window: the worst case for the timeout."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


@pytest.mark.slow
async def test_no_task_times_out_because_of_its_stagger(make_observed, mageflow_worker):
    """Windows from 5 ms to 10 s, always the longest delay; bodies that need two thirds of a timeout of six seconds."""
    observed = make_observed(random=Always())
    client = observed.client
    tasks: list[Any] = []
    windows = [0.005, 0.05, 0.7, 0.999, 1.0, 1.9, 3.0, 10.0]
    for number, window in enumerate(windows):

        @client.task(name=f"on-loop-{number}", execution_timeout=timedelta(seconds=6))
        @client.stagger_execution(timedelta(seconds=window))
        async def on_loop(msg: Message) -> dict[str, Any]:
            await asyncio.sleep(4)
            return {}

        @client.task(name=f"in-thread-{number}", execution_timeout=timedelta(seconds=6))
        @client.stagger_execution(timedelta(seconds=window))
        def in_thread(msg: Message) -> dict[str, Any]:
            time.sleep(4)
            return {}

        tasks += [on_loop, in_thread]
    mageflow_worker.in_process(client, "stagger", slots=len(tasks), workflows=tasks)
    await asyncio.gather(*(task.aio_run(Message()) for task in tasks))

    samples = observed.samples
    assert samples.total("mageflow_task_runs_total", outcome="succeeded") == len(tasks)
    assert samples.total("mageflow_task_runs_total", outcome="timed_out") == 0
    assert samples.total("mageflow_timeout_extensions_total", reason="stagger", result="ok") == len(tasks)
    assert samples.total("mageflow_stagger_delay_seconds_sum") == pytest.approx(2 * sum(windows))
    assert samples.total("mageflow_task_stage_seconds_total", stage="stagger") >= 2 * sum(windows)
    granted = samples.total("mageflow_timeout_extension_seconds_sum", reason="stagger")
    assert 2 * sum(windows) < granted < 2 * sum(windows) + 0.2 * len(tasks)
    spans = [span for span in observed.spans if span.name.startswith("stagger ")]
    assert len(spans) == len(tasks)
    assert all("mageflow.timeout.extended" in {event.name for event in span.events} for span in spans)


@pytest.mark.slow
async def test_a_staggered_run_is_cancelled_at_once_and_redrawn_on_retry(make_observed, mageflow_worker):
    """A cancellation frees the slot long before the end of the delay; each attempt has its own delay."""
    draws = iter([30.0, 0.02, 0.03])

    class Scripted:
        def uniform(self, a: float, b: float, /) -> float:
            return next(draws)

    observed = make_observed(random=Scripted())
    client = observed.client

    @client.task(name="staggered", retries=1)
    @client.stagger_execution(timedelta(seconds=30))
    @client.with_ctx
    async def staggered(msg: Message, ctx: Context) -> dict[str, Any]:
        if ctx.attempt_number == 1:
            raise ConnectionError
        return {"thread": threading.current_thread() is threading.main_thread()}

    mageflow_worker.in_process(client, "cancel", slots=1, workflows=[staggered])
    asleep = await staggered.aio_run(Message(), wait_for_result=False)
    await until(lambda: observed.samples.total("mageflow_tasks_in_flight", phase="stagger") == 1)
    began = time.monotonic()
    await client.runs.aio_cancel(asleep.workflow_run_id)
    await staggered.aio_run(Message())  # the one slot is free again
    assert time.monotonic() - began < 20

    samples = observed.samples
    assert samples.value("mageflow_staggers_total", task="staggered", outcome="cancelled") == 1
    assert samples.value("mageflow_staggers_total", task="staggered", outcome="completed") == 2
    assert samples.value("mageflow_stagger_delay_seconds_sum", task="staggered") == pytest.approx(30.05)
    assert samples.value("mageflow_task_runs_total", task="staggered", outcome="cancelled") == 1


async def test_the_users_own_extension_counts_towards_the_timeout(observed, mageflow_worker):
    """``ctx.refresh_timeout`` works as in the SDK, is counted with its reason, and moves the inferred deadline."""
    client = observed.client

    @client.task(name="extends", execution_timeout=timedelta(seconds=3))
    @client.with_ctx
    async def extends(msg: Message, ctx: Context) -> dict[str, Any]:
        await ctx.aio_refresh_timeout(timedelta(seconds=5))
        await asyncio.sleep(3.5)
        return {}

    mageflow_worker.in_process(client, "extends", workflows=[extends])
    assert await extends.aio_run(Message()) is not None
    samples = observed.samples
    assert samples.value("mageflow_timeout_extensions_total", task="extends", reason="user", result="ok") == 1
    assert samples.value("mageflow_timeout_extension_seconds_sum", task="extends", reason="user") == 5
    assert samples.value("mageflow_task_runs_total", task="extends", outcome="succeeded") == 1
