"""An attempt that another attempt of its run has overtaken: its worker stood still, and Hatchet took it for lost."""

import asyncio
import json
import threading
from typing import Any

import redis.asyncio
from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus

from mageflow.signatures import RunIdentity
from mageflow.telemetry.names import metrics
from tests.flows.admitting import admit
from tests.integration.conftest import MakeClient, until


async def _run_of(members: str, url: str) -> str:
    """The run that a step was sent as. It is stored some moments after the sending."""
    async with redis.asyncio.Redis.from_url(url) as stored, asyncio.timeout(60):
        while not (run_id := json.loads(await stored.hget(members, "0")).get("run_id")):
            await asyncio.sleep(0.05)
    return run_id


async def test_an_overtaken_attempt_does_not_cancel_its_run(
    make_observed: MakeClient, mageflow_worker: Any, mageflow_redis: Any
) -> None:
    """The newer attempt owns the step and goes on; the older one is turned away, and Hatchet does not wait for it."""
    observed: Any = make_observed(mageflow_redis.url)
    client = observed.client
    holding, released, ran = threading.Event(), threading.Event(), []

    @client.task(name="holds-the-slot")
    def holder(_: dict[str, Any]) -> dict[str, Any]:
        holding.set()
        released.wait(60)
        return {}

    @client.task(name="overtaken")
    async def task(_: dict[str, Any]) -> dict[str, Any]:
        ran.append(1)
        return {}

    mageflow_worker.in_process(client, "overtaken", workflows=[holder, task], slots=1)
    await holder.aio_run({}, wait_for_result=False)
    await until(holding.is_set)
    chain = await client.chain([task, task])
    await chain.aio_run_no_wait()
    run_id = await _run_of(f"{chain.key}:members", mageflow_redis.url)
    newer = RunIdentity(run_id, run_id, "another-worker", 2, f"{chain.key}#0/0")
    assert (await admit(client._flows, f"{chain.key}#0", newer)).verdict == "run"
    released.set()

    await until(lambda: observed.samples.total(metrics.TASK_RUNS.name, task="overtaken", outcome="skipped") == 1)

    assert await client.runs.aio_get_status(run_id) is V1TaskStatus.RUNNING
    assert ran == []
