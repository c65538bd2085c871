"""Locks with real workers and a real engine, each in its own process."""

import asyncio
import itertools
import json
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mageflow.engine import LocalEngine
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing import samples
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.testing.workers import WorkerProcess
from tests.locks.deadlock_plan import execute, plan
from tests.locks.runs import until, waiting

SCRIPT = Path(__file__).with_name("lock_worker.py")
Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    """A server for this file: the server of the session is emptied for each test, and these workers live longer."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="module")
def begin(
    mageflow_engine: LocalEngine, valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Start]:
    """Starts workers with all lock tasks; their endpoints are found through the directory ``sd``."""
    directory = tmp_path_factory.mktemp("workers")
    started: list[WorkerProcess] = []

    def begin(name: str, **settings: str) -> WorkerProcess:
        environment = {
            "MAGEFLOW_REDIS_URL": valkey.url,
            "MAGEFLOW_METRICS_PORT": "0",
            "MAGEFLOW_METRICS_SD_DIR": str(directory / "sd"),
            **settings,
        }
        output = directory / f"{name}.log"
        worker = WorkerProcess(mageflow_engine, SCRIPT, name, "6", output=output, name=name, environment=environment)
        started.append(worker)
        return worker.start(120)

    begin.directory = directory  # type: ignore[attr-defined]
    yield begin
    with ThreadPoolExecutor() as pool:
        list(pool.map(WorkerProcess.stop, started))


@pytest.fixture(scope="module")
def pair(begin: Start) -> list[str]:
    """Two worker processes; the addresses of their endpoints."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(begin, ("locks-one", "locks-two")))
    return endpoints(begin.directory)  # type: ignore[attr-defined]


@pytest.fixture
async def tasks(mageflow_engine: object, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tasks as a module, for a program that only sends runs."""
    monkeypatch.setenv("MAGEFLOW_REDIS_URL", valkey.url)
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("lock_worker_client", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def watch(valkey: EmbeddedValkey) -> AsyncIterator[LockService]:
    """A lock service that reads the locks of the workers."""
    port = RedisPort(valkey.url)
    locks = LockService(LockStore(port, Keys("mageflow", "")))
    yield locks
    await locks.aclose()
    await port.aclose()
    assert valkey.keys_without_ttl() == []


def endpoints(directory: Path) -> list[str]:
    """The addresses of the workers' endpoints."""
    found: list[str] = []
    for file in (directory / "sd").glob("*.json"):
        for group in json.loads(file.read_text()):
            found.extend(f"http://{target}" for target in group["targets"])
    return found


def read(url: str) -> str:
    """The text of one endpoint."""
    with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310 - a worker of this test
        return reply.read().decode()


@pytest.mark.slow
async def test_deadlock_of_two_tasks_costs_one_retry_and_both_finish(
    pair: list[str], tasks: Any, watch: LockService
) -> None:
    """Two tasks close a cycle; Hatchet runs the victim again; one process counts it, and only once."""
    items = [
        tasks.cross.create_bulk_run_item(tasks.Want(first=first, second=second))
        for first, second in (("a", "b"), ("b", "a"))
    ]
    async with asyncio.timeout(90):
        results = await tasks.cross.aio_run_many(items)
    assert sorted(each["attempt"] for each in results) == [1, 2]
    assert len({each["token"] for each in results}) == 2
    report = await watch.snapshot()
    assert report.holders == ()
    assert report.waiters == ()
    scraped = [samples(await asyncio.to_thread(read, f"{each}/metrics")) for each in pair]
    assert len(scraped) == 2
    counted = [
        each.total("mageflow_deadlocks_total", lock="shelf", victim_task="cross", resolution="victim_retried")
        for each in scraped
    ]
    assert sorted(counted) == [0, 1]
    acquired = sum(each.value("mageflow_lock_acquisitions_total", lock="shelf", outcome="acquired") for each in scraped)
    assert acquired == 5, "two each, and the victim's first one again"
    assert sum(each.total("mageflow_task_runs_total", task="cross", outcome="retried") for each in scraped) == 1


@pytest.mark.slow
async def test_planned_deadlocks_cost_one_victim_each_and_are_counted_once(
    pair: list[str], tasks: Any, watch: LockService
) -> None:
    """Cycles of 2, 3 and 5 runs under every policy. ``test_planned_deadlocks.py``, run by hand, does hundreds."""
    planned = plan(9)
    async with asyncio.timeout(90):
        results = await execute(tasks, planned, slots=10)
    assert [fault for each in results for fault in each.faults()] == []
    report = await watch.snapshot()
    assert report.holders == ()
    assert report.waiters == ()
    scraped = [samples(await asyncio.to_thread(read, f"{each}/metrics")) for each in pair]
    counted = [each.total("mageflow_deadlocks_total", lock="places", victim_task="take-part") for each in scraped]
    assert sum(counted) == len(planned)
    assert sum(each.total("mageflow_task_runs_total", task="take-part", outcome="retried") for each in scraped) == 9


@pytest.mark.slow
async def test_exclusive_tasks_never_overlap(pair: list[str], tasks: Any, watch: LockService) -> None:
    """Synchronous and asynchronous bodies, two processes, one key: one after the other; another key does not wait."""
    same = tasks.Want(first="x", seconds=0.15)
    other = tasks.Want(first="y", seconds=0.0)
    async with asyncio.timeout(90):
        runs = await asyncio.gather(
            tasks.exclusive_async.aio_run_many([tasks.exclusive_async.create_bulk_run_item(same) for _ in range(4)]),
            tasks.exclusive_sync.aio_run_many([tasks.exclusive_sync.create_bulk_run_item(same) for _ in range(4)]),
            tasks.exclusive_sync.aio_run(other),
        )
    spans = sorted((each["began"], each["ended"]) for each in (*runs[0], *runs[1]))
    assert len(spans) == 8
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))


@pytest.mark.slow
async def test_task_may_wait_longer_than_its_own_timeout(pair: list[str], tasks: Any, watch: LockService) -> None:
    """A synchronous task with three seconds waits for more: its timeout grows while it waits."""
    holding = asyncio.create_task(tasks.hold.aio_run(tasks.Want(first="k", seconds=8.0)))

    async def is_held() -> bool:
        return bool((await watch.snapshot()).holders)

    await until(is_held)
    run = asyncio.create_task(tasks.impatient.aio_run(tasks.Want(first="k")))
    report = await waiting(watch, 1)
    assert (report.waiters[0].task, report.waiters[0].holder_task) == ("impatient", "hold")
    async with asyncio.timeout(90):
        assert (await run)["waited"] > 3.0
        await holding


@pytest.mark.slow
async def test_debug_endpoint_shows_the_locks(pair: list[str], tasks: Any, watch: LockService) -> None:
    """``/debug/locks`` is the report of `mageflow locks`, from inside the worker."""
    holding = asyncio.create_task(tasks.hold.aio_run(tasks.Want(first="secret-key", seconds=6.0)))

    async def is_held() -> bool:
        return bool((await watch.snapshot()).holders)

    await until(is_held)

    text = await asyncio.to_thread(read, f"{pair[0]}/debug/locks")
    assert "secret-key" not in text
    document = json.loads(text)
    assert [(each["lock"], each["task"]) for each in document["holders"]] == [("orders", "hold")]
    assert document["holders"][0]["run_id"]
    async with asyncio.timeout(90):
        await holding


@pytest.mark.slow
async def test_lock_of_a_killed_worker_is_free_after_its_lease(
    begin: Start, pair: list[str], tasks: Any, watch: LockService
) -> None:
    """Another worker's waiting task gets it; nothing waits for the engine to notice the death."""
    victim = await asyncio.to_thread(begin, "locks-victim", MAGEFLOW_LOCK_LEASE_SECONDS="4")
    await tasks.hold_here.aio_run(tasks.Want(first="k", seconds=60.0), wait_for_result=False)

    async def is_held() -> bool:
        return bool((await watch.snapshot()).holders)

    await until(is_held)
    run = asyncio.create_task(tasks.impatient.aio_run(tasks.Want(first="k")))
    await waiting(watch, 1)
    await asyncio.to_thread(victim.kill)
    async with asyncio.timeout(90):
        assert (await run)["waited"] >= 0
