"""A worker is asked to stop while a run waits for a lock or for Redis: it gives the run back and ends."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from mageflow import Status
from mageflow.engine import LocalEngine
from mageflow.testing import EmbeddedValkey
from mageflow.testing.ports import free_port
from mageflow.testing.workers import WorkerProcess
from tests.integration.conftest import LOST_AFTER_SECONDS, scrape, until

SCRIPT = Path(__file__).with_name("waiting_worker.py")
ENDS_SECONDS = 60.0
"""The wait goes on for 5 s, and the SDK takes up to 6 s for its listener. On a busy machine that takes longer."""


@asynccontextmanager
async def workers(
    valkey: EmbeddedValkey, directory: Path, port: int
) -> AsyncGenerator[tuple[LocalEngine, WorkerProcess, WorkerProcess]]:
    """An engine with a running worker, and one that can take its place."""
    environment = {
        "MAGEFLOW_METRICS_PORT": str(port),
        "MAGEFLOW_REDIS_URL": valkey.url,
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    with LocalEngine(worker_lost_after=LOST_AFTER_SECONDS) as engine:
        first, second = (
            WorkerProcess(engine, SCRIPT, output=directory / f"{name}.log", environment=environment)
            for name in ("first", "second")
        )
        await first.aio_start()
        try:
            yield engine, first, second
        finally:
            for each in (first, second):
                each.kill()


async def stop(worker: WorkerProcess) -> float:
    """Send SIGTERM; the seconds until the process has ended."""
    began = time.monotonic()
    os.kill(worker.pid, signal.SIGTERM)
    await until(lambda: worker.returncode is not None, ENDS_SECONDS)
    return time.monotonic() - began


@pytest.mark.slow
async def test_a_run_that_waits_for_the_lock_of_its_decorator_is_given_back(
    make_observed: Any, mageflow_redis: EmbeddedValkey, tmp_path: Path
) -> None:
    """It leaves the queue, has run nothing and spends no retry; the other worker runs it when the lock is free."""
    port = free_port()
    async with workers(mageflow_redis, tmp_path, port) as (engine, first, second):
        client = make_observed(mageflow_redis.url, hatchet=engine.client()).client
        task = engine.client().stubs.task(name="waits-for-a-lock", input_validator=dict, output_validator=dict)
        async with client.resource("held-elsewhere").acquire():
            reference = await task.aio_run(input={"x": 7}, wait_for_result=False)
            await until(lambda: scrape(port).total("mageflow_tasks_in_flight", phase="lock_wait") == 1)
            assert len((await client.locks.snapshot()).waiters) == 1
            assert await stop(first) < ENDS_SECONDS
            assert (await client.locks.snapshot()).waiters == ()
            await second.aio_start()
        result = await asyncio.wait_for(reference.aio_result(), 90)
        assert (result["x"], result["pid"]) == (7, second.pid), "and the task has no retry to spend"
    assert '"mageflow.worker.draining"' in first.output()


@pytest.mark.slow
async def test_a_run_that_waits_for_a_redis_that_refuses_is_given_back(
    make_observed: Any, mageflow_redis: EmbeddedValkey, tmp_path: Path
) -> None:
    """The worker does not sit out the outage; the other one runs the task when Redis is back."""
    port = free_port()
    async with workers(mageflow_redis, tmp_path, port) as (engine, first, second):
        client = make_observed(mageflow_redis.url, hatchet=engine.client()).client
        signature = await client.sign("waits-for-redis", x=7)
        redis = Redis.from_url(mageflow_redis.url)
        await redis.config_set("min-replicas-to-write", "1")
        try:
            reference = await signature.aio_run_no_wait()
            await until(lambda: scrape(port).total("mageflow_tasks_in_flight", phase="loading") == 1)
            assert await stop(first) < ENDS_SECONDS
        finally:
            await redis.config_set("min-replicas-to-write", "0")
            await redis.aclose()
        await second.aio_start()
        result = await asyncio.wait_for(reference.aio_result(), 90)
        assert (result["x"], result["pid"]) == (7, second.pid), first.output()
        assert (await client.load_signature(signature.key)).status is Status.DONE
