"""What idle workers send to Redis: it grows with the fleet, so it is little, and does not grow with what is stored."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import redis.asyncio

from mageflow.cluster import ClusterObserver
from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.interceptors import Interceptor
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.cluster.conftest import MakeProcess
from tests.flows.conftest import stop
from tests.flows.fake_hatchet import FakeHatchet

FASTER = 40
"""The intervals of the worker are that much shorter here, so that a minute takes 1.5 seconds."""


async def counted(url: str, work: Callable[[], Awaitable[object]]) -> tuple[int, int, float]:
    """Scripts, and commands within them, that the server ran, and the seconds in which it did."""
    async with redis.asyncio.Redis.from_url(url) as client:
        began = time.monotonic()
        await client.config_resetstat()
        await work()
        calls = {name: each["calls"] for name, each in (await client.info("commandstats")).items()}
        took = time.monotonic() - began
    scripts = calls.pop("cmdstat_evalsha", 0)
    ours = ("cmdstat_config", "cmdstat_client", "cmdstat_hello", "cmdstat_info", "cmdstat_eval")
    return scripts, sum(count for name, count in calls.items() if not name.startswith(ours)), took


async def test_a_reading_and_a_sweep_take_few_commands(process: MakeProcess, mageflow_redis: EmbeddedValkey) -> None:
    """Of nothing; and of signatures in every shard, which are 16 indexes and 16 counts, however many they are."""
    leader = process()
    sweep = leader.flows.reconciler().sweep

    async def both() -> None:
        await leader.observer.observe()
        await sweep()

    await both()
    scripts, commands, _ = await counted(mageflow_redis.url, both)
    assert scripts == 4  # lead, census, lock_snapshot, due
    assert commands <= 16
    grown: list[int] = []
    for _ in range(2):
        for _ in range(120):
            await leader.flows.creation.sign("echo")
        grown.append((await counted(mageflow_redis.url, both))[1])
    assert grown[0] <= 60  # a minute of the idle worker has six readings
    assert grown[1] <= grown[0] + 20  # a shard may have had no signature before
    assert leader.samples.value("mageflow_signatures", kind="task", status="pending") == 240


async def test_an_idle_minute(mageflow_redis: EmbeddedValkey) -> None:
    """The leader reads every ten seconds while nothing changes, and the reconciler looks when something can be due."""
    settings = Settings(
        reconcile_grace_seconds=5 / FASTER, reconcile_check_seconds=30 / FASTER, reconcile_interval_seconds=2 / FASTER
    )
    port, keys, hatchet = RedisPort(mageflow_redis.url), Keys("mageflow", "tests"), FakeHatchet()
    store = Store(port, keys, settings)
    flows = Flows(store, hatchet, hatchet, settings)
    observer = ClusterObserver(
        store,
        LockService(LockStore(port, keys)),
        Interceptor(),
        interval_seconds=5 / FASTER,
        lease_seconds=15 / FASTER,
    )
    running = [asyncio.create_task(flows.reconciler().run()), asyncio.create_task(observer.run())]
    try:
        await asyncio.sleep(20 / FASTER)
        scripts, commands, took = await counted(mageflow_redis.url, lambda: asyncio.sleep(60 / FASTER))
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await stop(flows)
        await port.aclose()
    minutes = took * FASTER / 60  # a busy machine wakes late
    assert 4 <= scripts <= 40 * minutes  # 30 on average; it was 66
    assert commands <= 300 * minutes  # it was 10,000


async def test_a_record_that_becomes_due_is_not_late(process: MakeProcess) -> None:
    """A sweep that finds nothing knows when the next record is due."""
    leader = process()
    reconciler = leader.flows.reconciler()
    assert (await reconciler.sweep()).next_seconds == 24 * 3600
    await leader.flows.start(await leader.flows.creation.chain(["echo", "echo"]))
    found = await reconciler.sweep()
    settings = leader.store.settings
    assert 0 < found.next_seconds <= settings.reconcile_check_seconds
