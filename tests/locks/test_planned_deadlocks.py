"""Hundreds of planned deadlocks on real Hatchet workers: ``pytest -m soak tests/locks/test_planned_deadlocks.py``.

``LOCKS_SOAK_DEADLOCKS`` (200) and ``LOCKS_SOAK_WORKERS`` (4) set how many.
"""

import asyncio
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mageflow.engine import LocalEngine
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing import samples
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.testing.workers import WorkerProcess
from tests.locks.deadlock_plan import execute, expected_victims, plan
from tests.locks.test_workers import SCRIPT, endpoints, read

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

DEADLOCKS = int(os.environ.get("LOCKS_SOAK_DEADLOCKS", "200"))
WORKERS = int(os.environ.get("LOCKS_SOAK_WORKERS", "4"))
SLOTS = 12


async def test_planned_deadlocks_over_workers_cost_one_victim_each(
    mageflow_engine: LocalEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One victim each, the right one; everyone else ends; no run is stuck; the counters say the same."""
    from importlib.util import module_from_spec, spec_from_file_location

    with EmbeddedValkey() as server:
        environment = {
            "MAGEFLOW_REDIS_URL": server.url,
            "MAGEFLOW_METRICS_PORT": "0",
            "MAGEFLOW_METRICS_SD_DIR": str(tmp_path / "sd"),
        }
        workers = [
            WorkerProcess(
                mageflow_engine,
                SCRIPT,
                f"deadlocks-{index}",
                str(SLOTS),
                output=tmp_path / f"{index}.log",
                name=f"deadlocks-{index}",
                environment=environment,
            )
            for index in range(WORKERS)
        ]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda worker: worker.start(120), workers))
        try:
            monkeypatch.setenv("MAGEFLOW_REDIS_URL", server.url)
            spec = spec_from_file_location("lock_worker_soak", SCRIPT)
            assert spec is not None
            assert spec.loader is not None
            tasks = module_from_spec(spec)
            spec.loader.exec_module(tasks)
            planned = plan(DEADLOCKS)
            began = time.monotonic()
            results = await execute(tasks, planned, slots=(SLOTS - 2) * WORKERS)
            took = time.monotonic() - began
            assert [fault for each in results for fault in each.faults()] == []
            port = RedisPort(server.url)
            watch = LockService(LockStore(port, Keys("mageflow", "")))
            report = await watch.snapshot()
            assert (report.holders, report.waiters) == ((), ())
            await watch.aclose()
            await port.aclose()
            scraped = [samples(await asyncio.to_thread(read, f"{each}/metrics")) for each in endpoints(tmp_path)]
            assert len(scraped) == WORKERS
            deadlocks = [
                each.total("mageflow_deadlocks_total", lock="places", victim_task="take-part") for each in scraped
            ]
            retried = sum(
                each.total("mageflow_task_runs_total", task="take-part", outcome="retried") for each in scraped
            )
            victims = sum(len(each.victims) for each in results)
            assert sum(deadlocks) == retried == victims == DEADLOCKS
            used = Counter(result["worker"] for each in results for result in each.results)
            assert len(used) == WORKERS
            assert server.keys_without_ttl() == []
            with capsys.disabled():
                print(
                    f"\n{DEADLOCKS} deadlocks of {sum(each.size for each in planned)} runs over {WORKERS} workers in "
                    f"{took:.0f} s: {victims} victims, {sum(deadlocks):.0f} counted ({deadlocks}), "
                    f"by policy {dict(expected_victims(planned))}"
                )
        finally:
            with ThreadPoolExecutor() as pool:
                list(pool.map(WorkerProcess.stop, workers))
