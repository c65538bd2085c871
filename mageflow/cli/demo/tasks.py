"""The tasks of the demo: a small shop, with one task for each thing there is to see.

Both processes declare them: the worker to run them, the demo itself to start runs.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hatchet_sdk import Context
from opentelemetry import trace
from pydantic import BaseModel

from mageflow import Mageflow, TaskSignature

__all__ = ["CROWD_TIMEOUT", "CROWD_WINDOW", "Order", "OrderDone", "Shop", "declare"]

CROWD_WINDOW = timedelta(seconds=5)
"""How long a run of the crowd may be delayed."""

CROWD_TIMEOUT = timedelta(seconds=2)
"""What a run of the crowd has for itself: much less than its delay may take."""

_SUPPLIER_TIMEOUT = timedelta(seconds=2)
_TIME_OF_A_RESERVATION = 0.4
_TIME_OF_A_DEAF_SUPPLIER = 60.0


class Order(BaseModel):
    """What every task of the shop is given."""

    number: int = 0


class OrderDone(BaseModel):
    """What every task of the shop returns: the order, and what the task saw of itself."""

    number: int
    price: int = 0
    seen: dict[str, Any] = {}


class SupplierError(Exception):
    """The supplier's system is down; it will be up again soon."""


class BrokenFileError(ValueError):
    """A file nobody can read, however often it is tried."""


@dataclass(frozen=True)
class Shop:
    """The declared tasks. Typed loosely: the demo starts all of them in the same way."""

    price_order: Any
    print_invoice: Any
    audit_order: Any
    greet_regular: Any
    reserve_stock: Any
    charge_card: Any
    ask_supplier: Any
    read_file: Any

    def all(self) -> list[Any]:
        """Every task, as a worker takes them."""
        return list(vars(self).values())


def declare(client: Mageflow) -> Shop:
    """Declare the tasks of the shop on a client."""
    tracer = trace.get_tracer("mageflow.demo")

    @client.task(name="price_order")
    async def price_order(order: Order) -> OrderDone:
        await asyncio.sleep(0.02 + order.number % 5 * 0.01)
        return OrderDone(number=order.number, price=100 + order.number)

    @client.task(name="print_invoice")
    def print_invoice(order: Order) -> OrderDone:
        time.sleep(0.03 + order.number % 4 * 0.01)  # a synchronous function: it runs in a thread
        return OrderDone(number=order.number)

    @client.task(name="audit_order")
    @client.with_ctx
    async def audit_order(order: Order, ctx: Context) -> OrderDone:
        return OrderDone(number=order.number, seen={"run_id": ctx.workflow_run_id, "attempt": ctx.attempt_number})

    @client.task(name="greet_regular")
    @client.with_signature
    async def greet_regular(order: Order, signature: TaskSignature) -> OrderDone:
        seen = {"task_name": signature.task_name, "identifiers": signature.task_identifiers, "key": signature.key}
        return OrderDone(number=order.number, seen=seen)

    @client.task(name="reserve_stock", execution_timeout=CROWD_TIMEOUT)
    @client.stagger_execution(wait_delta=CROWD_WINDOW)
    @client.with_signature
    async def reserve_stock(order: Order, signature: TaskSignature) -> OrderDone:
        with tracer.start_as_current_span("update warehouse"):
            await asyncio.sleep(_TIME_OF_A_RESERVATION)
        return OrderDone(number=order.number, seen={"key": signature.key})

    @client.task(name="charge_card", retries=2)
    @client.with_ctx
    async def charge_card(order: Order, ctx: Context) -> OrderDone:
        await asyncio.sleep(0.05)
        if ctx.attempt_number == 1:
            raise SupplierError("the bank did not answer")
        return OrderDone(number=order.number, seen={"attempt": ctx.attempt_number})

    @client.task(name="ask_supplier", execution_timeout=_SUPPLIER_TIMEOUT)
    async def ask_supplier(order: Order) -> OrderDone:
        await asyncio.sleep(_TIME_OF_A_DEAF_SUPPLIER)
        return OrderDone(number=order.number)

    @client.task(name="read_file", retries=1)
    async def read_file(order: Order) -> OrderDone:
        raise BrokenFileError(f"page {order.number} is missing")

    return Shop(
        price_order=price_order,
        print_invoice=print_invoice,
        audit_order=audit_order,
        greet_regular=greet_regular,
        reserve_stock=reserve_stock,
        charge_card=charge_card,
        ask_supplier=ask_supplier,
        read_file=read_file,
    )
