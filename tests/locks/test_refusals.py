"""Redis refuses for a while: a request for locks waits as long as it may, and the locks go on."""

import asyncio
import time
from collections.abc import Generator
from datetime import timedelta

import pytest
import redis
import redis.asyncio

from mageflow.errors import StoreUnavailableError
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.chaos.refusals import Refusal, away, forbidden, full, master_down, no_replicas, read_only
from tests.locks.runs import attempt, start


@pytest.fixture
def own_valkey() -> Generator[EmbeddedValkey]:
    """A server that may be spoiled."""
    with EmbeddedValkey(append_only=True) as server:
        yield server


@pytest.mark.parametrize("refusal", [full, forbidden, no_replicas, read_only, master_down, away])
async def test_a_request_waits_until_redis_accepts(own_valkey: EmbeddedValkey, refusal: Refusal) -> None:
    """Outside of tasks, in a task, and under a timeout: all three are granted, one after the other."""
    port = RedisPort(own_valkey.url)
    locks = LockService(LockStore(port, Keys("mageflow", "tests")))
    entered: list[int] = []

    async def run(number: int, limit: timedelta | None = None) -> None:
        async with locks.resource("orders").acquire(timeout=limit):
            entered.append(number)

    with redis.Redis.from_url(own_valkey.url) as admin:
        admin.ping()
        with refusal(admin, own_valkey):
            runs = [start(run(1)), start(run(2), within=attempt("r2")), start(run(3, timedelta(seconds=90)))]
            await asyncio.sleep(1.0)
            assert entered == []
            assert not any(each.done() for each in runs)
        async with asyncio.timeout(60):
            await asyncio.gather(*runs)
    assert sorted(entered) == [1, 2, 3]
    await locks.aclose()
    await port.aclose()


async def test_a_request_gives_up_at_its_timeout(own_valkey: EmbeddedValkey) -> None:
    """With the error of the outage; a request that tries once does not wait."""
    port = RedisPort(own_valkey.url)
    locks = LockService(LockStore(port, Keys("mageflow", "tests")))
    with redis.Redis.from_url(own_valkey.url) as admin, full(admin, own_valkey):
        for seconds in (0.0, 1.0):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match=r"OOM|maxmemory"):
                async with locks.resource("orders").acquire(timeout=timedelta(seconds=seconds)):
                    pytest.fail("entered")
            assert seconds / 3 <= time.monotonic() - began < 30
    await locks.aclose()
    await port.aclose()


async def test_a_pool_of_one_connection_serves_many_requests(own_valkey: EmbeddedValkey) -> None:
    """Requests that wait in line do not keep the connection from the release that they wait for."""
    client = redis.asyncio.Redis.from_url(own_valkey.url, max_connections=1)
    port = RedisPort(client)
    locks = LockService(LockStore(port, Keys("mageflow", "tests")))
    entered: list[int] = []

    async def run(number: int) -> None:
        async with locks.resource("orders").acquire(timeout=timedelta(seconds=60)):
            entered.append(number)

    async with asyncio.timeout(60):
        await asyncio.gather(*(start(run(number)) for number in range(20)))
    assert sorted(entered) == list(range(20))
    await locks.aclose()
    await port.aclose()
    await client.aclose()
