"""A task function that blocks the event loop of its worker: what the locks of other tasks say of it."""

import asyncio
import time
from typing import Any

from pydantic import BaseModel

from mageflow import Settings
from mageflow.testing import capture_logs


class Message(BaseModel):
    x: int = 0


async def test_a_lock_that_another_task_loses_by_blocking_the_loop_says_so(
    make_observed: Any, mageflow_worker: Any, mageflow_redis: Any
) -> None:
    """The event has the run that lost its lock, and for how long the loop was blocked."""
    observed = make_observed(mageflow_redis.url, settings=Settings(metrics_port=0, lock_lease_seconds=2.0))

    @observed.client.task(name="holds")
    async def holds(msg: Message) -> dict[str, Any]:
        async with observed.client.resource("ledger").acquire(on_lost="flag") as lease:
            async with asyncio.timeout(60):
                while not lease.is_lost:
                    await asyncio.sleep(0.05)
        return {}

    @observed.client.task(name="blocks")
    async def blocks(msg: Message) -> dict[str, Any]:
        time.sleep(4.0)  # noqa: ASYNC251 - what the test is about
        return {}

    mageflow_worker.in_process(observed.client, "blocked-worker", workflows=[holds, blocks])
    with capture_logs() as logs:
        holder = asyncio.create_task(holds.aio_run(Message()))
        async with asyncio.timeout(60):
            while not (await observed.client.locks.snapshot()).holders:
                await asyncio.sleep(0.05)
        await blocks.aio_run(Message())
        await holder
    event = logs.one("mageflow.lock.lease_lost")
    assert (event["task"], event["lock"]) == ("holds", "ledger")
    assert event["loop_blocked_s"] > 1.0
