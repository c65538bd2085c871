"""Blocks under a lock: they exclude each other, run in order, and always release."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from mageflow.errors import ConfigurationError, LockTimeoutError
from mageflow.interceptors import Attempt, Event, Interceptor, LockAcquire, LockWaiting, RedisCall, ResourceKey
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.types import ExtensionReason
from tests.locks.conftest import Services
from tests.locks.runs import Gate, attempt, start, until, waiting


class Seen(Interceptor):
    """Records what interceptors get."""

    def __init__(self) -> None:
        self.round_trips: list[str] = []
        self.requests: list[LockAcquire] = []
        self.long_waits: list[LockWaiting] = []

    @contextmanager
    def redis(self, call: RedisCall) -> Generator[None]:
        if call.operation != "lock_wake":
            self.round_trips.append(call.operation)
        yield

    @contextmanager
    def acquire_lock(self, call: LockAcquire) -> Generator[None]:
        self.requests.append(call)
        yield

    def event(self, event: Event) -> None:
        if isinstance(event, LockWaiting):
            self.long_waits.append(event)


async def test_uncontended_lock_costs_one_round_trip_each_way(services: Services) -> None:
    """Acquire is one script, release is one script."""
    seen = Seen()
    orders = services(seen).resource("orders")
    async with orders.acquire():
        pass
    seen.round_trips.clear()
    async with orders.acquire(key=7):
        assert seen.round_trips == ["lock_acquire"]
    assert seen.round_trips == ["lock_acquire", "lock_release"]


async def test_runs_enter_one_at_a_time_in_the_order_of_their_requests(services: Services) -> None:
    """First come, first served across processes; no run enters while another is inside."""
    fleet = [services() for _ in range(3)]
    inside = 0
    order: list[int] = []
    tokens: list[int] = []

    async def run(number: int) -> None:
        nonlocal inside
        async with fleet[number % 3].resource("orders").acquire() as lease:
            inside += 1
            assert inside == 1
            order.append(number)
            tokens.append(lease.token)
            await asyncio.sleep(0)
            inside -= 1

    gate = Gate()

    async def first() -> None:
        async with fleet[0].resource("orders").acquire():
            await gate.pass_through()

    runs = [start(first())]
    await gate.reached()
    for number in range(12):
        runs.append(start(run(number)))
        await waiting(fleet[0], number + 1)
    gate.open()
    await asyncio.gather(*runs)
    assert order == list(range(12))
    assert tokens == sorted(set(tokens)), "each holder's fencing token is larger than the last"


async def test_waiter_is_woken_and_does_not_poll(services: Services) -> None:
    """A queued request sends nothing until it is served: one script to request, one by the holder to release."""
    seen = Seen()
    locks, other = services(), services(seen)
    gate = Gate()

    async def hold() -> None:
        async with locks.resource("orders").acquire():
            await gate.pass_through()

    async def wait() -> None:
        async with other.resource("orders").acquire():
            seen.round_trips.append("entered")

    holder = start(hold())
    await gate.reached()
    waiter = start(wait())
    await waiting(locks, 1)
    await asyncio.sleep(0.3)  # the time in which a polling waiter would give itself away
    gate.open()
    await asyncio.gather(holder, waiter)
    assert seen.round_trips == ["lock_acquire", "entered", "lock_release"]


async def test_same_attempt_enters_again_without_a_round_trip(services: Services) -> None:
    """Locks are re-entrant, also in tasks started inside the block; the outermost block releases."""
    seen = Seen()
    locks = services(seen)
    orders = locks.resource("orders")

    async def nested() -> int:
        async with orders.acquire() as lease:
            return lease.token

    async def run() -> None:
        async with orders.acquire() as lease:
            seen.round_trips.clear()
            async with orders.acquire() as again:
                assert again.token == lease.token
            assert await asyncio.gather(nested(), nested()) == [lease.token] * 2
            assert seen.round_trips == []
            assert len((await locks.snapshot()).holders) == 1
        assert (await locks.snapshot()).holders == ()

    await start(run(), within=attempt("r1"))


async def test_branches_of_one_run_share_a_lock_until_the_last_leaves(locks: LockService) -> None:
    """Two branches that request at the same time both hold the lock; it is free when both have left."""
    orders = locks.resource("orders")
    gates = [Gate(), Gate()]

    async def branch(gate: Gate) -> int:
        async with orders.acquire() as lease:
            await gate.pass_through()
            return lease.token

    async def run() -> list[int]:
        return await asyncio.gather(*(branch(gate) for gate in gates))

    task = start(run(), within=attempt("r1"))
    for gate in gates:
        await gate.reached()
    gates[0].open()
    await asyncio.sleep(0.05)
    assert len((await locks.snapshot()).holders) == 1
    gates[1].open()
    tokens = await task
    assert tokens[0] == tokens[1]
    assert (await locks.snapshot()).holders == ()


async def test_lock_not_granted_in_time_is_an_error_that_names_it(locks: LockService) -> None:
    """The request leaves the queue; the message names resource, key and time."""
    orders = locks.resource("orders")

    async def ask(limit: timedelta) -> None:
        async with orders.acquire("a", timeout=limit):
            pytest.fail("entered a held lock")

    async with orders.acquire("a"):
        with pytest.raises(
            LockTimeoutError, match=r"resource 'orders' \(key 'a'\) was not granted within \d"
        ) as caught:
            await start(ask(timedelta(seconds=0.1)))
        assert caught.value.retryable
        assert (await locks.snapshot()).waiters == ()
        with pytest.raises(LockTimeoutError):
            await start(ask(timedelta(0)))


async def test_cancelled_waiter_leaves_the_queue(locks: LockService) -> None:
    """The next in the queue is served as if it had not been there."""
    orders = locks.resource("orders")
    entered: list[str] = []

    async def ask(name: str) -> None:
        async with orders.acquire():
            entered.append(name)

    async with orders.acquire():
        first = start(ask("first"))
        await waiting(locks, 1)
        second = start(ask("second"))
        await waiting(locks, 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await waiting(locks, 1)
    await second
    assert entered == ["second"]


async def test_request_cancelled_while_it_is_sent_leaves_nothing_behind(services: Services) -> None:
    """What the script did for a cancelled caller is undone."""
    locks = services()
    orders = locks.resource("orders")

    async def ask() -> None:
        async with orders.acquire():
            await asyncio.sleep(10)

    for delay in (0, 0, 0.0001, 0.0005, 0.001, 0.002):
        task = start(ask())
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def is_free() -> bool:
        report = await locks.snapshot()
        return not report.holders and not report.waiters

    await until(is_free)


async def test_several_resources_are_taken_in_one_order_all_or_none(services: Services) -> None:
    """Blocks that name the same resources in different orders never deadlock, and one round trip takes them all."""
    seen = Seen()
    locks = services(seen)
    first, second = locks.resource("alpha"), locks.resource("beta")
    inside = 0

    async def run(number: int) -> None:
        nonlocal inside
        targets = (first, second.key("x")) if number % 2 else (second.key("x"), first)
        async with locks.acquire(*targets) as lease:
            inside += 1
            assert inside == 1
            assert lease.resources == (ResourceKey("alpha"), ResourceKey("beta", "x"))
            assert lease.token == max(lease.token_of(each) for each in lease.resources)
            await asyncio.sleep(0)
            inside -= 1

    await start(run(0))
    assert seen.round_trips[-2:] == ["lock_acquire", "lock_release"]
    await asyncio.gather(*(start(run(number)) for number in range(20)))


async def test_request_for_several_that_times_out_frees_what_it_had(locks: LockService) -> None:
    """A request that times out on its second resource no longer holds its first."""
    first, second = locks.resource("alpha"), locks.resource("beta")

    async def both() -> None:
        async with locks.acquire(first, second, timeout=timedelta(seconds=0.1)):
            pytest.fail("beta was held")

    async with second.acquire():
        with pytest.raises(LockTimeoutError) as caught:
            await start(both())
        assert caught.value.resource == "beta"
        assert [each.lock for each in (await locks.snapshot()).holders] == ["beta"]


async def test_synchronous_code_takes_the_same_locks(locks: LockService) -> None:
    """``with`` in a thread blocks only that thread, and excludes coroutines."""
    await locks.start()
    orders = locks.resource("orders")
    events: list[str] = []

    def in_thread() -> int:
        with orders.acquire() as lease, orders.acquire() as again:
            events.append("thread")
            assert again.token == lease.token
            return lease.token

    async with orders.acquire() as lease:
        thread = start(asyncio.to_thread(in_thread))
        await waiting(locks, 1)
        events.append("coroutine")
        token = lease.token
    assert await thread > token
    assert events == ["coroutine", "thread"]


def test_synchronous_program_needs_no_event_loop(valkey: EmbeddedValkey) -> None:
    """Without a worker, locks use a loop in a thread of their own, which ends when they are closed."""
    port = RedisPort(valkey.url)
    locks = LockService(LockStore(port, Keys("mageflow", "tests")))
    with locks.resource("orders").acquire() as lease:
        assert not lease.is_lost
        assert [each.token for each in locks.snapshot_in_thread().holders] == [lease.token]
    assert locks.snapshot_in_thread().holders == ()
    locks.close()
    assert not [each for each in threading.enumerate() if each.name == "mageflow-locks"]


async def test_report_for_threads_does_not_wait_for_the_loop_of_the_tasks(locks: LockService) -> None:
    """A task that blocks its loop is when an operator looks at ``/debug/locks``."""
    await locks.start()
    seen: list[str] = []
    blocked = threading.Event()

    def look() -> None:
        blocked.wait(20)
        seen.extend(each.lock for each in locks.snapshot_in_thread().holders)

    thread = threading.Thread(target=look)
    async with locks.resource("orders").acquire():
        thread.start()
        blocked.set()
        thread.join(20)  # blocks the loop, on purpose
    assert seen == ["orders"]


async def test_with_inside_a_coroutine_is_refused(locks: LockService) -> None:
    """It would block the loop that must answer it; the message says what to write."""
    with pytest.raises(ConfigurationError, match="async with"), locks.resource("orders").acquire():
        pass


async def test_block_is_for_one_use(locks: LockService) -> None:
    """Each ``with`` needs a new request."""
    block = locks.resource("orders").acquire()
    async with block:
        pass
    with pytest.raises(ConfigurationError, match="used before"):
        async with block:
            pass


@pytest.mark.parametrize("name", ["", "a:b", "with space", "x" * 129, "ä"])
async def test_names_that_cannot_be_labels_are_refused(locks: LockService, name: str) -> None:
    """A name becomes a metric label and part of a record."""
    with pytest.raises(ConfigurationError, match="cannot name a resource"):
        locks.resource(name)


async def test_everything_an_attempt_holds_is_released_when_it_ends(services: Services) -> None:
    """In one round trip, and in none when it holds nothing."""
    seen = Seen()
    locks = services(seen)
    run = attempt("r1")

    async def forgetful() -> None:
        await locks.resource("alpha").acquire().__aenter__()
        await locks.resource("beta").acquire().__aenter__()

    await start(forgetful(), within=run)
    seen.round_trips.clear()
    await locks.release_attempt(run)
    assert seen.round_trips == ["lock_end"]
    assert (await locks.snapshot()).holders == ()
    seen.round_trips.clear()
    await locks.release_attempt(run)
    await locks.release_attempt(attempt("r2"))
    assert seen.round_trips == []


async def test_thread_that_outlives_its_attempt_keeps_its_lock_until_it_leaves(locks: LockService) -> None:
    """A thread cannot be stopped: while it works, no other run may enter."""
    await locks.start()
    orders = locks.resource("orders")
    run = attempt("r1")
    loop = asyncio.get_running_loop()
    entered, leave = asyncio.Event(), asyncio.Event()

    def in_thread() -> None:
        with orders.acquire():
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(leave.wait(), loop).result()

    thread = start(asyncio.to_thread(in_thread), within=run)
    await entered.wait()
    await locks.release_attempt(run)
    assert [each.run_id for each in (await locks.snapshot()).holders] == ["r1"]
    leave.set()
    await thread
    assert (await locks.snapshot()).holders == ()


async def test_thread_of_an_attempt_that_has_ended_stops_waiting(locks: LockService) -> None:
    """A cancelled synchronous task gives its thread back to the pool, and its place in the queue to the next."""
    await locks.start()
    orders = locks.resource("orders")
    run = attempt("r1")

    def in_thread() -> None:
        with orders.acquire():
            pytest.fail("entered for a run that has ended")

    async with orders.acquire():
        thread = start(asyncio.to_thread(in_thread), within=run)
        await waiting(locks, 1)
        await locks.release_attempt(run)
        with pytest.raises((asyncio.CancelledError, concurrent.futures.CancelledError)):
            await thread
        await waiting(locks, 0)


async def test_waiting_task_is_visible_and_gets_more_time(services: Services) -> None:
    """While it waits it is in phase ``lock_wait``; after a second an event is published and its timeout grows."""
    seen = Seen()
    asked: list[tuple[float, ExtensionReason]] = []
    asked_after: list[float] = []

    async def extend(run: Attempt, seconds: float, reason: ExtensionReason) -> float:
        asked.append((seconds, reason))
        asked_after.append(run.elapsed_seconds)
        return seconds

    locks = services(seen, extend=extend)
    orders = locks.resource("orders")
    run = attempt("r1")

    async def ask(limit: timedelta | None = None) -> None:
        async with orders.acquire(timeout=limit):
            pass

    async with orders.acquire():
        task = start(ask(timedelta(seconds=7)), within=run)
        await until(lambda: run.phase == "lock_wait")
        await until(lambda: seen.long_waits)
        await until(lambda: asked)
        assert seen.long_waits[0].request.attempt is run
        assert seen.long_waits[0].request.waiting_for == ResourceKey("orders")
        assert len(seen.long_waits[0].request.holders) == 1
        assert asked == [(7.0, "lock")], "by no more than the request itself may take"
        asked.clear()
        hurried = attempt("r2", timeout=0.95)  # others are asked for after a second
        urgent = start(ask(), within=hurried)
        await until(lambda: asked)
        assert asked_after[-1] < 0.95, "asked before the task's own time is over"
    await asyncio.gather(task, urgent)
    assert run.phase == "running"
    run.charge()
    assert run.stage_seconds["lock_wait"] >= 1.0
    assert seen.requests[-1].outcome == "acquired"


async def test_extension_can_be_declined(services: Services) -> None:
    """``extend_timeout=False`` leaves the task's timeout alone."""
    asked: list[float] = []

    async def extend(run: object, seconds: float, reason: ExtensionReason) -> float:
        asked.append(seconds)
        return seconds

    locks = services(extend=extend)
    orders = locks.resource("orders")

    async def ask() -> None:
        async with orders.acquire(extend_timeout=False, timeout=timedelta(seconds=1.2)):
            pass

    async with orders.acquire():
        with pytest.raises(LockTimeoutError):
            await start(ask(), within=attempt("r1", timeout=1.0))
    assert asked == []
