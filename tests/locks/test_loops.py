"""Attempts that lock from more than one event loop: still one owner."""

import asyncio
import threading
from contextlib import suppress
from datetime import timedelta

from mageflow.errors import DeadlockError, LockLostError
from tests.locks.conftest import Services
from tests.locks.runs import attempt, is_free, start, until


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
