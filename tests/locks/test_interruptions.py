"""Interruption at any step: a lock is held by a running block, or it is free."""

import asyncio
import ctypes
import random
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from mageflow.errors import LockLostError, LockTimeoutError
from mageflow.interceptors import Event, Interceptor, InterceptorFailed, LockAcquire, LockHold, LockWaiting
from mageflow.locks import LockService
from tests.locks.conftest import Services
from tests.locks.runs import Gate, attempt, is_free, start, until, waiting


class Killed(BaseException):
    """The exception the SDK raises in a thread that does not stop."""


def kill(thread: threading.Thread) -> None:
    """As hatchet_sdk's ``Runner.force_kill_thread``."""
    assert thread.ident is not None
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_long(thread.ident), ctypes.py_object(Killed)) == 1


def in_thread(body: Callable[[], Any]) -> threading.Thread:
    """A thread that may be killed."""

    def run() -> None:
        with suppress(Killed):
            body()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


async def test_cancelled_at_any_step_of_acquire_and_release_leaves_nothing(services: Services) -> None:
    """A cancellation in every turn the event loop takes from the request to the end of the block."""
    locks = services()
    orders = locks.resource("orders")
    endings: set[str] = set()

    async def run() -> None:
        async with orders.acquire(), locks.acquire(locks.resource("alpha"), locks.resource("beta")):
            await asyncio.sleep(0)

    await start(run())
    for turns in range(90):
        task = start(run())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
            endings.add("ended")
        except asyncio.CancelledError:
            endings.add("cancelled")
        assert not locks._sessions.current().state.waiting
        assert not locks._sessions.current().state.grants
        await until(lambda: is_free(locks))
    assert "cancelled" in endings


async def test_cancelled_at_any_step_while_the_lock_is_handed_over_leaves_nothing(services: Services) -> None:
    """The grant arrives at the moment the waiter is cancelled: the next in the queue gets it."""
    locks, other = services(), services()

    async def hold(gate: Gate) -> None:
        async with other.resource("orders").acquire():
            await gate.pass_through()

    async def ask() -> None:
        async with locks.resource("orders").acquire():
            pass

    for turns in range(0, 60, 2):
        gate = Gate()
        holder = start(hold(gate))
        await gate.reached()
        first = start(ask())
        await waiting(other, 1)
        second = start(ask())
        await waiting(other, 2)
        gate.open()
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        async with asyncio.timeout(60):
            await asyncio.gather(first, holder, second, return_exceptions=True)
        assert not second.cancelled()
        await until(lambda: is_free(other))


async def test_order_is_kept_when_other_requests_end(services: Services) -> None:
    """Sixty wait, a third is cancelled, a third times out; the others are served in the order of their requests."""
    requests: list[LockAcquire] = []

    class Asked(Interceptor):
        @contextmanager
        def acquire_lock(self, call: LockAcquire) -> Generator[None]:
            requests.append(call)
            yield

    locks = services(Asked())
    orders = locks.resource("orders")
    gate = Gate()
    served: list[int] = []
    source = random.Random(5)

    async def hold() -> None:
        async with orders.acquire():
            await gate.pass_through()

    async def ask(number: int) -> None:
        limit = timedelta(seconds=2.0) if number % 3 == 1 else None
        async with orders.acquire(timeout=limit):
            served.append(number)
            await asyncio.sleep(0)

    holder = start(hold())
    await gate.reached()
    tasks: list[asyncio.Task[None]] = []
    for number in range(60):  # the timeouts are short enough to pass meanwhile
        tasks.append(start(ask(number)))
        # One at a time: they reach the server over several connections.
        await until(lambda: len(requests) == len(tasks) + 1 and requests[-1].queued_at)
    for number in source.sample(range(0, 60, 3), 20):
        tasks[number].cancel()
    await until(lambda: all(tasks[number].done() for number in range(60) if number % 3 != 2))
    gate.open()
    endings = await asyncio.gather(holder, *tasks, return_exceptions=True)
    assert served == [number for number in range(60) if number % 3 == 2]
    assert sum(isinstance(each, LockTimeoutError) for each in endings) == 20
    assert await is_free(locks)


@pytest.mark.parametrize("moment", ["waiting", "granted"])
async def test_thread_that_is_killed_while_it_waits_for_a_lock_gets_none(services: Services, moment: str) -> None:
    """Also if it is granted at the same moment: otherwise no block would release it."""
    locks, other = services(), services()
    await locks.start()
    gate = Gate()

    async def hold() -> None:
        async with other.resource("orders").acquire():
            await gate.pass_through()

    def body() -> None:
        with locks.resource("orders").acquire():
            time.sleep(0.2)

    holder = start(hold())
    await gate.reached()
    thread = in_thread(body)
    await waiting(other, 1)
    kill(thread)
    if moment == "granted":
        gate.open()
        await holder
    await until(lambda: not thread.is_alive())
    state = locks._sessions.current().state
    await until(lambda: not state.grants and not state.waiting)
    if moment == "waiting":
        gate.open()
        await holder
    await until(lambda: is_free(other))


async def test_thread_that_is_killed_inside_its_block_releases_the_lock(services: Services) -> None:
    """The block is left like any other."""
    locks = services()
    await locks.start()
    inside = threading.Event()

    def body() -> None:
        with locks.resource("orders").acquire():
            inside.set()
            while True:
                time.sleep(0.001)

    thread = in_thread(body)
    await until(inside.is_set)
    kill(thread)
    await until(lambda: not thread.is_alive())
    await until(lambda: is_free(locks))
    assert not locks._sessions.current().state.grants


async def test_interceptor_that_fails_costs_neither_the_lock_nor_the_time_of_the_task(services: Services) -> None:
    """Around the request, around the hold, and when the task waits: the block runs and the timeout still grows."""
    failures: list[str] = []
    extended: list[float] = []

    class Failing(Interceptor):
        @contextmanager
        def acquire_lock(self, call: LockAcquire) -> Generator[None]:
            yield
            raise RuntimeError("on the grant")

        def hold_lock(self, call: LockHold) -> AbstractContextManager[None]:
            raise RuntimeError("on the hold")

        def event(self, event: Event) -> None:
            match event:
                case LockWaiting():
                    raise RuntimeError("on the wait")
                case InterceptorFailed():
                    failures.append(str(event.error))

    async def extend(run: object, seconds: float, reason: object) -> float:
        extended.append(seconds)
        return seconds

    locks, other = services(Failing(), extend=extend), services()
    async with other.resource("orders").acquire():
        waiter = start(_ask_patiently(locks), within=attempt("r1"))
        await until(lambda: extended)
        assert failures == ["on the wait"]
    await waiter
    assert failures == ["on the wait", "on the hold", "on the grant"]
    assert await is_free(locks)


async def test_request_that_is_stopped_after_its_grant_holds_nothing(services: Services) -> None:
    """Interceptors let a `BaseException` through; the body does not run, so it must hold nothing."""

    class Stop(BaseException):
        pass

    class Stopping(Interceptor):
        @contextmanager
        def acquire_lock(self, call: LockAcquire) -> Generator[None]:
            yield
            raise Stop

    locks = services(Stopping())
    with pytest.raises(Stop):
        async with locks.resource("orders").acquire():
            pytest.fail("entered")
    assert await is_free(locks)


async def _ask_patiently(locks: LockService) -> None:
    async with locks.resource("orders").acquire():
        pass


@pytest.mark.slow
async def test_busy_threads_do_not_keep_leases_from_being_renewed(services: Services) -> None:
    """Synchronous tasks that compute without a pause share the interpreter with the loop that renews."""
    locks = services(lease_seconds=5.0)
    stop = threading.Event()

    def compute() -> int:
        count = 0
        while not stop.is_set():
            count += sum(range(100))
        return count

    threads = [threading.Thread(target=compute) for _ in range(3)]
    async with locks.resource("orders").acquire() as lease:
        for each in threads:
            each.start()
        try:
            for _ in range(50):
                await asyncio.sleep(0.2)
                lease.check()
        finally:
            stop.set()
            for each in threads:
                await asyncio.to_thread(each.join)


async def test_body_that_blocks_the_loop_past_its_lease_sees_the_loss_at_once(services: Services) -> None:
    """The lease is lost by the clock, before the loop runs again; the waiter is the only holder."""
    locks, other = services(lease_seconds=2.0), services()
    with pytest.raises(LockLostError):
        await start(_block_the_loop(locks))
    async with other.resource("orders").acquire():
        pass


async def _block_the_loop(locks: LockService) -> None:
    async with locks.resource("orders").acquire() as lease:
        time.sleep(2.5)  # noqa: ASYNC251 - what is not to be done
        assert lease.is_lost
