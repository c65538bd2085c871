"""The worker and load of docker-compose.yml: a small shop in which everything that can happen does.

``declare`` says what the tasks are; ``python driver.py`` serves them and keeps them busy. The tests of the dashboards
use the same tasks and count. Nothing here is clever: each task does one thing a board must be able to show.
"""
# ruff: noqa: INP001, ARG001
# A script that is copied into an image, no module; tasks declare an input they need not read; many tasks in one place.

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, TaskSignature
from mageflow.signatures import SwarmConfig

_SLOW_SHARE = 0.1


class Order(BaseModel):
    """What every task of the shop is given."""

    number: int = 0
    seconds: float = 0.05


class PaymentRefusedError(Exception):
    """The card is not good for it."""


@dataclass(frozen=True)
class Shop:
    """The tasks, as declared on one client."""

    charge: Any
    flaky: Any
    refuse: Any
    hang: Any
    wait: Any
    render: Any
    sync_stock: Any
    reserve: Any
    pick: Any
    ship: Any
    tell: Any
    pay: Any
    pack: Any
    count: Any

    @property
    def tasks(self) -> list[Any]:
        """All of them, for a worker."""
        return [getattr(self, name) for name in self.__dataclass_fields__]


def declare(client: Mageflow) -> Shop:
    """Declare the tasks of the shop on a client."""
    return Shop(**_checkout(client), **_stock(client), **_orders(client), **_till(client))


def _checkout(client: Mageflow) -> dict[str, Any]:
    @client.task(name="checkout.charge", execution_timeout=timedelta(seconds=30))
    async def charge(order: Order) -> dict[str, int]:
        """Succeed, after as long as the order says."""
        await asyncio.sleep(order.seconds)
        return {"number": order.number}

    @client.task(name="checkout.flaky", retries=2)
    @client.with_ctx
    async def flaky(order: Order, ctx: Any) -> dict[str, int]:
        """Fail the first time, succeed the second."""
        if ctx.retry_count == 0:
            raise ConnectionError("the bank hung up")
        return {"number": order.number}

    @client.task(name="checkout.refuse")
    async def refuse(order: Order) -> dict[str, int]:
        """Fail for good."""
        raise PaymentRefusedError("no credit")

    @client.task(name="checkout.hang", execution_timeout=timedelta(seconds=10))
    async def hang(order: Order) -> dict[str, int]:
        """Run into the execution timeout."""
        await asyncio.sleep(60)
        return {}

    @client.task(name="checkout.wait", execution_timeout=timedelta(minutes=5))
    async def wait(order: Order) -> dict[str, int]:
        """Wait to be cancelled."""
        await asyncio.sleep(240)
        return {}

    return {"charge": charge, "flaky": flaky, "refuse": refuse, "hang": hang, "wait": wait}


def _stock(client: Mageflow) -> dict[str, Any]:
    @client.task(name="report.render", execution_timeout=timedelta(seconds=2))
    def render(order: Order) -> dict[str, int]:
        """Work in a thread, which goes on when the attempt has timed out."""
        time.sleep(order.seconds)
        return {"pages": order.number}

    @client.task(name="stock.sync", execution_timeout=timedelta(seconds=3))
    @client.stagger_execution(wait_delta=timedelta(seconds=4))
    async def sync_stock(order: Order) -> dict[str, int]:
        """Start spread out over a window longer than the timeout."""
        await asyncio.sleep(order.seconds)
        return {"synced": order.number}

    return {"render": render, "sync_stock": sync_stock}


def _orders(client: Mageflow) -> dict[str, Any]:
    @client.task(name="order.reserve")
    @client.with_signature
    async def reserve(order: Order, signature: TaskSignature) -> dict[str, int]:
        """Know the own signature."""
        await asyncio.sleep(order.seconds)
        return {"number": order.number}

    @client.task(name="order.pick")
    async def pick(order: Order) -> dict[str, int]:
        """Be a step in a chain and an item in a swarm."""
        await asyncio.sleep(order.seconds)
        return {"number": order.number}

    @client.task(name="order.ship", on_events=["order:paid"])
    async def ship(order: Order) -> dict[str, int]:
        """Start from an event, a schedule, or as the last step."""
        return {"shipped": order.number}

    @client.task(name="support.tell")
    async def tell(message: dict[str, Any]) -> dict[str, int]:
        """Be called back."""
        return {}

    return {"reserve": reserve, "pick": pick, "ship": ship, "tell": tell}


def _till(client: Mageflow) -> dict[str, Any]:
    account, stock = client.resource("account"), client.resource("stock")

    @client.task(name="order.pay", retries=3, execution_timeout=timedelta(seconds=30))
    async def pay(order: Order) -> dict[str, int]:
        """Take the account, then the stock."""
        async with account.acquire(key=order.number):
            await asyncio.sleep(order.seconds)
            async with stock.acquire(key=order.number):
                await asyncio.sleep(order.seconds)
        return {"paid": order.number}

    @client.task(name="order.pack", retries=3, execution_timeout=timedelta(seconds=30))
    async def pack(order: Order) -> dict[str, int]:
        """Take the stock, then the account: the wrong way round, so that two runs for one order can deadlock."""
        async with stock.acquire(key=order.number):
            await asyncio.sleep(order.seconds)
            async with account.acquire(key=order.number):
                await asyncio.sleep(order.seconds)
        return {"packed": order.number}

    @client.task(name="till.count", execution_timeout=timedelta(seconds=30))
    @client.exclusive("till")
    async def count(order: Order) -> dict[str, int]:
        """Have the till alone for a while."""
        await asyncio.sleep(order.seconds)
        return {"counted": order.number}

    return {"pay": pay, "pack": pack, "count": count}


Load = Callable[[int], Awaitable[object]]


class Traffic:
    """Keeps the shop busy, from inside the worker, at a gentle and uneven pace."""

    def __init__(self, client: Mageflow, shop: Shop) -> None:
        self._client = client
        self._shop = shop
        self._random = random.Random()  # noqa: S311  # a pace, not a secret

    async def run(self) -> None:
        """Enqueue until cancelled. What fails is logged by mageflow and tried again in the next round."""
        loads: list[tuple[float, Load]] = [
            (1.0, self._charge), (4.0, self._flaky), (7.0, self._refuse), (20.0, self._hang), (25.0, self._cancel),
            (60.0, self._render), (15.0, self._crowd), (6.0, self._event), (12.0, self._schedule), (3.0, self._sign),
            (5.0, self._chain), (20.0, self._broken_chain), (15.0, self._swarm), (4.0, self._till),
            (30.0, self._deadlock),
        ]  # fmt: skip
        async with asyncio.TaskGroup() as group:
            for every, load in loads:
                group.create_task(self._repeat(every, load))

    async def _repeat(self, every: float, load: Load) -> None:
        number = 0
        while True:
            await asyncio.sleep(every * self._random.uniform(0.5, 1.5))
            number += 1
            with contextlib.suppress(Exception):
                await load(number)

    async def _start(self, task: Any, number: int, seconds: float = 0.05) -> Any:
        return await task.aio_run(Order(number=number, seconds=seconds), wait_for_result=False)

    async def _charge(self, number: int) -> None:
        is_slow = self._random.random() < _SLOW_SHARE
        seconds = self._random.lognormvariate(-2.0, 0.7) + (2.0 if is_slow else 0.0)
        await self._start(self._shop.charge, number, seconds)

    async def _flaky(self, number: int) -> None:
        await self._start(self._shop.flaky, number)

    async def _refuse(self, number: int) -> None:
        await self._start(self._shop.refuse, number)

    async def _hang(self, number: int) -> None:
        await self._start(self._shop.hang, number)

    async def _cancel(self, number: int) -> None:
        run = await self._start(self._shop.wait, number)
        await asyncio.sleep(4)
        await self._client.runs.aio_cancel(run.workflow_run_id)

    async def _render(self, number: int) -> None:
        await self._start(self._shop.render, number, 20)

    async def _crowd(self, number: int) -> None:
        items = [self._shop.sync_stock.create_bulk_run_item(Order(number=n)) for n in range(6)]
        await self._shop.sync_stock.aio_run_many(items, wait_for_result=False)

    async def _event(self, number: int) -> None:
        await self._client.event.aio_push("order:paid", Order(number=number).model_dump())

    async def _schedule(self, number: int) -> None:
        await self._shop.ship.aio_schedule(datetime.now(UTC) + timedelta(seconds=5), Order(number=number))

    async def _sign(self, number: int) -> None:
        signature = await self._client.sign(self._shop.reserve, success_callbacks=[self._shop.tell])
        await signature.aio_run_no_wait(Order(number=number))

    async def _chain(self, number: int) -> None:
        steps = [self._shop.reserve, self._shop.pick, self._shop.ship]
        chain = await self._client.chain(steps, name="fulfilment", success=self._shop.tell, number=number)
        await chain.aio_run_no_wait(Order(number=number))

    async def _broken_chain(self, number: int) -> None:
        steps = [self._shop.reserve, self._shop.refuse]
        chain = await self._client.chain(steps, name="prepayment", error=self._shop.tell, number=number)
        await chain.aio_run_no_wait(Order(number=number))

    async def _swarm(self, number: int) -> None:
        items = [self._shop.pick] * 12
        swarm = await self._client.swarm(items, name="inventory", config=SwarmConfig(max_concurrency=4), closed=True)
        await swarm.aio_run_no_wait(Order(number=number, seconds=0.5))

    async def _till(self, number: int) -> None:
        await self._start(self._shop.count, number, self._random.uniform(0.5, 6.0))

    async def _deadlock(self, number: int) -> None:
        # Two orders at once: for some seconds the tasks wait for each other both ways, then each order's ring closes.
        for order, (pay, pack) in enumerate(((0.3, 6.0), (6.0, 0.3))):
            await self._start(self._shop.pay, 2 * number + order, pay)
            await self._start(self._shop.pack, 2 * number + order, pack)


def main() -> None:
    """Serve the shop and keep it busy until told to stop."""
    from mageflow.telemetry import configure  # noqa: PLC0415  # a program's choice, made where it starts

    configure(service_name="mageflow-demo")
    client = Mageflow(Hatchet())
    shop = declare(client)

    async def busy() -> AsyncGenerator[None, None]:
        traffic = asyncio.create_task(Traffic(client, shop).run())
        yield None
        traffic.cancel()
        await asyncio.gather(traffic, return_exceptions=True)

    client.worker("shop", slots=40, durable_slots=5, workflows=shop.tasks, lifespan=busy).start()


if __name__ == "__main__":
    main()
