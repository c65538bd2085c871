"""Killed holders, killed waiters, paused processes, restarted servers: nothing stays locked, never two holders."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager

import pytest

from mageflow.errors import LockLostError, StoreUnavailableError
from mageflow.interceptors import Event, Interceptor, LeaseLost, LeaseRenewal, LockExpired, LockHold
from mageflow.locks import Lease, LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.conftest import Services
from tests.locks.processes import LockProcess
from tests.locks.runs import Gate, attempt, start, until, waiting

LEASE = 3.0
"""A busy machine holds a process up for some tenths of a second: a renewal is still in time then."""


class Watch(Interceptor):
    """Records lost and renewed leases and expired locks."""

    def __init__(self) -> None:
        self.expired: list[LockExpired] = []
        self.lost: list[LeaseLost] = []
        self.renewals: list[LeaseRenewal] = []
        self.holds: list[LockHold] = []

    def event(self, event: Event) -> None:
        if isinstance(event, LockExpired):
            self.expired.append(event)
        elif isinstance(event, LeaseLost):
            self.lost.append(event)
        elif isinstance(event, LeaseRenewal):
            self.renewals.append(event)

    @contextmanager
    def hold_lock(self, call: LockHold) -> Generator[None]:
        yield
        self.holds.append(call)


@pytest.fixture
async def lock_process(valkey: EmbeddedValkey) -> "Iterator[Callable[..., Awaitable[LockProcess]]]":
    """Starts a process that holds ``orders`` until `LockProcess.proceed`."""
    started: list[LockProcess] = []

    async def begin(on_lost: str = "cancel") -> LockProcess:
        process = await LockProcess.start("hold", valkey.url, LEASE, on_lost)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.send_if_alive(signal.SIGCONT)
        await process.kill()


Begin = Callable[..., Awaitable[LockProcess]]


async def test_lock_of_a_killed_process_goes_to_the_next_in_the_queue(services: Services, lock_process: Begin) -> None:
    """A queued waiter gets it when the lease has run out; the renewal of its own process finds that."""
    watch = Watch()
    locks = services(watch, lease_seconds=LEASE)
    holder = await lock_process()
    dead = await holder.event("entered")
    tokens: list[int] = []

    async def ask() -> None:
        async with locks.resource("orders").acquire() as lease:
            tokens.append(lease.token)

    task = start(ask())
    await waiting(locks, 1)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await holder.kill()
    async with asyncio.timeout(60):
        await task
    assert loop.time() - started < 3 * LEASE
    assert tokens[0] > dead["token"]
    assert [each.resource.name for each in watch.expired] == ["orders"]


async def test_killed_waiter_does_not_block_the_queue(services: Services, lock_process: Begin) -> None:
    """A lock handed to a process that has just died expires and goes to the next."""
    locks = services(lease_seconds=LEASE)
    held, behind = Gate(), Gate()

    async def hold() -> None:
        async with locks.resource("orders").acquire():
            await held.pass_through()

    async def ask() -> None:
        async with locks.resource("orders").acquire():
            await behind.pass_through()

    first = start(hold())
    await held.reached()
    second = await lock_process()
    await second.event("acquiring")
    await waiting(locks, 1)
    third = start(ask())
    await waiting(locks, 2)
    await second.kill()
    held.open()
    await behind.reached()
    behind.open()
    await asyncio.gather(first, third)
    report = await locks.snapshot()
    assert report.holders == ()
    assert report.waiters == ()


@pytest.mark.parametrize("on_lost", ["cancel", "flag"])
async def test_process_that_was_paused_past_its_lease_knows_before_it_writes(
    services: Services, lock_process: Begin, on_lost: str
) -> None:
    """While it is stopped its lock goes to another; when it continues its lease is already lost, by its own clock."""
    locks = services(lease_seconds=LEASE)
    holder = await lock_process(on_lost)
    paused = await holder.event("entered")
    inside = Gate()
    tokens: list[int] = []

    async def ask() -> None:
        async with locks.resource("orders").acquire() as lease:
            tokens.append(lease.token)
            await inside.pass_through()

    holder.send(signal.SIGSTOP)
    task = start(ask())
    await inside.reached()
    holder.proceed()
    holder.send(signal.SIGCONT)
    line = await holder.line()
    if line.get("event") == "about to write":
        assert line["is_lost"] is True, "two holders: the lock belongs to the other one"
        line = await holder.line()
    assert line == ({"event": "lost", "token": paused["token"]} if on_lost == "cancel" else {"event": "left"})
    assert [each.token for each in (await locks.snapshot()).holders] == tokens, "the late release took nothing away"
    inside.open()
    await task
    assert tokens[0] > paused["token"]


async def test_locks_outlive_a_restart_of_the_server() -> None:
    """With an append-only file holder, waiter and queue are still there, and the waiter is served."""
    with EmbeddedValkey(append_only=True) as server:
        port = RedisPort(server.url)
        locks = LockService(LockStore(port, Keys("mageflow", "tests")), lease_seconds=6)
        gate = Gate()
        tokens: list[int] = []

        async def hold() -> None:
            async with locks.resource("orders").acquire() as lease:
                tokens.append(lease.token)
                await gate.pass_through()
                assert not lease.is_lost

        async def ask() -> None:
            async with locks.resource("orders").acquire() as lease:
                tokens.append(lease.token)

        holder = start(hold())
        await gate.reached()
        waiter = start(ask())
        await waiting(locks, 1)
        await asyncio.to_thread(server.restart)
        gate.open()
        async with asyncio.timeout(60):
            await asyncio.gather(holder, waiter)
        assert tokens == sorted(set(tokens))
        await locks.aclose()
        await port.aclose()


async def test_server_that_lost_its_data_costs_the_lease_but_tokens_still_grow() -> None:
    """The holder learns of the loss; the next holder has a larger token, although no record is left."""
    with EmbeddedValkey() as server:
        watch = Watch()
        ports = [RedisPort(server.url), RedisPort(server.url)]
        one = LockService(LockStore(ports[0], Keys("mageflow", "tests")), watch, lease_seconds=LEASE)
        two = LockService(LockStore(ports[1], Keys("mageflow", "tests")), lease_seconds=LEASE)
        leases: list[Lease] = []

        async def hold() -> None:
            async with one.resource("orders").acquire() as lease:
                leases.append(lease)
                await asyncio.to_thread(server.restart)
                async with asyncio.timeout(60):
                    await asyncio.Event().wait()  # cancelled when the loss is found

        with pytest.raises(LockLostError, match=r"the lease on resource 'orders' \(token \d+\) was lost") as caught:
            await start(hold())
        lease = leases[0]
        assert caught.value.token == lease.token
        assert lease.is_lost
        assert [each.hold.token for each in watch.lost] == [lease.token]
        assert "lost" in {each.result for each in watch.renewals}
        assert [each.is_lost for each in watch.holds] == [True]

        async def next_one() -> int:
            async with two.resource("orders").acquire() as following:
                return following.token

        assert await start(next_one()) > lease.token
        for locks, port in zip((one, two), ports, strict=True):
            await locks.aclose()
            await port.aclose()


async def test_unreachable_server_ends_the_block_in_time() -> None:
    """Redis unreachable for longer than the lease: the body is cancelled before another run can enter."""
    with EmbeddedValkey() as server:
        watch = Watch()
        port = RedisPort(server.url)
        locks = LockService(LockStore(port, Keys("mageflow", "tests")), watch, lease_seconds=LEASE)
        loop = asyncio.get_running_loop()

        async def hold() -> None:
            async with locks.resource("orders").acquire():
                server.kill()
                async with asyncio.timeout(60):
                    await asyncio.Event().wait()

        started = loop.time()
        with pytest.raises(LockLostError):
            await start(hold())
        assert loop.time() - started < 2 * LEASE
        assert {each.result for each in watch.renewals} == {"error"}
        with pytest.raises(StoreUnavailableError):
            async with locks.resource("orders").acquire():
                pass
        await locks.aclose()
        await port.aclose()


async def test_user_who_cancels_gets_the_cancellation_not_a_lost_lease(services: Services) -> None:
    """Only the lock's own cancellation becomes `LockLostError`."""
    locks = services()
    inside = Gate()

    async def hold() -> None:
        async with locks.resource("orders").acquire():
            await inside.pass_through()

    task = start(hold(), within=attempt("r1"))
    await inside.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def is_free() -> bool:
        return not (await locks.snapshot()).holders

    await until(is_free)
