"""The SDK as users run it: a worker process and a client, both unmodified, on the local engine."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio
from hatchet_sdk import Hatchet, RunStatus
from hatchet_sdk.clients.rest.api.task_api import TaskApi

from mageflow.engine import LocalEngine
from tests.engine.conftest import SPEED
from tests.engine.sdk_tasks import WAKE_EVENT, Number, SdkTasks, build

# The SDK keeps streams per event loop: one loop for all tests of this file.
# Starting two real workers takes a while on a busy machine.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
LOST_AFTER = 6.0
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def engine() -> Generator[LocalEngine]:
    """An engine of this file's own: real workers send heartbeats only every four seconds."""
    with LocalEngine(speed=SPEED, worker_lost_after=LOST_AFTER) as started:
        yield started


def start_worker(engine: LocalEngine, number: int) -> subprocess.Popen[bytes]:
    """Start a worker process that finds the engine by its environment."""
    environment = {**os.environ, **engine.environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.engine.sdk_tasks", f"engine-tests-{number}"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def workers(engine: LocalEngine) -> Generator[list[subprocess.Popen[bytes]]]:
    """Two worker processes that inherit one handshake."""
    processes = [start_worker(engine, number) for number in range(2)]
    yield processes
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(60)  # a busy machine; what is left would fail a later test


@pytest.fixture(scope="module")
def client(engine: LocalEngine) -> Hatchet:
    """A plain client."""
    return engine.client()


@pytest.fixture(scope="module")
def workload(client: Hatchet) -> SdkTasks:
    """The tasks, callable."""
    return build(client)


@pytest_asyncio.fixture(loop_scope="module", scope="module", autouse=True)
async def both_registered(client: Hatchet, workers: list[subprocess.Popen[bytes]]) -> AsyncGenerator[None]:
    """Wait until both workers are active."""

    async def active() -> int:
        rows = (await client.workers.aio_list()).rows or []
        return sum(row.status == "ACTIVE" for row in rows)

    deadline = time.monotonic() + 90
    while await active() < 2:
        assert all(process.poll() is None for process in workers), "a worker ended"
        assert time.monotonic() < deadline, "the workers did not come up"
        await asyncio.sleep(0.1)
    yield


async def eventually(condition: Callable[[], object], within: float = 60) -> None:
    """Wait until an async condition holds."""
    deadline = time.monotonic() + within
    while not await condition():  # type: ignore[misc]
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.05)


async def test_a_client_goes_to_its_engine_whatever_the_environment_says(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses a developer has set for a real Hatchet do not lead a local client there."""
    monkeypatch.setenv("HATCHET_CLIENT_HOST_PORT", "hatchet.example:7077")
    monkeypatch.setenv("HATCHET_CLIENT_SERVER_URL", "https://hatchet.example")
    monkeypatch.setenv("HATCHET_CLIENT_TLS_STRATEGY", "tls")
    client = engine.client(namespace="Mine")
    assert (client.config.host_port, client.config.server_url) == (
        engine.handshake.grpc_address,
        engine.handshake.api_url,
    )
    assert client.config.namespace == "mine_"
    assert (await client.workers.aio_list()).rows


async def test_a_task_returns_its_result_and_its_log(client: Hatchet, workload: SdkTasks) -> None:
    """Run, result, log line."""
    ref = await workload.double.aio_run(Number(n=21), wait_for_result=False)
    assert await ref.aio_result() == {"n": 42}

    async def logged() -> bool:
        rows = (await client.logs.aio_list(task_run_id=ref.workflow_run_id)).rows or []
        return [row.message for row in rows] == ["doubling 21"]

    await eventually(logged)


async def test_many_runs_come_back_in_order_from_both_workers(client: Hatchet, workload: SdkTasks) -> None:
    """A bulk run over two workers."""
    items = [workload.double.create_bulk_run_item(Number(n=n)) for n in range(100)]
    assert [each["n"] for each in await workload.double.aio_run_many(items)] == [n * 2 for n in range(100)]


async def test_a_flaky_task_succeeds_on_its_last_retry_and_backoff_is_shortened(workload: SdkTasks) -> None:
    """4 s and 16 s of backoff pass in a fraction, by the engine's speed."""
    started = time.monotonic()
    assert await workload.flaky.aio_run() == {"attempt": 2}
    assert time.monotonic() - started < 20


async def test_a_running_task_is_cancelled_at_once(client: Hatchet, workload: SdkTasks) -> None:
    """The SDK's cancel reaches the worker; the run is CANCELLED."""
    ref = await workload.endless.aio_run(wait_for_result=False)

    async def runs() -> bool:
        return (await client.runs.aio_get_details(ref.workflow_run_id)).status == RunStatus.RUNNING

    await eventually(runs)
    await client.runs.aio_cancel(ref.workflow_run_id)
    assert (await client.runs.aio_get_details(ref.workflow_run_id)).status == RunStatus.CANCELLED


async def test_a_dag_with_a_sleep_runs_at_the_engines_speed(workload: SdkTasks) -> None:
    """Forty seconds of sleep condition take two here."""
    started = time.monotonic()
    result = await workload.pipeline.aio_run(Number(n=1))
    assert result == {"first": {"n": 2}, "second": {"n": 20}}
    assert 40 / SPEED <= time.monotonic() - started < 40


async def test_children_of_a_task_carry_their_parent(client: Hatchet, workload: SdkTasks) -> None:
    """Fan out and in; children are found by their parent."""
    ref = await workload.parent.aio_run(Number(n=5), wait_for_result=False)
    assert await ref.aio_result() == {"children": [0, 2, 4, 6, 8]}
    children = await client.runs.aio_list(parent_task_external_id=ref.workflow_run_id, only_tasks=False)
    assert len(children.rows) == 5


async def test_a_durable_task_sleeps_spawns_and_waits(client: Hatchet, workload: SdkTasks) -> None:
    """A sleep, a child, an event of its own scope."""
    ref = await workload.sleeper.aio_run(Number(n=4), wait_for_result=False)

    async def spawned() -> bool:
        return bool((await client.runs.aio_list(parent_task_external_id=ref.workflow_run_id)).rows)

    await eventually(spawned)
    stop = asyncio.Event()

    async def keep_waking() -> None:
        # An event before the wait exists is lost, as in Hatchet.
        while not stop.is_set():
            await client.event.aio_push(WAKE_EVENT, {}, scope="4")
            await asyncio.sleep(0.2)

    waking = asyncio.create_task(keep_waking())
    assert await ref.aio_result() == {"child": 8, "woken_by": [WAKE_EVENT]}
    stop.set()
    await waking


async def test_a_batch_task_gets_its_items_together(workload: SdkTasks) -> None:
    """Four items, one batch."""
    items = [workload.batch.create_bulk_run_item(Number(n=n)) for n in range(4)]
    assert await workload.batch.aio_run_many(items) == [{"n": n, "together": 4} for n in range(4)]


async def test_chunks_put_concurrently_are_read_in_order(client: Hatchet, workload: SdkTasks) -> None:
    """Twenty chunks at once; the subscriber sees them by index."""
    ref = await workload.streamer.aio_run(wait_for_result=False)
    heard = [chunk async for chunk in client.runs.subscribe_to_stream(ref.workflow_run_id)]
    assert heard == [f"chunk {n}" for n in range(20)]


async def test_a_scheduled_run_starts_at_its_moment(client: Hatchet, workload: SdkTasks) -> None:
    """Twenty seconds ahead is one second at this speed; the run carries the schedule's metadata."""
    mark = str(uuid4())
    when = datetime.now(UTC) + timedelta(seconds=20)
    await workload.double.aio_schedule(when, Number(n=3), additional_metadata={"mark": mark})

    async def done() -> bool:
        rows = (await client.runs.aio_list(additional_metadata={"mark": mark})).rows
        return [row.output for row in rows] == [{"n": 6}]

    await eventually(done)


async def test_a_cron_fires_by_the_engines_clock(client: Hatchet, workload: SdkTasks) -> None:
    """Once a minute is every three seconds at this speed; deleted, it fires no more."""
    mark = str(uuid4())
    cron = await workload.double.aio_create_cron(
        cron_name=mark, expression="*/10 * * * * *", input=Number(n=1), additional_metadata={"mark": mark}
    )

    async def twice() -> bool:
        return len((await client.runs.aio_list(additional_metadata={"mark": mark})).rows) >= 2

    await eventually(twice)
    await client.cron.aio_delete(cron.metadata.id)
    count = len((await client.runs.aio_list(additional_metadata={"mark": mark})).rows)
    await asyncio.sleep(1.2)
    assert len((await client.runs.aio_list(additional_metadata={"mark": mark})).rows) == count


async def test_a_killed_worker_loses_its_task_to_the_other(
    client: Hatchet, workload: SdkTasks, workers: list[subprocess.Popen[bytes]]
) -> None:
    """``kill -9`` of a worker with its listener: after the silence the task runs again on the other one."""
    ref = await workload.endless.aio_run(wait_for_result=False)

    async def running_on() -> tuple[int, str]:
        with client.runs.client() as api:
            events = TaskApi(api).v1_task_event_list(ref.workflow_run_id, limit=50, offset=0).rows or []
        assigned = next((each for each in events if each.event_type == "ASSIGNED"), None)
        if assigned is None or assigned.worker_id is None:
            return 0, ""
        return assigned.attempt or 0, (await client.workers.aio_get(assigned.worker_id)).name

    async def first_attempt() -> bool:
        return (await running_on())[0] == 1

    await eventually(first_attempt)
    _, name = await running_on()
    victim = psutil.Process(workers[int(name.rsplit("-", 1)[1])].pid)
    for process in [*victim.children(recursive=True), victim]:
        process.kill()

    async def second_attempt() -> bool:
        attempt, other = await running_on()
        return attempt == 2 and other != name

    await eventually(second_attempt, within=LOST_AFTER + 8)
    await client.runs.aio_cancel(ref.workflow_run_id)
