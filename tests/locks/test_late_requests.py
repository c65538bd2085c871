"""A request may reach Redis after its release: its caller was cancelled, and another connection was quicker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio

from mageflow.interceptors import ResourceKey
from mageflow.locks import LockService
from mageflow.store import Keys, LockClaim, LockOwner, LockStore, RedisPort
from mageflow.store.locks.store import _ACQUIRE
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.runs import is_free, start, until

A, B = ResourceKey("alpha"), ResourceKey("beta")
KEYS = Keys("mageflow", "tests")


class Road:
    """A proxy before a server. It keeps requests for locks, and sends them on when it is opened."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._pumps: set[asyncio.Task[None]] = set()
        self.is_open = asyncio.Event()
        self.kept = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        """The port at which clients connect."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()
        async with asyncio.timeout(60):  # the connections of the clients are closed by now
            await asyncio.gather(*self._pumps)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        for pump in (self._there(reader, up_writer), self._back(up_reader, writer)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if _ACQUIRE.sha.encode() in data and not self.is_open.is_set():
                self.kept += 1
                await self.is_open.wait()
            writer.write(data)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


def claim(request_id: str, *resources: ResourceKey) -> LockClaim:
    """A request of a new attempt in the one session of this test."""
    return LockClaim(
        request_id=request_id,
        attempt_id=f"{request_id}:1",
        session_id="late.0",
        session_is_open=False,
        resources=resources,
        owner=LockOwner("task", "run", "task-run", 1, "worker", "0" * 32, will_retry=True),
        lease_seconds=60.0,
        wake_id="late",
    )


@pytest.mark.parametrize("resources", [(A,), (A, B)])
async def test_a_request_that_comes_after_its_release_gets_nothing(
    store: LockStore, valkey: EmbeddedValkey, resources: tuple[ResourceKey, ...]
) -> None:
    """By the short script of the usual case and by the whole one. The next request of the session is granted."""
    assert (await store.release("late", resources)).verdict.released == 0
    assert (await store.acquire(claim("late", *resources))).verdict.kind == "ended"
    assert (await store.acquire(claim("late", *resources))).verdict.kind == "ended"
    assert (await store.snapshot()).locks_total == 0
    assert (await store.acquire(claim("next", *resources))).verdict.kind == "granted"
    async with redis.asyncio.Redis.from_url(valkey.url) as client:
        assert 50_000 < await client.pttl(f"{KEYS.lock('locks')}:withdrawn:late") <= 60_000


async def test_a_caller_that_is_cancelled_is_granted_nothing_later(valkey: EmbeddedValkey) -> None:
    """Its request is still on the way when its release is answered. No renewal runs that would find the lock."""
    road = Road(valkey.port)
    async with road.serve() as port_number, redis.asyncio.Redis.from_url(valkey.url) as direct:
        port = RedisPort(f"redis://127.0.0.1:{port_number}")
        locks = LockService(LockStore(port, KEYS), lease_seconds=600.0)

        async def run() -> None:
            async with locks.resource("orders").acquire():
                pytest.fail("entered")

        async def requests_handled() -> int:
            return (await direct.info("commandstats")).get("cmdstat_evalsha", {}).get("calls", 0)

        caller = start(run())
        await until(lambda: road.kept)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await until(lambda: not locks._sessions.current().pending_releases.request_ids)
        assert not locks._sessions.current().renewer.is_running
        await direct.config_resetstat()
        road.is_open.set()
        await until(requests_handled)
        assert await is_free(locks)
        async with asyncio.timeout(60), locks.resource("orders").acquire() as lease:
            assert lease.token
        await locks.aclose()
        await port.aclose()
