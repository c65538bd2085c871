"""A cancellation at every await point of our calls ends the caller, so that a timeout around them always fires.

Python 3.11's ``asyncio.wait_for`` and drivers that take a cancellation for a failed connection swallow one that
arrives at the wrong moment. So the calls are cancelled where they wait, and where what they wait for has just come.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from datetime import timedelta
from typing import Any, Literal

import pytest

from mageflow import Mageflow, Settings
from mageflow.testing.valkey import EmbeddedValkey
from tests.integration.conftest import make_observed  # noqa: F401 - a fixture

SECONDS = 20.0
QUICK = Settings(metrics_port=0, reconcile_interval_seconds=0.02, reconcile_grace_seconds=0.02)

Moment = Literal["suspended", "completed"]
Call = Callable[[], Awaitable[Any]]


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine that counts its suspensions and cancels its task at one of them.

    Args:
        coroutine: The program.
        number: The suspension, from 1.
        moment: When it has just suspended, or when what it waits for has come and it is not resumed yet.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, moment: Moment) -> None:
        self._coroutine = coroutine
        self._number = number
        self._moment = moment
        self.suspensions = 0
        self.task: asyncio.Task[Any] | None = None

    def send(self, value: Any) -> Any:
        return self._suspended(self._coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        return self._suspended(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from self._coroutine.__await__()

    def _suspended(self, awaited: Any) -> Any:
        self.suspensions += 1
        if self.suspensions == self._number and self.task is not None:
            if self._moment == "completed" and awaited is not None:
                # Before the callback that resumes the task, which is added when this returns.
                awaited.add_done_callback(lambda _: self.task and self.task.cancel())
            else:
                self.task.cancel()
        return awaited


async def cancelled_at(call: Call, number: int, moment: Moment) -> bool:
    """Whether a program that was cancelled there ended; False if it has fewer await points."""
    is_over = False

    async def program() -> None:
        nonlocal is_over
        await call()
        is_over = True
        await asyncio.sleep(2 * SECONDS)

    counted = Counted(program(), number, moment)
    task = counted.task = asyncio.get_running_loop().create_task(counted)  # type: ignore[arg-type]
    deadline = asyncio.get_running_loop().time() + SECONDS
    while not task.done():
        if is_over and counted.suspensions <= number:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return False
        assert asyncio.get_running_loop().time() < deadline, f"await point {number} {moment}: it goes on"
        await asyncio.sleep(0.001)
    assert task.cancelled(), f"await point {number} {moment}: {task.exception()!r}"
    return True


async def at_every_point(make_call: Callable[[], Call], moment: Moment) -> int:
    """Cancel a call at each of its await points; the number of them."""
    number = 0
    while await cancelled_at(make_call(), number + 1, moment):
        number += 1
    return number


@pytest.fixture
def client(make_observed: Any, mageflow_redis: EmbeddedValkey) -> Mageflow:  # noqa: F811
    """A client of a real Valkey."""
    client: Mageflow = make_observed(mageflow_redis.url, settings=QUICK).client
    return client


@pytest.fixture
async def calls(client: Mageflow, mageflow_worker: Any) -> AsyncIterator[dict[str, Call]]:
    """Our asynchronous calls, each ready to be made again and again."""

    @client.task(name="step")
    async def step(msg: dict[str, Any]) -> dict[str, Any]:
        return {"n": 1}

    mageflow_worker.in_process(client, "cancelled", workflows=[step])
    orders, stock = client.resource("orders"), client.resource("stock")

    async def locked() -> None:
        async with orders.acquire(timeout=timedelta(seconds=5)):
            pass

    async def locked_both() -> None:
        async with orders.acquire(), stock.acquire():
            pass

    async def signed() -> None:
        signature = await client.sign(step, n=1)
        await signature.aio_run_no_wait({})

    async def chained() -> None:
        chain = await client.chain([step, step], success=step, error=step)
        await chain.aio_run_no_wait({})
        await client.load_signature(chain.key)

    async def swarmed() -> None:
        swarm = await client.swarm([step])
        await swarm.add(step)
        await swarm.close()
        await swarm.interrupt()

    async def held() -> None:
        chain = await client.chain([step, step])
        await chain.suspend()
        await chain.resume()

    async def reconciled() -> None:
        reconciler = asyncio.create_task(client._flows.reconciler().run())
        try:
            await asyncio.sleep(0.05)
        finally:
            reconciler.cancel()
            await asyncio.gather(reconciler, return_exceptions=True)

    async def anew() -> None:
        """With connections that must be opened and closed."""
        await client.aclose()
        await client.sign(step)

    yield {
        "aio_run": lambda: step.aio_run({}),
        "aio_run of a signature": lambda: _run_signed(client, step),
        "acquire": locked,
        "two locks": locked_both,
        "sign": signed,
        "chain": chained,
        "swarm": swarmed,
        "suspend": held,
        "sweep": client._flows.reconciler().sweep,
        "reconciler": reconciled,
        "aclose": anew,
    }
    await client.aclose()


async def _run_signed(client: Mageflow, task: Any) -> None:
    signature = await client.sign(task)
    await signature.aio_run({})


CALLS = [
    *("aio_run", "aio_run of a signature", "acquire", "two locks", "sign", "chain", "swarm", "suspend", "sweep"),
    *("reconciler", "aclose"),
]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["suspended", "completed"])
async def test_a_cancellation_at_any_await_point_ends_the_caller(calls: dict[str, Call], moment: Moment) -> None:
    """It ends cancelled wherever it was, never by another error and never not at all."""
    assert set(CALLS) == set(calls)
    for name, call in calls.items():
        points = await at_every_point(lambda call=call: call, moment)
        print(f"{name}: {points} await points")
        assert points > 0, name
