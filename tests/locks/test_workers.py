"""Locks under real workers and a real engine, in processes of their own."""

import asyncio
import itertools
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing import samples
from mageflow.testing.plugin import Workers
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.testing.workers import WorkerProcess
from tests.locks.scenes import until, waiting

SCRIPT = Path(__file__).with_name("lock_worker.py")
Start = Callable[..., Awaitable[WorkerProcess]]


@pytest.fixture
async def begin(mageflow_worker: Workers, mageflow_redis: EmbeddedValkey, tmp_path: Path) -> Start:
    """Starts a worker with all lock tasks and so many slots; its endpoint is found through ``tmp_path``."""
    numbers = itertools.count(1)

    async def begin(slots: int, **settings: str) -> WorkerProcess:
        name = f"locks-{next(numbers)}-{os.getpid()}"
        environment = {
            "MAGEFLOW_REDIS_URL": mageflow_redis.url,
            "MAGEFLOW_METRICS_PORT": "0",
            "MAGEFLOW_METRICS_SD_DIR": str(tmp_path / "sd"),
            **settings,
        }
        worker = mageflow_worker(SCRIPT, name, str(slots), name=name, environment=environment, start=False)
        return await worker.aio_start()

    return begin


@pytest.fixture
async def tasks(mageflow_engine: object, mageflow_redis: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same tasks, as a program that only runs them sees them."""
    monkeypatch.setenv("MAGEFLOW_REDIS_URL", mageflow_redis.url)
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("lock_worker_client", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def watch(mageflow_redis: EmbeddedValkey) -> AsyncIterator[LockService]:
    """Looks at the locks of the workers."""
    port = RedisPort(mageflow_redis.url)
    locks = LockService(LockStore(port, Keys("mageflow", "")))
    yield locks
    await locks.aclose()
    await port.aclose()
    assert mageflow_redis.keys_without_ttl() == []


def endpoints(directory: Path) -> list[str]:
    """Where the workers' metrics are."""
    found: list[str] = []
    for file in (directory / "sd").glob("*.json"):
        for group in json.loads(file.read_text()):
            found.extend(f"http://{target}" for target in group["targets"])
    return found


def read(url: str) -> str:
    """What an endpoint of a worker says."""
    with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310 - a worker of this test
        return reply.read().decode()


@pytest.mark.slow
async def test_deadlock_of_two_workers_costs_one_retry_and_both_finish(
    begin: Start, tasks: Any, watch: LockService, tmp_path: Path
) -> None:
    """Two tasks in two processes close a cycle; Hatchet runs the victim again; one process counts it, and only once."""
    await asyncio.gather(begin(1), begin(1))
    items = [
        tasks.cross.create_bulk_run_item(tasks.Want(first=first, second=second))
        for first, second in (("a", "b"), ("b", "a"))
    ]
    async with asyncio.timeout(25):
        results = await tasks.cross.aio_run_many(items)
    assert sorted(each["attempt"] for each in results) == [1, 2]
    assert len({each["token"] for each in results}) == 2
    report = await watch.snapshot()
    assert report.holders == ()
    assert report.waiters == ()
    scraped = [samples(await asyncio.to_thread(read, f"{each}/metrics")) for each in endpoints(tmp_path)]
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
async def test_exclusive_tasks_never_overlap(begin: Start, tasks: Any, watch: LockService) -> None:
    """Synchronous and asynchronous bodies, two processes, one key: one after the other; another key is not held up."""
    await asyncio.gather(begin(6), begin(6))
    same = tasks.Want(first="x", seconds=0.15)
    other = tasks.Want(first="y", seconds=0.0)
    async with asyncio.timeout(25):
        runs = await asyncio.gather(
            tasks.exclusive_async.aio_run_many([tasks.exclusive_async.create_bulk_run_item(same) for _ in range(4)]),
            tasks.exclusive_sync.aio_run_many([tasks.exclusive_sync.create_bulk_run_item(same) for _ in range(4)]),
            tasks.exclusive_sync.aio_run(other),
        )
    spans = sorted((each["began"], each["ended"]) for each in (*runs[0], *runs[1]))
    assert len(spans) == 8
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))


@pytest.mark.slow
async def test_task_may_wait_longer_than_its_own_timeout(begin: Start, tasks: Any, watch: LockService) -> None:
    """A synchronous task with three seconds waits for five: its timeout grows while it waits."""
    await begin(4)
    holding = asyncio.create_task(tasks.hold.aio_run(tasks.Want(first="k", seconds=5.0)))

    async def is_held() -> bool:
        return bool((await watch.snapshot()).holders)

    await until(is_held)
    run = asyncio.create_task(tasks.impatient.aio_run(tasks.Want(first="k")))
    report = await waiting(watch, 1)
    assert (report.waiters[0].task, report.waiters[0].holder_task) == ("impatient", "hold")
    async with asyncio.timeout(25):
        assert (await run)["waited"] > 3.0
        await holding


@pytest.mark.slow
async def test_debug_endpoint_shows_the_locks(begin: Start, tasks: Any, watch: LockService, tmp_path: Path) -> None:
    """``/debug/locks`` is the report of `mageflow locks`, from inside the worker."""
    await begin(4)
    holding = asyncio.create_task(tasks.hold.aio_run(tasks.Want(first="secret-key", seconds=2.0)))

    async def is_held() -> bool:
        return bool((await watch.snapshot()).holders)

    await until(is_held)

    text = await asyncio.to_thread(read, f"{endpoints(tmp_path)[0]}/debug/locks")
    assert "secret-key" not in text
    document = json.loads(text)
    assert [(each["lock"], each["task"]) for each in document["holders"]] == [("orders", "hold")]
    assert document["holders"][0]["run_id"]
    async with asyncio.timeout(20):
        await holding


@pytest.mark.slow
async def test_lock_of_a_killed_worker_is_free_after_its_lease(begin: Start, tasks: Any, watch: LockService) -> None:
    """Another worker's waiting task gets it; nothing waits for the engine to notice the death."""
    lease = {"MAGEFLOW_LOCK_LEASE_SECONDS": "1"}
    victim = await begin(1, **lease)
    await tasks.hold.aio_run(tasks.Want(first="k", seconds=60.0), wait_for_result=False)

    async def is_held() -> bool:
        return bool((await watch.snapshot()).holders)

    await until(is_held)
    await begin(2, **lease)
    run = asyncio.create_task(tasks.impatient.aio_run(tasks.Want(first="k")))
    await waiting(watch, 1)
    await asyncio.to_thread(victim.kill)
    async with asyncio.timeout(20):
        assert (await run)["waited"] >= 0
