"""A Sentinel that makes the replica the master in the middle of locks and flows."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from mageflow.store import RedisPort
from tests.locks.runs import Gate, start, waiting
from tests.store.redis_workload import Parts
from tests.store.topologies import Watched, valkey_binary

SECRET = "secret"  # noqa: S105


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A master, a replica and a sentinel, fresh for each test: what has failed over stays so."""
    with Watched(valkey_binary(), SECRET) as servers:
        yield servers


def client_of(watched: Watched, *, is_sync: bool = False) -> Any:
    """As the driver's documentation shows it."""
    module: Any = redis.sentinel if is_sync else redis.asyncio.sentinel
    sentinel = module.Sentinel([("127.0.0.1", watched.sentinel.port)], password=SECRET, socket_timeout=4.0)
    return sentinel.master_for(watched.name)


@pytest.mark.slow
@pytest.mark.parametrize("is_sync", [False, True], ids=["asyncio", "synchronous"])
async def test_locks_and_flows_outlive_a_fail_over(watched: Watched, is_sync: bool) -> None:
    """What the replica had is still held, its waiter is served, a flow that was under way ends."""
    client = client_of(watched, is_sync=is_sync)
    parts = Parts(client, lease_seconds=40)
    held = Gate()

    async def hold() -> int:
        async with parts.locks.resource("orders").acquire() as lease:
            await held.pass_through()
            lease.check()
            return lease.token

    async def ask() -> int:
        async with parts.locks.resource("orders").acquire() as lease:
            return lease.token

    await parts.everything()
    holder = start(hold())
    await held.reached()
    waiter = start(ask())
    await waiting(parts.locks, 1)

    async def fail_over() -> None:
        await asyncio.to_thread(watched.fail_over)
        async with asyncio.timeout(90):  # the driver finds the new master when it has lost the old one
            while True:
                try:
                    await parts.locks.snapshot()
                    break
                except Exception:  # noqa: BLE001 - a fail-over has many errors
                    await asyncio.sleep(0.1)

    await parts.run_flow(during=fail_over)
    held.open()
    async with asyncio.timeout(60):
        tokens = [await holder, await waiter]
    assert tokens == sorted(set(tokens))
    await parts.everything()
    await parts.aclose()
    for each in (client, *client.connection_pool.sentinel_manager.sentinels):
        await (asyncio.to_thread(each.close) if is_sync else each.aclose())


def test_second_event_loop_finds_the_master_by_itself(watched: Watched) -> None:
    """Its connections, those to the sentinel included, are its own; it follows a fail-over."""
    client = client_of(watched)
    port = RedisPort(client)

    async def use() -> Any:
        return await port.command("ROLE")

    async def other() -> Any:
        answers = [await use()]
        await asyncio.to_thread(watched.fail_over)
        async with asyncio.timeout(90):
            while True:
                try:
                    answers.append(await use())
                    break
                except Exception:  # noqa: BLE001 - a fail-over has many errors
                    await asyncio.sleep(0.1)
        await port.aclose()
        return answers

    async def first() -> Any:
        mine = await use()
        others = await asyncio.to_thread(asyncio.run, other())
        for each in (client, *client.connection_pool.sentinel_manager.sentinels):
            await each.aclose()
        return [mine, *others]

    assert [each[0] for each in asyncio.run(first())] == ["master"] * 3
