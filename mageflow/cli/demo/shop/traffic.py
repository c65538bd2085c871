"""Continuous load: all kinds of work at a low and irregular rate."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

from mageflow.cli.demo.shop.tasks import Order
from mageflow.cli.demo.shop.workload import Workload

__all__ = ["kinds_of_work", "repeat", "send_traffic"]

_SLOW_SHARE = 0.1
_STAGGERED_RUNS = 6


Start = Callable[[int], Awaitable[object]]


async def send_traffic(workload: Workload) -> None:
    """Start work until cancelled. An error does not end it: mageflow logs the error, and the next round tries again."""
    rng = random.Random()  # noqa: S311 - a rate, not a secret
    async with asyncio.TaskGroup() as group:
        for seconds, start in kinds_of_work(workload, rng):
            group.create_task(repeat(seconds, start, rng))


async def repeat(seconds: float, start: Start, rng: random.Random) -> None:
    """Start work about every so many seconds, until cancelled.

    Python 3.11's ``wait_for`` and some drivers lose a cancellation that arrives together with the answer they wait for.
    The task still knows of it, and is asked in each round: otherwise its group would wait for it for ever.
    """
    number, task = 0, asyncio.current_task()
    while task is None or not task.cancelling():
        await asyncio.sleep(seconds * rng.uniform(0.5, 1.5))
        number += 1
        with contextlib.suppress(Exception):
            await start(number)


def kinds_of_work(workload: Workload, rng: random.Random) -> list[tuple[float, Start]]:
    """Each kind of work: its mean interval in seconds, and what starts it for an order's number."""
    shop = workload.shop

    def charge_seconds() -> float:
        return rng.lognormvariate(-2.0, 0.7) + (2.0 if rng.random() < _SLOW_SHARE else 0.0)

    async def deadlocks(number: int) -> None:
        # Two orders at once: for some seconds the tasks wait for each other in both directions.
        await workload.deadlock(2 * number, pay_seconds=0.3, pack_seconds=6.0)
        await workload.deadlock(2 * number + 1, pay_seconds=6.0, pack_seconds=0.3)

    return [
        (1, lambda n: workload.run(shop.charge, Order(number=n, seconds=charge_seconds()))),
        (4, lambda n: workload.run(shop.flaky, Order(number=n))),
        (7, lambda n: workload.run(shop.refuse, Order(number=n))),
        (15, lambda n: workload.run(shop.hang, Order(number=n))),
        (25, lambda _: workload.cancel(1, after_seconds=4)),
        (60, lambda n: workload.render(Order(number=n, seconds=20))),
        (5, lambda n: workload.render(Order(number=n, seconds=0.1))),
        (15, lambda _: workload.run_many(shop.sync, [Order(number=n, seconds=0.4) for n in range(_STAGGERED_RUNS)])),
        (6, lambda n: workload.push_event(Order(number=n))),
        (12, lambda n: workload.schedule(Order(number=n), timedelta(seconds=5))),
        (10, lambda n: workload.run(shop.audit, Order(number=n))),
        (3, lambda n: workload.run_signed(shop.reserve, Order(number=n), {"order": n}, has_callback=True)),
        (5, lambda n: workload.chain(Order(number=n))),
        (20, lambda n: workload.failing_chain(Order(number=n))),
        (15, lambda _: workload.swarm(0.5)),
        (4, lambda n: workload.count_till(Order(number=n, seconds=rng.uniform(0.5, 6.0)))),
        (30, deadlocks),
    ]
