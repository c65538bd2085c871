"""Redis refuses while flows run on real workers: nothing that succeeded runs again, and no retry is spent."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import BaseModel

from mageflow import Settings
from mageflow.errors import MageflowError
from mageflow.signatures import Status, TaskError
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.testing.workers import WorkerProcess
from tests.chaos.refusals import REFUSALS, Refusal, away, forbidden, full, no_replicas
from tests.integration.conftest import make_observed, until  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

QUICK = Settings(
    metrics_port=0, reconcile_grace_seconds=0.5, reconcile_check_seconds=0.5, reconcile_interval_seconds=0.2
)

SETTLING = Path(__file__).with_name("settling_worker.py")
ROOT = SETTLING.parents[2]


@pytest.fixture
def own_valkey() -> Generator[EmbeddedValkey]:
    """A server that may be spoiled."""
    with EmbeddedValkey(append_only=True) as server:
        yield server


@pytest.fixture
def admin(own_valkey: EmbeddedValkey) -> Generator[redis.Redis]:
    """The operator's connection."""
    with redis.Redis.from_url(own_valkey.url) as client:
        client.ping()
        yield client


@pytest.fixture
def observed(make_observed: Any, own_valkey: EmbeddedValkey) -> Any:  # noqa: F811
    """A client of that server."""
    return make_observed(own_valkey.url, settings=QUICK)


async def ended(client: Any, key: str, seconds: float = 90.0) -> Any:
    """Wait until a flow or signature has ended."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(MageflowError):
            found = await client.load_signature(key)
            if found.has_ended:
                return found
        assert time.monotonic() < deadline, "it did not end"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_success_that_redis_refuses_to_record_is_final(
    observed: Any, mageflow_worker: Any, own_valkey: EmbeddedValkey, admin: redis.Redis, refusal: Refusal
) -> None:
    """Hatchet has the success while Redis still refuses; the chain goes on when Redis takes its record."""
    client = observed.client
    paid: Counter[str] = Counter()
    may_pay = threading.Event()

    @client.task(name="pay", retries=3)
    async def pay(msg: dict[str, Any]) -> dict[str, Any]:
        paid["begun"] += 1
        while not may_pay.is_set():
            await asyncio.sleep(0.02)
        paid["ended"] += 1
        return {"ok": 1}

    mageflow_worker.in_process(client, "pay", workflows=[pay])
    chain = await client.chain([pay, pay])
    await chain.aio_run_no_wait()
    await until(lambda: paid["begun"] == 1)
    run_id = (await client.load_signature(f"{chain.key}#0")).last_run.workflow_run_id
    with refusal(admin, own_valkey):
        refused_at = time.monotonic()
        may_pay.set()
        while (await client.runs.aio_get_status(run_id)).name != "COMPLETED":
            assert time.monotonic() - refused_at < 30, "Hatchet has no success while Redis refuses"
            await asyncio.sleep(0.05)
        await asyncio.sleep(max(0.0, refused_at + 2.5 - time.monotonic()))
        assert paid == {"begun": 1, "ended": 1}
    assert (await ended(client, chain.key)).status is Status.DONE
    assert paid == {"begun": 2, "ended": 2}


@pytest.mark.parametrize(("refusal", "seconds"), [(full, 3), (no_replicas, 3), (forbidden, 3), (away, 11)])
async def test_a_run_that_redis_does_not_admit_waits_and_spends_no_retry(
    observed: Any,
    mageflow_worker: Any,
    own_valkey: EmbeddedValkey,
    admin: redis.Redis,
    refusal: Refusal,
    seconds: float,
) -> None:
    """The task has no retries: it runs once, as attempt 1, when Redis admits it."""
    client = observed.client
    attempts: list[int] = []

    @client.task(name="plain")
    async def plain(msg: dict[str, Any]) -> dict[str, Any]:
        return {}

    @client.task(name="late", retries=0)
    @client.with_ctx
    async def late(msg: dict[str, Any], ctx: Any) -> dict[str, Any]:
        attempts.append(ctx.attempt_number)
        return {}

    mageflow_worker.in_process(client, "late", workflows=[plain, late])
    signature = await client.sign(late)
    with refusal(admin, own_valkey):
        run = await signature.aio_run_no_wait()  # needs no Redis
        await asyncio.sleep(seconds)
        assert attempts == []
        assert (await client.runs.aio_get_status(run.workflow_run_id)).name == "RUNNING"
    await until(lambda: attempts == [1])
    async with asyncio.timeout(60):
        while (await client.runs.aio_get_status(run.workflow_run_id)).name != "COMPLETED":
            await asyncio.sleep(0.05)


async def test_a_failure_that_redis_refuses_to_record_calls_its_callback_later(
    observed: Any, mageflow_worker: Any, own_valkey: EmbeddedValkey, admin: redis.Redis
) -> None:
    """The error callback runs once, with the task's own error."""
    client = observed.client
    received: list[dict[str, Any]] = []
    begun, may_fail = threading.Event(), threading.Event()

    class Failure(BaseModel):
        why: TaskError

    @client.task(name="fails")
    async def fails(msg: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        while not may_fail.is_set():
            await asyncio.sleep(0.02)
        raise ValueError("no good")

    @client.task(name="callback")
    async def callback(msg: Failure) -> dict[str, Any]:
        received.append(msg.why.model_dump())
        return {}

    mageflow_worker.in_process(client, "fails", workflows=[fails, callback])
    chain = await client.chain([fails, fails], error=callback)
    await chain.aio_run_no_wait()
    await until(begun.is_set)
    with full(admin, own_valkey):
        may_fail.set()
        await asyncio.sleep(2.5)
        assert received == []
    await until(lambda: bool(received))
    await asyncio.sleep(0.5)
    assert [(each["type"], each["message"]) for each in received] == [("ValueError", "no good")]


async def test_a_worker_that_dies_while_its_settlements_wait_loses_and_doubles_nothing(
    observed: Any, mageflow_engine: Any, own_valkey: EmbeddedValkey, admin: redis.Redis, tmp_path: Path
) -> None:
    """SIGKILL while Redis is full: the reconciler of the next worker takes result and error from Hatchet."""
    client = observed.client
    environment = {"PROBE_REDIS": own_valkey.url, "PROBE_FOLDER": str(tmp_path), "PYTHONPATH": str(ROOT)}
    first, second = (
        WorkerProcess(mageflow_engine, SETTLING, output=tmp_path / f"{each}.out", environment=environment)
        for each in ("first", "second")
    )
    log = tmp_path / "log"

    def noted(start: str) -> list[str]:
        return [each for each in log.read_text().splitlines() if each.startswith(start)] if log.exists() else []

    await first.aio_start()
    try:
        paying = [await client.chain(["pays", "pays"]) for _ in range(5)]
        failing = await client.chain(["fails", "fails"], error="on-failure")
        for chain in [*paying, failing]:
            await chain.aio_run_no_wait()
        await until(lambda: (len(noted("pays begins")), len(noted("fails begins"))) == (5, 1))
        runs = [
            (await client.load_signature(f"{chain.key}#0")).last_run.workflow_run_id for chain in [*paying, failing]
        ]
        with full(admin, own_valkey):
            (tmp_path / "go").touch()
            async with asyncio.timeout(60):
                while {(await client.runs.aio_get_status(each)).name for each in runs} != {"COMPLETED", "FAILED"}:
                    await asyncio.sleep(0.1)
            first.kill()
        await second.aio_start()
        for chain in paying:
            assert (await ended(client, chain.key)).status is Status.DONE
        assert (await ended(client, failing.key)).status is Status.FAILED
        await until(lambda: bool(noted("callback")))
        await asyncio.sleep(1.5)  # a second callback would come with the next sweeps
    finally:
        first.kill()
        await second.aio_stop()
    assert (len(noted("pays begins")), len(noted("pays ends")), len(noted("fails begins"))) == (10, 10, 1)
    [received] = noted("callback")
    error = TaskError.model_validate_json(received.removeprefix("callback "))
    assert (error.type, error.message, error.task) == ("ValueError", "no good: line 1\nline 2", "fails")


async def test_an_outage_longer_than_the_timeout_spends_no_retry(
    observed: Any, mageflow_worker: Any, own_valkey: EmbeddedValkey, admin: redis.Redis
) -> None:
    """The attempt requests more time from Hatchet while it waits, and its body runs when Redis is back."""
    client = observed.client
    ran: list[int] = []

    @client.task(name="short", execution_timeout=timedelta(seconds=4), retries=0)
    async def short(msg: dict[str, Any]) -> dict[str, Any]:
        ran.append(1)
        return {}

    mageflow_worker.in_process(client, "short", workflows=[short])
    signature = await client.sign(short)
    with no_replicas(admin, own_valkey):
        run = await signature.aio_run_no_wait()  # needs no Redis
        await asyncio.sleep(18)  # longer than the timeout and one extension
        assert (await client.runs.aio_get_status(run.workflow_run_id)).name == "RUNNING"
        assert ran == []
    found = await ended(client, signature.key)
    assert (found.status, found.attempts, ran) == (Status.DONE, 1, [1])
    granted = observed.samples.total("mageflow_timeout_extension_seconds_sum", task="short", reason="redis")
    assert granted in {20.0, 30.0}


async def test_an_outage_longer_than_the_extensions_fails_the_run_with_the_outage(
    make_observed: Any,  # noqa: F811
    mageflow_worker: Any,
    own_valkey: EmbeddedValkey,
    admin: redis.Redis,
) -> None:
    """Hatchet counts the attempt: without retries the run has failed, and its body never ran."""
    settings = QUICK.model_copy(update={"redis_wait_extension_seconds": 2.0})
    client = make_observed(own_valkey.url, settings=settings).client
    ran: list[int] = []

    @client.task(name="short", execution_timeout=timedelta(seconds=4), retries=0)
    async def short(msg: dict[str, Any]) -> dict[str, Any]:
        ran.append(1)
        return {}

    mageflow_worker.in_process(client, "short", workflows=[short])
    signature = await client.sign(short)
    with no_replicas(admin, own_valkey):
        run = await signature.aio_run_no_wait()  # needs no Redis
        async with asyncio.timeout(90):
            while (await client.runs.aio_get_status(run.workflow_run_id)).name != "FAILED":
                await asyncio.sleep(0.1)
    [task] = (await client.runs.aio_get_details(run.workflow_run_id)).task_runs.values()
    assert (task.error.partition(":")[0], ran) == ("StoreUnavailableError", [])
