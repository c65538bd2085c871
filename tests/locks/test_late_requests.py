"""A request whose caller is cancelled: it may reach Redis after its release, and its answer is not read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

import pytest
import redis.asyncio

from mageflow.interceptors import Deadlock, Event, Interceptor, InterceptorChain, ResourceKey
from mageflow.locks import LockService
from mageflow.store import Keys, LockClaim, LockOwner, LockStore, RedisPort
from mageflow.store.locks.store import _ACQUIRE
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.runs import is_free, start, until

A, B = ResourceKey("alpha"), ResourceKey("beta")
KEYS = Keys("mageflow", "tests")


class Road:
    """A proxy before a server. It keeps requests for locks, or their answers, and sends them on when it is opened."""

    def __init__(self, port: int, keeps: Literal["requests", "answers"] = "requests") -> None:
        self._upstream = port
        self._keeps = keeps
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
        asks = asyncio.Event()  # while the last command on this connection is a request for a lock
        for pump in (self._there(reader, up_writer, asks), self._back(up_reader, writer, asks)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asks: asyncio.Event) -> None:
        while data := await reader.read(65536):
            (asks.set if _ACQUIRE.sha.encode() in data else asks.clear)()
            if self._keeps == "requests" and asks.is_set():
                await self._keep()
            writer.write(data)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asks: asyncio.Event) -> None:
        while data := await reader.read(65536):
            if self._keeps == "answers" and asks.is_set():
                await self._keep()
            writer.write(data)
        writer.close()

    async def _keep(self) -> None:
        if not self.is_open.is_set():
            self.kept += 1
            await self.is_open.wait()


class Deadlocks(Interceptor):
    """Keeps the deadlocks that are published."""

    def __init__(self) -> None:
        self.found: list[Deadlock] = []

    def event(self, event: Event) -> None:
        if isinstance(event, Deadlock):
            self.found.append(event)


def claim(request_id: str, *resources: ResourceKey, attempt: str = "", enclosing: tuple[int, ...] = ()) -> LockClaim:
    """A request of a new attempt in the one session of this test."""
    return LockClaim(
        request_id=request_id,
        attempt_id=f"{attempt or request_id}:1",
        session_id="late.0",
        session_is_open=False,
        resources=resources,
        owner=LockOwner("task", "run", "task-run", 1, "worker", "0" * 32, will_retry=True),
        lease_seconds=60.0,
        wake_id="late",
        born_ms=9_000_000_000_000,
        enclosing_tokens=enclosing,
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


@pytest.mark.parametrize("resources", [(A,), (A, B)])
async def test_a_copy_of_a_request_that_comes_after_its_release_gets_nothing(
    store: LockStore, valkey: EmbeddedValkey, resources: tuple[ResourceKey, ...]
) -> None:
    """A driver sends a request again over a new connection, and the first copy is read when both have ended."""
    assert (await store.acquire(claim("late", *resources))).verdict.kind == "granted"
    assert (await store.release("late", resources)).verdict.released == len(resources)
    assert (await store.acquire(claim("late", *resources))).verdict.kind == "ended"
    assert (await store.snapshot()).locks_total == 0
    assert (await store.release("late", resources)).verdict.released == len(resources), "as the first time"
    async with redis.asyncio.Redis.from_url(valkey.url) as client:
        assert await client.hgetall(f"{KEYS.lock('locks')}:late") == {b"lat": b"late"}
        assert 50_000 < await client.pttl(f"{KEYS.lock('locks')}:late") <= 60_000


@pytest.mark.parametrize("release", ["release", "withdraw"])
async def test_a_copy_of_a_request_that_has_left_the_queue_gets_nothing(store: LockStore, release: str) -> None:
    """It would wait again, and be granted the lock with nothing to release it."""
    await store.acquire(claim("holder", A))
    assert (await store.acquire(claim("late", A))).verdict.kind == "queued"
    await getattr(store, release)("late", (A,))
    assert (await store.acquire(claim("late", A))).verdict.kind == "ended"
    assert (await store.snapshot()).waits_total == 0


@pytest.mark.parametrize("resources", [(A,), (A, B)])
async def test_damage_of_the_released_requests_stops_no_lock(
    store: LockStore, valkey: EmbeddedValkey, resources: tuple[ResourceKey, ...]
) -> None:
    """Keys of another type in their places: the list is made anew, the hash is done without."""
    async with redis.asyncio.Redis.from_url(valkey.url) as client:
        for name in ("ended", "late"):
            await client.set(f"{KEYS.lock('locks')}:{name}", "damage", ex=1000)
        assert (await store.acquire(claim("a", *resources))).verdict.kind == "granted"
        assert (await store.release("a", resources)).verdict.released == len(resources)
        assert (await store.release("a", resources)).verdict.released == len(resources)
        assert (await store.snapshot()).locks_total == 0


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


async def test_a_deadlock_is_published_whose_requester_is_cancelled(store: LockStore, valkey: EmbeddedValkey) -> None:
    """Its request closes a cycle and another one is the victim, but the answer that reports it is not read."""
    deadlocks = Deadlocks()
    road = Road(valkey.port, keeps="answers")
    async with road.serve() as port_number:
        port = RedisPort(f"redis://127.0.0.1:{port_number}")
        locks = LockService(LockStore(port, KEYS), InterceptorChain([deadlocks]), lease_seconds=60.0)
        has_alpha, is_waited_for = asyncio.Event(), asyncio.Event()

        async def run() -> None:
            async with locks.resource("alpha").acquire():
                has_alpha.set()
                await is_waited_for.wait()
                async with locks.resource("beta").acquire(policy="youngest"):
                    pytest.fail("entered")

        road.is_open.set()
        caller = start(run())
        await has_alpha.wait()
        tokens = (await store.acquire(claim("holder", B, attempt="other"))).verdict.tokens
        assert (await store.acquire(claim("waiter", A, attempt="other", enclosing=tokens))).verdict.kind == "queued"
        road.is_open.clear()
        is_waited_for.set()
        await until(lambda: road.kept)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await until(lambda: not locks._sessions.current().pending_releases.request_ids)
        assert [(request, each.kind) for request, each in await store.verdicts("late", 60.0) or []] == [
            ("waiter", "deadlock")
        ]
        assert [(each.victim.run_id, each.policy, len(each.cycle)) for each in deadlocks.found] == [
            ("run", "youngest", 2)
        ]
        road.is_open.set()
        await locks.aclose()
        await port.aclose()


async def test_a_repeated_request_reports_what_it_has_resolved(store: LockStore) -> None:
    """A driver repeats a call whose answer it missed. The release of a request that was answered reports nothing."""
    older = replace(claim("older", A, attempt="older"), born_ms=1)
    [alpha] = (await store.acquire(older)).verdict.tokens
    [beta] = (await store.acquire(claim("younger", B, attempt="younger"))).verdict.tokens
    await store.acquire(claim("victim", A, attempt="younger", enclosing=(beta,)))
    closing = replace(claim("closing", B, attempt="older", enclosing=(alpha,)), born_ms=1, policy="youngest")
    replies = [await store.acquire(closing) for _ in range(2)]
    assert [(each.verdict.kind, len(each.resolved)) for each in replies] == [("queued", 1), ("queued", 1)]
    assert replies[0].resolved == replies[1].resolved
    assert (await store.release("closing", (B,))).resolved == ()
