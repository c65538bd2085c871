"""The ways to start work in the shop, and what each of them causes."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hatchet_sdk.exceptions import FailedTaskRunExceptionGroup
from pydantic import BaseModel

from mageflow import Mageflow, SwarmConfig
from mageflow.cli.demo.shop.tasks import DEADLOCK_PAIR, OUTCOMES, RENDER_TIMEOUT, Order, Shop
from mageflow.errors import FlowFailedError

__all__ = ["CHAIN", "FAILING_CHAIN", "SWARM", "SWARM_CONCURRENCY", "SWARM_ITEMS", "Expected", "Run", "Workload"]

CHAIN = "fulfilment"
"""The name of the chain that succeeds."""

FAILING_CHAIN = "prepayment"
"""The name of the chain whose last step fails."""

SWARM = "inventory"
SWARM_ITEMS = 12
SWARM_CONCURRENCY = 4
"""How many items of the swarm may run at once."""


@dataclass(slots=True)
class Expected:
    """What the metrics must count when all started work has ended. Each counter begins at 0."""

    attempts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By task and outcome. The retried attempt of a deadlock is under ``" or ".join(DEADLOCK_PAIR)``."""
    enqueued: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Runs that this process sent to Hatchet itself, by task and source."""
    loads: Counter[str] = field(default_factory=Counter[str])
    """Signature loads by result."""
    flows: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    """By kind, name and outcome."""
    callbacks: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By kind and result."""
    locks: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """Lock requests by lock and outcome. The locks of the deadlocks are left out."""
    deadlocks: int = 0

    def add_attempts(self, task: str, *outcomes: str, runs: int = 1) -> None:
        """Expect the attempts of some runs of a task. Without ``outcomes`` they are those of `OUTCOMES`."""
        for outcome in outcomes or OUTCOMES.get(task, ("succeeded",)):
            self.attempts[task, outcome] += runs


@dataclass(slots=True)
class Run:
    """A run of a task, a chain or a swarm. Its result is known after `wait`."""

    kind: str
    """``task``, ``chain`` or ``swarm``."""
    name: str
    """The name of the task or of the flow."""
    result: Callable[[], Awaitable[Any]]
    number: int = 0
    run_id: str = ""
    key: str = ""
    """The key of its signature; empty for a run without one."""
    identifiers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ended_at: float | None = None
    """Seconds since the epoch; None until the result is known."""
    output: Any = None
    error: str | None = None

    async def wait(self, timeout_seconds: float) -> None:
        """Wait for the result and set ``output`` or ``error``. After the timeout both stay None."""
        try:
            async with asyncio.timeout(timeout_seconds):
                output = await self.result()
        except TimeoutError:
            return
        except FailedTaskRunExceptionGroup as failure:
            self.error = "; ".join(str(each) for each in failure.exceptions) or str(failure)
        except FlowFailedError as failure:
            self.error = str(failure)
        else:
            self.output = output.model_dump() if isinstance(output, BaseModel) else output
        self.ended_at = time.time()


class Workload:
    """Starts work in the shop and counts what it will cause.

    Args:
        client: The client that starts it.
        shop: The tasks, declared on this client.
    """

    def __init__(self, client: Mageflow, shop: Shop) -> None:
        self.shop = shop
        self.expected = Expected()
        self._client = client

    async def run(self, task: Any, order: Order, *outcomes: str) -> Run:
        """Start one run.

        Args:
            task: A task of this or of another module.
            order: Its input.
            outcomes: The outcome of each attempt, where it is not the one that `OUTCOMES` has.
        """
        self._count(task.name, "direct", outcomes)
        reference = await task.aio_run(order, wait_for_result=False)
        return Run("task", task.name, reference.aio_result, order.number, reference.workflow_run_id)

    async def run_many(self, task: Any, orders: Sequence[Order]) -> list[Run]:
        """Start many runs with one request."""
        self._count(task.name, "direct", runs=len(orders))
        items = [task.create_bulk_run_item(order) for order in orders]
        started = await task.aio_run_many(items, wait_for_result=False)
        return [
            Run("task", task.name, reference.aio_result, order.number, reference.workflow_run_id)
            for order, reference in zip(orders, started, strict=True)
        ]

    async def run_signed(
        self, task: Any, order: Order, identifiers: Mapping[str, Any] | None = None, *, has_callback: bool = False
    ) -> Run:
        """Sign a task, with the order as its bound values, and start one run of the signature."""
        callbacks = [self.shop.notify] if has_callback else []
        bound = order.model_dump(exclude={"previous"})
        signature = await self._client.sign(task, task_identifiers=identifiers, success_callbacks=callbacks, **bound)
        self._count(task.name, "signature")
        self.expected.loads["hit"] += 1
        self._count_callbacks("success", len(callbacks))
        reference = await signature.aio_run_no_wait()
        result, run_id = reference.aio_result, reference.workflow_run_id
        return Run("task", task.name, result, order.number, run_id, signature.key, identifiers or {})

    async def chain(self, order: Order, *, start: bool = True) -> Run:
        """Create a chain of three steps and start it. With ``start=False``, `Run.wait` starts it."""
        steps = [self.shop.pick, self.shop.wrap, self.shop.ship]
        signature = await self._client.chain(
            steps, name=CHAIN, success=self.shop.notify, number=order.number, seconds=order.seconds
        )
        self._count_callbacks("success", 1)
        return await self._flow("chain", CHAIN, "succeeded", steps, signature, start=start)

    async def failing_chain(self, order: Order) -> Run:
        """Start a chain whose last step fails on both attempts."""
        steps = [self.shop.reserve, self.shop.refuse]
        signature = await self._client.chain(
            steps, name=FAILING_CHAIN, error=self.shop.notify, number=order.number, seconds=order.seconds
        )
        self._count_callbacks("error", 1)
        return await self._flow("chain", FAILING_CHAIN, "failed", steps, signature)

    async def swarm(self, seconds: float, *, start: bool = True) -> Run:
        """Create a swarm, with this many seconds per item, and start it. With ``start=False``, `Run.wait` starts it."""
        items = [
            await self._client.sign(self.shop.pick, number=number, seconds=seconds) for number in range(SWARM_ITEMS)
        ]
        config = SwarmConfig(max_concurrency=SWARM_CONCURRENCY, refill_linger_ms=100)
        signature = await self._client.swarm(items, name=SWARM, config=config, closed=True)
        return await self._flow("swarm", SWARM, "succeeded", [self.shop.pick] * SWARM_ITEMS, signature, start=start)

    async def _flow(
        self, kind: str, name: str, outcome: str, tasks: Sequence[Any], signature: Any, *, start: bool = True
    ) -> Run:
        self.expected.flows[kind, name, outcome] += 1
        for task in tasks:
            self.expected.add_attempts(task.name)
            self.expected.loads["hit"] += len(OUTCOMES.get(task.name, ("succeeded",)))
        if start:
            await signature.aio_run_no_wait()
        return Run(kind, name, signature.aio_run, key=signature.key)

    async def push_event(self, order: Order) -> None:
        """Push the event that starts ``order.ship``."""
        self.expected.add_attempts(self.shop.ship.name)
        await self._client.event.aio_push("order:paid", order.model_dump())

    async def schedule(self, order: Order, delay: timedelta) -> None:
        """Schedule a run of ``order.ship``."""
        self.expected.add_attempts(self.shop.ship.name)
        await self.shop.ship.aio_schedule(datetime.now(UTC) + delay, order)

    async def render(self, order: Order) -> Run:
        """Start one run of ``report.render``. It times out if the order takes longer than `RENDER_TIMEOUT`."""
        is_late = order.seconds > RENDER_TIMEOUT.total_seconds()
        return await self.run(self.shop.render, order, "timed_out" if is_late else "succeeded")

    async def cancel(self, runs: int, after_seconds: float) -> None:
        """Start runs of ``checkout.wait`` and cancel them after this time."""
        started = [await self.run(self.shop.wait, Order(number=number), "cancelled") for number in range(runs)]
        await asyncio.sleep(after_seconds)
        for run in started:
            await self._client.runs.aio_cancel(run.run_id)

    async def count_till(self, order: Order) -> Run:
        """Start one run of ``till.count``, which holds a lock for the seconds of the order."""
        self.expected.locks["till", "acquired"] += 1
        return await self.run(self.shop.count, order)

    async def deadlock(self, number: int, *, pay_seconds: float, pack_seconds: float) -> list[Run]:
        """Start the two tasks of a deadlock, for one order: first the one that holds its first lock for longer.

        The other must take its own first lock in that time. So choose one of the two long enough for a busy machine.

        Args:
            number: The order. Two deadlocks at the same time need different numbers.
            pay_seconds: How long ``order.pay`` holds its first lock before it requests its second.
            pack_seconds: The same for ``order.pack``. The later of the two requests closes the cycle.
        """
        self.expected.deadlocks += 1
        self.expected.attempts[" or ".join(DEADLOCK_PAIR), "retried"] += 1
        pair = [(self.shop.pay, pay_seconds), (self.shop.pack, pack_seconds)]
        pair.sort(key=lambda each: each[1], reverse=True)
        return [await self.run(task, Order(number=number, seconds=seconds)) for task, seconds in pair]

    def _count(self, task: str, source: str, outcomes: Sequence[str] = (), *, runs: int = 1) -> None:
        self.expected.add_attempts(task, *outcomes, runs=runs)
        self.expected.enqueued[task, source] += runs

    def _count_callbacks(self, kind: str, count: int) -> None:
        self.expected.add_attempts(self.shop.notify.name, runs=count)
        self.expected.loads["hit"] += count
        self.expected.callbacks[kind, "enqueued"] += count
