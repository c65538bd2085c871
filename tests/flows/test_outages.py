"""Redis and the engine stop and come back while flows run."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from mageflow import Mageflow, Settings
from mageflow.engine import LocalEngine
from mageflow.errors import MageflowError
from mageflow.signatures import SwarmConfig
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.crash_injection.fork_server import ForkServer
from tests.flows.crash_injection.verify import JOURNAL_FILE, read_journal

FLOWS = 100


@pytest.fixture
def lasting() -> Iterator[EmbeddedValkey]:
    """A Valkey that writes everything to disk."""
    with EmbeddedValkey(append_only=True) as server:
        yield server


async def hundred(client: Mageflow) -> list[str]:
    keys: list[str] = []
    for index in range(FLOWS):
        if index % 4:
            flow: Any = await client.chain(["step"] * 3, success="on_success", error="on_error")
        else:
            flow = await client.swarm(["step"] * 6, config=SwarmConfig(max_concurrency=3), closed=True)
        await flow.aio_run_no_wait()
        keys.append(flow.key)
    return keys


async def all_ended(client: Mageflow, keys: list[str], seconds: float) -> list[Any]:
    deadline = time.monotonic() + seconds
    ended: dict[str, Any] = {}
    while left := [key for key in keys if key not in ended]:
        assert time.monotonic() < deadline, f"{len(left)} never ended, such as {left[:3]}"
        with suppress(MageflowError):
            for key in left:
                flow = await client.load_signature(key)
                if flow.has_ended:
                    ended[key] = flow
        await asyncio.sleep(0.3)
    return [ended[key] for key in keys]


@pytest.mark.slow
async def test_a_hundred_flows_survive_a_restart_of_redis(lasting: EmbeddedValkey, tmp_path: Path) -> None:
    """Killed and started again, twice, while all run: every flow ends as done."""
    async with ForkServer(lasting.url, tmp_path) as server, LocalEngine() as engine:
        client = Mageflow(engine.client(namespace="outage"), lasting.url, settings=Settings(metrics=False))
        await server.start(engine, "outage")
        keys = await hundred(client)
        for _ in range(2):
            await asyncio.sleep(0.5)
            lasting.kill()
            await asyncio.sleep(0.7)
            await asyncio.to_thread(lasting.start)
        ended = await all_ended(client, keys, 120)
    assert {str(each.status) for each in ended} == {"done"}
    assert lasting.keys_without_ttl() == []


@pytest.mark.slow
async def test_a_hundred_flows_survive_a_redis_that_is_full(lasting: EmbeddedValkey, tmp_path: Path) -> None:
    """It refuses for three seconds, twice, while all run: every flow ends as done, and every step was admitted once."""
    async with ForkServer(lasting.url, tmp_path) as server, LocalEngine() as engine:
        client = Mageflow(engine.client(namespace="outage"), lasting.url, settings=Settings(metrics=False))
        await server.start(engine, "outage")
        keys = await hundred(client)
        with redis.Redis.from_url(lasting.url) as operator:
            for _ in range(2):
                await asyncio.sleep(0.3)
                operator.config_set("maxmemory", "100kb")
                await asyncio.sleep(3)
                operator.config_set("maxmemory", "0")
        ended = await all_ended(client, keys, 120)
    assert {str(each.status) for each in ended} == {"done"}
    bodies = Counter((each.record, each.path) for each in read_journal(tmp_path / JOURNAL_FILE))
    doubled = [body for body, times in bodies.items() if times > 1]
    print(f"\n{len(ended)} flows: 0 failed; {len(bodies)} task functions ran, {len(doubled)} of them twice")
    assert len(bodies) >= FLOWS // 4 * 6 + FLOWS * 3 // 4 * 3
    assert doubled == []
    assert lasting.keys_without_ttl() == []


@pytest.mark.slow
async def test_a_hundred_flows_survive_an_engine_that_forgets_everything(
    lasting: EmbeddedValkey, tmp_path: Path
) -> None:
    """The local engine stores nothing: lost runs are sent again, and each flow ends as done."""
    async with ForkServer(lasting.url, tmp_path) as server:
        async with LocalEngine() as first:
            client = Mageflow(first.client(namespace="outage"), lasting.url, settings=Settings(metrics=False))
            serving = await server.start(first, "outage")
            keys = await hundred(client)
            serving.kill()
        async with LocalEngine() as second:
            await server.start(second, "outage")
            ended = await all_ended(client, keys, 120)
    resent = [each for each in ended if any("sent again" in entry.why for entry in each.history)]
    print(f"\nof {len(ended)} flows {len(resent)} had runs that Hatchet forgot")
    assert resent
    assert {str(each.status) for each in ended} == {"done"}
