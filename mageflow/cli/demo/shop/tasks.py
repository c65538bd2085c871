"""The tasks of the shop. Each task shows one behaviour that telemetry must report correctly."""
# ruff: noqa: ARG001 - a task declares an input, also when it does not read it

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from hatchet_sdk import Context
from opentelemetry import trace
from pydantic import BaseModel

from mageflow import Mageflow, ReturnValue, TaskSignature

__all__ = [
    "DEADLOCK_PAIR",
    "OUTCOMES",
    "RENDER_TIMEOUT",
    "STAGGER_TIMEOUT",
    "STAGGER_WINDOW",
    "Order",
    "Shop",
    "declare",
]

STAGGER_WINDOW = timedelta(seconds=4)
"""The longest delay of a ``stock.sync`` run."""

STAGGER_TIMEOUT = timedelta(seconds=2)
"""The execution timeout of ``stock.sync``. It is shorter than many delays: the stagger must extend it."""

RENDER_TIMEOUT = timedelta(seconds=2)
"""The execution timeout of ``report.render``."""

DEADLOCK_PAIR = ("order.pay", "order.pack")
"""Two tasks that take the same two locks in opposite order."""

OUTCOMES: Mapping[str, tuple[str, ...]] = {
    "checkout.flaky": ("retried", "succeeded"),
    "checkout.refuse": ("retried", "failed"),
    "checkout.hang": ("timed_out",),
}
"""The outcome of each attempt of one run, by task. All other tasks succeed on their first attempt."""


class Order(BaseModel):
    """The input of every task.

    Attributes:
        number: Which order it is.
        seconds: How long the task works.
        previous: In a chain: the output of the step before.
    """

    number: int = 0
    seconds: float = 0.05
    previous: Annotated[dict[str, Any], ReturnValue()] = {}


class Receipt(BaseModel):
    """The output of every task.

    Attributes:
        number: The number of the order.
        price: Set by ``checkout.charge`` and ``report.render``.
        done: In a chain: what the steps have done so far.
        received: What the task read from its context or its signature.
    """

    number: int
    price: int = 0
    done: list[str] = []
    received: dict[str, Any] = {}


class PaymentRefusedError(Exception):
    """The bank refuses the card. A retry does not help."""


@dataclass(frozen=True)
class Shop:
    """The declared tasks. The name of each field is the last part of the task's name."""

    charge: Any
    flaky: Any
    refuse: Any
    hang: Any
    wait: Any
    render: Any
    sync: Any
    audit: Any
    reserve: Any
    pick: Any
    wrap: Any
    ship: Any
    notify: Any
    pay: Any
    pack: Any
    count: Any

    @property
    def tasks(self) -> list[Any]:
        """All tasks, in the form a worker takes them."""
        return list(vars(self).values())

    def named(self, name: str) -> Any:
        """The task with this name, such as ``checkout.charge``."""
        return getattr(self, name.rpartition(".")[2])


def declare(client: Mageflow) -> Shop:
    """Declare the tasks of the shop on a client."""
    return Shop(**_checkout_tasks(client), **_stock_tasks(client), **_order_tasks(client), **_lock_tasks(client))


def _checkout_tasks(client: Mageflow) -> dict[str, Any]:
    @client.task(name="checkout.charge", execution_timeout=timedelta(seconds=30))
    async def charge(order: Order) -> Receipt:
        """Succeeds."""
        await asyncio.sleep(order.seconds)
        return Receipt(number=order.number, price=100 + order.number)

    @client.task(name="checkout.flaky", retries=2)
    @client.with_ctx
    async def flaky(order: Order, ctx: Context) -> Receipt:
        """Fails once, succeeds on the second attempt."""
        await asyncio.sleep(order.seconds)
        if ctx.attempt_number == 1:
            raise ConnectionError("the bank did not answer")
        return Receipt(number=order.number, received={"attempt": ctx.attempt_number})

    @client.task(name="checkout.refuse", retries=1)
    async def refuse(order: Order) -> Receipt:
        """Fails on both attempts."""
        raise PaymentRefusedError(f"no credit for order {order.number}")

    @client.task(name="checkout.hang", execution_timeout=timedelta(seconds=6))
    async def hang(order: Order) -> Receipt:
        """Runs until its execution timeout."""
        await asyncio.sleep(60)
        return Receipt(number=order.number)

    @client.task(name="checkout.wait", execution_timeout=timedelta(minutes=5))
    async def wait(order: Order) -> Receipt:
        """Runs until it is cancelled."""
        await asyncio.sleep(240)
        return Receipt(number=order.number)

    return {"charge": charge, "flaky": flaky, "refuse": refuse, "hang": hang, "wait": wait}


def _stock_tasks(client: Mageflow) -> dict[str, Any]:
    tracer = trace.get_tracer("mageflow.demo")

    @client.task(name="report.render", execution_timeout=RENDER_TIMEOUT)
    def render(order: Order) -> Receipt:
        """A synchronous function. It runs in a thread, which continues after a timeout."""
        time.sleep(order.seconds)
        return Receipt(number=order.number, price=100 + order.number)

    @client.task(name="stock.sync", execution_timeout=STAGGER_TIMEOUT)
    @client.stagger_execution(wait_delta=STAGGER_WINDOW)
    @client.with_signature
    async def sync(order: Order, signature: TaskSignature) -> Receipt:
        """Starts after a random delay."""
        with tracer.start_as_current_span("update warehouse"):
            await asyncio.sleep(order.seconds)
        return Receipt(number=order.number, received={"key": signature.key})

    return {"render": render, "sync": sync}


def _order_tasks(client: Mageflow) -> dict[str, Any]:
    @client.task(name="order.audit")
    @client.with_ctx
    async def audit(order: Order, ctx: Context) -> Receipt:
        """Receives its context."""
        return Receipt(number=order.number, received={"run_id": ctx.workflow_run_id, "attempt": ctx.attempt_number})

    @client.task(name="order.reserve")
    @client.with_signature
    async def reserve(order: Order, signature: TaskSignature) -> Receipt:
        """Receives its signature."""
        await asyncio.sleep(order.seconds)
        received = {"task_name": signature.task_name, "identifiers": signature.task_identifiers, "key": signature.key}
        return Receipt(number=order.number, received=received)

    async def work(order: Order, done: str) -> Receipt:
        await asyncio.sleep(order.seconds)
        return Receipt(number=order.number, done=[*order.previous.get("done", []), done])

    @client.task(name="order.pick")
    async def pick(order: Order) -> Receipt:
        """The first step of a chain, and the item of a swarm."""
        return await work(order, "picked")

    @client.task(name="order.wrap")
    async def wrap(order: Order) -> Receipt:
        """The second step of a chain."""
        return await work(order, "wrapped")

    @client.task(name="order.ship", on_events=["order:paid"])
    async def ship(order: Order) -> Receipt:
        """The last step of a chain. It is also started by an event and by a schedule."""
        return await work(order, "shipped")

    @client.task(name="support.notify")
    async def notify(message: dict[str, Any]) -> dict[str, Any]:
        """A success callback and an error callback."""
        return {}

    return {"audit": audit, "reserve": reserve, "pick": pick, "wrap": wrap, "ship": ship, "notify": notify}


def _lock_tasks(client: Mageflow) -> dict[str, Any]:
    account, stock = client.resource("account"), client.resource("stock")

    async def take(first: Any, second: Any, order: Order, ctx: Context) -> Receipt:
        async with first.acquire(key=order.number):
            await asyncio.sleep(order.seconds)
            async with second.acquire(key=order.number):
                await asyncio.sleep(0.1)
        return Receipt(number=order.number, received={"attempt": ctx.attempt_number})

    @client.task(name="order.pay", retries=3, execution_timeout=timedelta(seconds=30))
    @client.with_ctx
    async def pay(order: Order, ctx: Context) -> Receipt:
        """Takes the account, then the stock."""
        return await take(account, stock, order, ctx)

    @client.task(name="order.pack", retries=3, execution_timeout=timedelta(seconds=30))
    @client.with_ctx
    async def pack(order: Order, ctx: Context) -> Receipt:
        """Takes the stock, then the account: with ``order.pay`` of the same order this makes a deadlock."""
        return await take(stock, account, order, ctx)

    @client.task(name="till.count", execution_timeout=timedelta(seconds=30))
    @client.exclusive("till")
    async def count(order: Order) -> Receipt:
        """Holds the lock of the till."""
        await asyncio.sleep(order.seconds)
        return Receipt(number=order.number)

    return {"pay": pay, "pack": pack, "count": count}
