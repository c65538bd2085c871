"""Flows on a Redis Cluster, where a script may only touch the keys of one slot."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis.asyncio
import redis.asyncio.cluster

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.signatures import Status, SwarmConfig
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.ports import free_port
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.conftest import stop
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker

QUICK = Settings(reconcile_grace_seconds=0.03, reconcile_check_seconds=0.05, reconcile_interval_seconds=0.01)


@pytest.fixture(scope="module")
def cluster_server() -> Iterator[EmbeddedValkey]:
    """One node that is a whole cluster: it refuses a script over two slots like any other cluster."""
    bus = {
        "cluster-enabled": "yes",
        "cluster-port": str(free_port()),
    }  # else 10,000 above the port, which may not exist
    with EmbeddedValkey(options=bus) as server:
        yield server


@pytest.fixture
async def cluster(cluster_server: EmbeddedValkey) -> AsyncIterator[Store]:
    """A store on the cluster."""
    async with redis.asyncio.Redis.from_url(cluster_server.url) as node:
        info = await node.execute_command("CLUSTER", "INFO")
        if "cluster_state:ok" not in str(info):
            await node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with asyncio.timeout(60):
            while "cluster_state:ok" not in str(await node.execute_command("CLUSTER", "INFO")):
                await asyncio.sleep(0.05)
        await node.flushall()
    client = redis.asyncio.cluster.RedisCluster.from_url(cluster_server.url)
    try:
        yield Store(RedisPort(client), Keys("mageflow", "cluster"), QUICK)
    finally:
        await client.aclose()
    assert cluster_server.keys_without_ttl() == []


async def echo(message: dict[str, Any]) -> Any:
    return message


async def test_flows_that_span_slots_run_on_a_cluster(cluster: Store) -> None:
    """A chain with a nested swarm, callbacks, suspend and resume, the census and the reconciler."""
    hatchet = FakeHatchet()
    flows = Flows(cluster, hatchet, hatchet, QUICK)
    working = FakeWorker(hatchet, flows, dict.fromkeys(("one", "two", "done"), echo))
    inner = await flows.creation.swarm(["one"] * 6, config=SwarmConfig(max_concurrency=3), closed=True)
    chain = await flows.creation.chain(["one", inner, "two"], success=["done"])
    while flows._store.keys.parse(inner.key).shard == flows._store.keys.parse(chain.key).shard:
        inner = await flows.creation.swarm(["one"] * 6, config=SwarmConfig(max_concurrency=3), closed=True)
        chain = await flows.creation.chain(["one", inner, "two"], success=["done"])
    await flows.start(chain, {"m": 1})
    await chain.suspend()
    await working.drain()
    await chain.resume()
    reconciler = flows.reconciler()
    async with asyncio.timeout(60):
        while not (await flows.load(chain.key)).has_ended or hatchet.queue:
            await working.drain()
            await reconciler.sweep()
    assert (await flows.load(chain.key)).status is Status.DONE
    assert hatchet.by_task()["done"] == 1
    census = await cluster.census()
    assert census.signatures["chain", "done"] == census.signatures["swarm", "done"]
    assert await cluster.lead("me", 5) == 0.0
    assert await chain.remove()
    await stop(flows)


async def test_a_signature_reaches_its_copy_in_another_slot(cluster: Store) -> None:
    """As a step, and as an item that is added later."""
    hatchet = FakeHatchet()
    flows = Flows(cluster, hatchet, hatchet, QUICK)
    steps = [await flows.creation.sign("one", number=number) for number in range(8)]
    items = [await flows.creation.sign("two", number=number) for number in range(8)]
    chain = await flows.creation.chain(steps)
    swarm = await flows.creation.swarm(["one"])
    keys = [*chain.steps, *await swarm.add(items)]
    assert len({flows._store.keys.parse(each.key).shard for each in (*steps, *items)}) > 1
    for signature, key in zip((*steps, *items), keys, strict=True):
        await flows.lifecycle.suspend(signature.key)
        assert (await flows.load(key)).status is Status.SUSPENDED
    await stop(flows)
