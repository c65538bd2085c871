"""Connections cut before the answer: drivers repeat the call, and nothing is held, lost or reported twice."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Self

import pytest
import redis.asyncio
import redis.backoff
from redis.asyncio.retry import Retry

from mageflow.errors import StoreError
from mageflow.interceptors import Event, Interceptor, LeaseLost
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.runs import start, until

pytestmark = pytest.mark.slow


class CuttingProxy:
    """A proxy before a server; at random it drops an answer and closes the connection.

    Args:
        port: The server's.
        share: Of the answers, once `is_cutting`.
    """

    def __init__(self, port: int, share: float) -> None:
        self._upstream = port
        self._share = share
        self._source = random.Random(11)
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_cutting = False
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *arguments: object) -> None:
        self._server.close()
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        there = asyncio.create_task(self._pump(reader, up_writer, may_cut=False))
        try:
            await self._pump(up_reader, writer, may_cut=True)
        finally:
            there.cancel()
            for each in (writer, up_writer):
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, may_cut: bool) -> None:
        while data := await reader.read(65536):
            if may_cut and self.is_cutting and self._source.random() < self._share:
                self.cuts += 1
                return
            writer.write(data)


class Losses(Interceptor):
    """Counts leases that were reported lost."""

    def __init__(self) -> None:
        self.count = 0

    def event(self, event: Event) -> None:
        self.count += isinstance(event, LeaseLost)


@pytest.fixture
async def proxy(valkey: EmbeddedValkey) -> AsyncIterator[CuttingProxy]:
    """A proxy that drops one answer in twelve."""
    async with CuttingProxy(valkey.port, 1 / 12) as proxy:
        yield proxy


@pytest.mark.parametrize("retries", [0, 6])
async def test_lost_answers_cost_no_lease_and_leave_no_lock(
    proxy: CuttingProxy, valkey: EmbeddedValkey, retries: int
) -> None:
    """Twelve runs, four locks: never two inside, no lease reported lost, and every lock is free at the end."""
    losses = Losses()
    client = redis.asyncio.Redis(port=proxy.port, retry=Retry(redis.backoff.NoBackoff(), retries))
    port = RedisPort(client)
    locks = LockService(LockStore(port, Keys("mageflow", "tests")), losses, lease_seconds=12.0)
    inside = [0, 0, 0, 0]
    entered = failed = 0

    async def run(number: int) -> None:
        nonlocal entered, failed
        source = random.Random(number)
        for _ in range(12):
            key = source.randrange(4)
            try:
                async with locks.resource("orders").acquire(key):
                    inside[key] += 1
                    assert inside[key] == 1
                    await asyncio.sleep(0)
                    inside[key] -= 1
                    entered += 1
            except StoreError:
                failed += 1

    proxy.is_cutting = True
    async with asyncio.timeout(60):
        await asyncio.gather(*(start(run(number)) for number in range(12)))
    proxy.is_cutting = False
    assert proxy.cuts > 5
    assert entered + failed == 144
    assert losses.count == 0
    if retries:
        assert entered > 140

    async def is_free() -> bool:
        report = await locks.snapshot()
        return not report.holders and not report.waiters

    await until(is_free)
    await locks.aclose()
    await client.aclose()
