"""Attempts that lock from more than one event loop: still one owner."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from mageflow.errors import DeadlockError, LockLostError
from mageflow.interceptors import current_attempt
from mageflow.locks import LockService, threads
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.conftest import Services, valkey  # noqa: F401 - a fixture
from tests.locks.runs import attempt, is_free, start, until
from tests.store.faulty_client import Faulty


async def test_attempt_on_two_event_loops_is_one_owner(services: Services) -> None:
    """A synchronous body with its own event loop, inside a lock around the body: its waits are edges too."""
    locks = services()
    await locks.start()
    meeting = threading.Barrier(2)
    endings: list[str] = []

    async def body(other: str) -> None:
        await asyncio.to_thread(meeting.wait, 60)
        try:
            async with locks.resource("orders").acquire(other, timeout=timedelta(seconds=60)):
                endings.append("both")
        except DeadlockError as error:
            endings.append(f"victim of {len(error.cycle)}")

    async def run(mine: str, other: str) -> None:
        async with locks.resource("orders").acquire(mine):
            await asyncio.to_thread(lambda: asyncio.run(body(other)))

    async with asyncio.timeout(90):
        await asyncio.gather(start(run("a", "b"), within=attempt("r1")), start(run("b", "a"), within=attempt("r2")))
    assert sorted(endings) == ["both", "victim of 2"]
    assert await is_free(locks)
    assert len(locks._sessions) == 1, "all of it was held in one session"


async def test_run_on_another_loop_is_cancelled_when_its_lease_is_lost(services: Services) -> None:
    """The loss is found on one loop, the block is on another."""
    locks = services()
    await locks.start()
    inside = threading.Event()
    endings: list[str] = []

    async def body() -> None:
        try:
            async with locks.resource("inner").acquire():
                inside.set()
                await asyncio.sleep(90)
        except LockLostError as error:
            await asyncio.sleep(0)
            endings.append(error.resource)

    async def run() -> None:
        async with locks.resource("outer").acquire(on_lost="flag"):
            await asyncio.to_thread(lambda: asyncio.run(body()))

    task = start(run(), within=attempt("r1"))
    await until(inside.is_set)
    locks._sessions.current().state.end_session()
    async with asyncio.timeout(60):
        await task
    assert endings == ["inner"]


async def test_cancelled_at_any_step_from_another_loop_leaves_nothing(services: Services) -> None:
    """No lock is lost in a call from loop to loop."""
    locks = services()
    await locks.start()

    async def body(turns: int) -> None:
        task = asyncio.create_task(inner())
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(turns / 50_000)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def inner() -> None:
        async with locks.resource("inner").acquire():
            await asyncio.sleep(0)

    async def run(turns: int) -> None:
        async with locks.resource("outer").acquire():
            await asyncio.to_thread(lambda: asyncio.run(body(turns)))

    for turns in range(0, 80, 2):
        await start(run(turns), within=attempt(f"r{turns}"))
        await until(lambda: is_free(locks))
    assert not locks._sessions.current().state.grants


async def test_loop_that_ends_takes_no_lock_of_a_thread_with_it(services: Services) -> None:
    """Without a worker, the first loop with a lock served all threads. When it ended, their leases were lost."""
    locks = services(lease_seconds=2.0)
    has_begun, is_held, may_leave = threading.Event(), threading.Event(), threading.Event()

    async def short() -> None:
        async with locks.resource("orders").acquire("of the loop"):
            has_begun.set()
            assert await asyncio.to_thread(is_held.wait, 60)

    def hold() -> bool:
        with locks.resource("orders").acquire("of the thread", on_lost="flag") as lease:
            is_held.set()
            assert may_leave.wait(60)
            return lease.is_lost

    loop_ends = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(short())))
    await until(has_begun.is_set)
    holder = asyncio.create_task(asyncio.to_thread(hold))
    async with asyncio.timeout(60):
        await loop_ends
        await asyncio.sleep(3.0)  # longer than the lease
        may_leave.set()
        assert not await holder, "the lease was renewed"
    assert await is_free(locks)


def _run_and_close(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        await work
        leftover = asyncio.all_tasks() - {asyncio.current_task()}
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)

    loop.run_until_complete(run())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


class SlowToAnswer(asyncio.SelectorEventLoop):
    """A loop that lets other threads go on before it answers whether it is closed."""

    is_slow = False

    def is_closed(self) -> bool:
        if self.is_slow:
            time.sleep(0.05)
        return super().is_closed()


async def test_loops_of_several_threads_begin_at_once(services: Services) -> None:
    """Each dropped the session of the same closed loop, and the second one raised KeyError."""
    locks = services()
    at_once = threading.Barrier(4)

    async def body(name: str) -> None:
        async with locks.resource("orders").acquire(name):
            pass

    closed = SlowToAnswer()
    await asyncio.to_thread(_run_and_close, closed, body("first"))
    closed.is_slow = True

    def begin(number: int) -> None:
        at_once.wait(60)
        asyncio.run(body(str(number)))

    async with asyncio.timeout(60):
        await asyncio.gather(*(asyncio.to_thread(begin, number) for number in range(4)))
    assert await is_free(locks)


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["stopped", "cancelled"])
async def test_attempt_ends_although_a_loop_that_holds_for_it_stops_meanwhile(
    services: Services, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    """The call to that loop had no answer: the attempt waited for ever, and with it its worker's slot.

    ``asyncio.run`` cancels what its loop still runs. The attempt ended as if it had been cancelled itself.
    """
    monkeypatch.setattr(threads, "_LOOP_CHECK_SECONDS", 0.1)
    locks = services()
    of = attempt("r1")
    loop = asyncio.new_event_loop()
    is_last_step, may_stop = threading.Event(), threading.Event()

    def last_step() -> None:
        is_last_step.set()
        may_stop.wait(60)
        if is_cancelled:
            loop.call_soon(lambda: [each.cancel() for each in asyncio.all_tasks(loop)])
            loop.call_later(0.5, loop.stop)
        else:
            loop.stop()

    async def hold() -> None:
        current_attempt.set(of)
        await locks.resource("orders").acquire().__aenter__()
        loop.call_soon(last_step)

    def run() -> None:
        holding = loop.create_task(hold())
        loop.run_forever()
        assert holding.done()

    stopping = asyncio.create_task(asyncio.to_thread(run))
    await until(is_last_step.is_set)
    threading.Timer(0.5, may_stop.set).start()
    async with asyncio.timeout(60):
        await locks.release_attempt(of)
        await stopping
    await asyncio.to_thread(_run_and_close, loop, locks.aclose())


class FaultyAtTheEnd(Faulty):
    """Closes its connections before it fails: they belong to the loop of the locks' own thread."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.is_faulty:
            await self.aclose()
        return await super().execute_command(*args, **options)


async def test_driver_that_fails_at_the_end_leaves_no_thread(valkey: EmbeddedValkey) -> None:  # noqa: F811
    """The loop of the threads went on for ever, and closing again did nothing."""
    client = FaultyAtTheEnd(port=valkey.port)
    port = RedisPort(client)
    locks = LockService(LockStore(port, Keys("mageflow", "tests")))

    def hold() -> None:
        with locks.resource("orders").acquire(on_lost="flag"):
            client.is_faulty = True
            with pytest.raises(LookupError):
                locks.close()
            client.is_faulty = False

    await asyncio.to_thread(hold)
    assert not [each.name for each in threading.enumerate() if each.name == "mageflow-locks"]
    await locks.aclose()
    await port.aclose()
