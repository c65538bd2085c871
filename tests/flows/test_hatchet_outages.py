"""Too few workers, and replays from Hatchet's dashboard, on real workers and the local engine."""

import asyncio
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hatchet_sdk.clients.admin import RunStatus
from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus

from mageflow import Settings
from mageflow.signatures import Status
from mageflow.testing.capture import capture_logs
from tests.integration.conftest import make_observed, until  # noqa: F401 - a fixture

QUICK = Settings(
    metrics_port=0, reconcile_grace_seconds=0.3, reconcile_check_seconds=0.5, reconcile_interval_seconds=0.1
)
SOON = timedelta(seconds=1)


@pytest.fixture
def observed(make_observed: Any, mageflow_redis: Any) -> Any:  # noqa: F811
    """A client with a real Valkey and short intervals of the reconciler."""
    yield make_observed(mageflow_redis.url, settings=QUICK)
    assert mageflow_redis.keys_without_ttl() == []


async def ended(client: Any, key: str, seconds: float = 90.0) -> Any:
    """Wait until a flow, a signature or a member has ended."""
    deadline = time.monotonic() + seconds
    while not (found := await client.load_signature(key)).has_ended:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


async def hatchet_says(client: Any, run_id: str, status: V1TaskStatus) -> None:
    """Wait for a state in Hatchet: a worker reports an end to Redis first, and only an ended run can be replayed."""
    async with asyncio.timeout(60):
        while await client.runs.aio_get_status(run_id) is not status:
            await asyncio.sleep(0.05)


async def test_flows_outlast_a_lack_of_workers(observed: Any, mageflow_worker: Any) -> None:
    """One slot for eight chains, and a short schedule timeout: each chain ends done, and each step runs once."""
    client = observed.client
    bodies: Counter[str] = Counter()

    @client.task(name="step", schedule_timeout=SOON)
    async def step(msg: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.2)
        bodies["step"] += 1
        return {}

    @client.task(name="callback", schedule_timeout=SOON)
    async def callback(msg: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.2)
        bodies["callback"] += 1
        return {}

    mageflow_worker.in_process(client, "few", slots=1, workflows=[step, callback])
    chains = [await client.chain([step, step], success=callback) for _ in range(8)]
    with capture_logs() as logs:
        for chain in chains:
            await chain.aio_run_no_wait()
        statuses = [(await ended(client, chain.key)).status for chain in chains]
        callbacks = [(await ended(client, f"{chain.key}#.s0")).status for chain in chains]
    assert set(statuses) == set(callbacks) == {Status.DONE}
    assert bodies == {"step": 16, "callback": 8}
    resent = logs.named("mageflow.flow.run_resent")
    assert {each["reason"] for each in resent} == {"unscheduled"}
    print(f"\n{len(resent)} of {24 + len(resent)} runs found no worker in time and were sent again")


async def test_a_plain_run_keeps_hatchets_schedule_timeout(observed: Any, mageflow_worker: Any) -> None:
    """It is cancelled and not sent again; its user may run it again."""
    client = observed.client
    bodies: Counter[str] = Counter()

    has_begun, may_end = threading.Event(), threading.Event()

    @client.task(name="busy")
    async def busy(msg: dict[str, Any]) -> dict[str, Any]:
        has_begun.set()
        while not may_end.is_set():
            await asyncio.sleep(0.02)
        return {}

    @client.task(name="plain", schedule_timeout=SOON)
    async def plain(msg: dict[str, Any]) -> dict[str, Any]:
        bodies["plain"] += 1
        return {}

    mageflow_worker.in_process(client, "few", slots=1, workflows=[busy, plain])
    working: Any = await busy.aio_run({}, wait_for_result=False)
    await until(has_begun.is_set)
    signature = await client.sign(plain)
    references: list[Any] = [await plain.aio_run({}, wait_for_result=False), await signature.aio_run_no_wait()]
    for reference in references:
        async with asyncio.timeout(50):
            while (await client.runs.aio_get_details(reference.workflow_run_id)).status is not RunStatus.CANCELLED:
                await asyncio.sleep(0.05)
    may_end.set()
    await working.aio_result()
    await asyncio.sleep(1)
    assert bodies == {}
    assert (await client.load_signature(signature.key)).status is Status.PENDING


async def test_a_failed_step_replayed_in_hatchet_continues_its_chain(observed: Any, mageflow_worker: Any) -> None:
    """Hatchet shows the run as completed, and the chain runs to its end."""
    client = observed.client
    is_repaired, received = False, Counter[str]()

    @client.task(name="fragile", retries=1)
    async def fragile(msg: dict[str, Any]) -> dict[str, Any]:
        if not is_repaired:
            raise ValueError("not yet")
        return {"mended": True}

    @client.task(name="last")
    def last(msg: dict[str, Any]) -> dict[str, Any]:
        return {"got": msg["mageflow_results"]}

    @client.task(name="callback")
    async def callback(msg: dict[str, Any]) -> dict[str, Any]:
        received["error" if "mageflow_error" in msg else "success"] += 1
        return {}

    mageflow_worker.in_process(client, "chain", workflows=[fragile, last, callback])
    chain = await client.chain([fragile, last], success=callback, error=callback)
    await chain.aio_run_no_wait()
    assert (await ended(client, chain.key)).status is Status.FAILED
    await ended(client, f"{chain.key}#.e0")
    run_id = (await client.load_signature(chain.steps[0])).last_run.workflow_run_id
    is_repaired = True
    await hatchet_says(client, run_id, V1TaskStatus.FAILED)
    await client.runs.aio_replay(run_id)
    await ended(client, f"{chain.key}#.s0")
    assert await chain.aio_run() == {"got": {"mended": True}}
    assert received == {"error": 1, "success": 1}
    await hatchet_says(client, run_id, V1TaskStatus.COMPLETED)


async def test_a_failed_signature_replayed_in_hatchet_runs_again(observed: Any, mageflow_worker: Any) -> None:
    """With all its retries: it fails twice more and succeeds in the next attempt."""
    client = observed.client
    attempts: list[int] = []

    @client.task(name="fragile", retries=1)
    @client.with_ctx
    async def fragile(msg: dict[str, Any], ctx: Any) -> dict[str, Any]:
        attempts.append(ctx.attempt_number)
        if len(attempts) < 4:
            raise ValueError("not yet")
        return {"mended": True}

    mageflow_worker.in_process(client, "signed", workflows=[fragile])
    signature = await client.sign(fragile)
    reference = await signature.aio_run_no_wait()
    assert (await ended(client, signature.key)).status is Status.FAILED
    await hatchet_says(client, reference.workflow_run_id, V1TaskStatus.FAILED)
    await client.runs.aio_replay(reference.workflow_run_id)
    deadline = time.monotonic() + 60
    while (await client.load_signature(signature.key)).status is not Status.DONE:
        assert time.monotonic() < deadline, attempts
        await asyncio.sleep(0.05)
    assert attempts == [1, 2, 3, 4]
    assert (await client.load_signature(signature.key)).attempts == 4
