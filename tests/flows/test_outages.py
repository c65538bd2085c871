"""Redis and the engine go away and come back in the middle of everything."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mageflow import Mageflow, Settings
from mageflow.engine import LocalEngine
from mageflow.errors import MageflowError
from mageflow.signatures import SwarmConfig
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.testing.workers import WorkerProcess

SCRIPT = Path(__file__).with_name("mortal_worker.py")
FLOWS = 100


@pytest.fixture
def lasting() -> Iterator[EmbeddedValkey]:
    """A Valkey that writes everything down."""
    with EmbeddedValkey(append_only=True) as server:
        yield server


async def hundred(client: Mageflow) -> list[str]:
    keys: list[str] = []
    for index in range(FLOWS):
        if index % 4:
            flow: Any = await client.chain(["step"] * 3, success="flow_done", error="flow_failed")
        else:
            flow = await client.swarm(["step"] * 6, config=SwarmConfig(max_concurrency=3), closed=True)
        await flow.aio_run_no_wait()
        keys.append(flow.key)
    return keys


async def statuses(client: Mageflow, keys: list[str]) -> list[Any]:
    return [await client.load_signature(key) for key in keys]


async def all_ended(client: Mageflow, keys: list[str], seconds: float) -> list[Any]:
    deadline = time.monotonic() + seconds
    while True:
        found: list[Any] = []
        try:
            found = await statuses(client, keys)
        except MageflowError:
            await asyncio.sleep(0.2)
        if found and all(each.has_ended for each in found):
            return found
        left = [each.key for each in found if not each.has_ended]
        assert time.monotonic() < deadline, f"{len(left)} never ended, such as {left[:3]}"
        await asyncio.sleep(0.3)


def worker(engine: LocalEngine, valkey: EmbeddedValkey, folder: Path, name: str) -> WorkerProcess:
    environment = {"PROBE_REDIS": valkey.url, "PYTHONPATH": str(SCRIPT.parents[2])}
    return WorkerProcess(engine, SCRIPT, output=folder / f"{name}.log", environment=environment)


@pytest.mark.slow
@pytest.mark.timeout(150)  # a loaded machine takes its time to start workers
async def test_a_hundred_flows_survive_a_restart_of_redis(
    lasting: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed like a power cut and started again, twice, while all run: every flow ends, and as succeeded."""
    with LocalEngine(worker_lost_after=5.0) as engine:
        for name, value in engine.environment().items():
            monkeypatch.setenv(name, value)
        client = Mageflow(engine.client(), lasting.url, settings=Settings(metrics=False))
        serving = worker(engine, lasting, tmp_path, "worker")
        await serving.aio_start()
        try:
            keys = await hundred(client)
            for _ in range(2):
                await asyncio.sleep(0.5)
                lasting.kill()
                await asyncio.sleep(0.7)
                await asyncio.to_thread(lasting.start)
            ended = await all_ended(client, keys, 60)
        finally:
            await serving.aio_stop()
    assert {str(each.status) for each in ended} == {"done"}
    assert lasting.keys_without_ttl() == []


@pytest.mark.slow
@pytest.mark.timeout(150)  # a loaded machine takes its time to start workers
async def test_a_hundred_flows_survive_an_engine_that_forgets_everything(
    lasting: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local engine keeps nothing over a restart: what it had is sent again, begun or not; each flow ends done."""
    with LocalEngine() as first:
        for name, value in first.environment().items():
            monkeypatch.setenv(name, value)
        client = Mageflow(first.client(), lasting.url, settings=Settings(metrics=False))
        serving = worker(first, lasting, tmp_path, "first")
        await serving.aio_start()
        keys = await hundred(client)
        serving.kill()
    with LocalEngine() as second:
        for name, value in second.environment().items():
            monkeypatch.setenv(name, value)
        serving = worker(second, lasting, tmp_path, "second")
        await serving.aio_start()
        try:
            ended = await all_ended(client, keys, 60)
        finally:
            await serving.aio_stop()
    resent = [each for each in ended if any("sent again" in entry.why for entry in each.history)]
    print(f"\nof {len(ended)} flows {len(resent)} had runs that Hatchet forgot")
    assert resent
    assert {str(each.status) for each in ended} == {"done"}
