"""The worker of the live run: it serves the shop of the demo, and tasks with faults that the shop does not have.

`tests.dashboards.live_run` starts it in a process of its own. It writes its spans to the file ``LIVE_SPANS``, so that
the tests can look up exemplars.
"""

import asyncio
import copy
import os
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from hatchet_sdk import Hatchet
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from mageflow import Mageflow
from mageflow.cli.demo.shop import Order, declare
from mageflow.cli.demo.shop.spans import JsonLinesExporter
from mageflow.hatchet import compat

REFUSED_TASK = "stock.refused"
"""The task whose timeout extensions the engine refuses."""

UNIQUE_ERROR_TASK = "checkout.unique_error"
"""The task that fails with a different exception class each time."""

KILLED_WORKER = "killed-worker"
"""The worker that is killed while it holds a lock."""


class FaultyTasks:
    """Tasks with faults, declared beside the shop's."""

    def __init__(self, client: Mageflow) -> None:
        till, vault, shelf = (client.resource(name) for name in ("till", "vault", "shelf"))

        @client.task(name=REFUSED_TASK, execution_timeout=timedelta(seconds=20))
        @client.stagger_execution(wait_delta=timedelta(seconds=1))
        async def refused(order: Order) -> dict[str, int]:
            """Asks for a timeout extension that the engine refuses. Holds a lock for longer than a scrape."""
            async with shelf.acquire(key=order.number):
                await asyncio.sleep(1.5)
            return {"synced": order.number}

        @client.task(name="till.impatient")
        async def impatient(order: Order) -> dict[str, int]:
            """Gives up its lock request after 0.2 s."""
            async with till.acquire(timeout=timedelta(seconds=0.2)):
                return {"counted": order.number}

        @client.task(name="till.many_names", execution_timeout=timedelta(minutes=1))
        async def many_names(order: Order) -> dict[str, int]:
            """Declares as many resources as the order's number, one after the other: each has series of its own."""
            for number in range(order.number):
                async with client.resource(f"till-{number}").acquire():
                    pass
            return {"counted": order.number}

        @client.task(name=UNIQUE_ERROR_TASK)
        async def unique_error(order: Order) -> dict[str, int]:
            """Fails with a class of its own each time: more classes than a label may have."""
            raise type(f"Unique{order.number}Error", (Exception,), {})

        @client.task(name="vault.hold", execution_timeout=timedelta(minutes=2))
        async def hold(order: Order) -> dict[str, int]:
            """Works for the seconds of the order, also after its lock is lost."""
            async with vault.acquire(key=order.number, on_lost="flag"):
                await asyncio.sleep(order.seconds)
            return {"held": order.number}

        @client.task(name="vault.hold_until_killed", execution_timeout=timedelta(minutes=2))
        async def hold_until_killed(order: Order) -> dict[str, int]:
            """Holds a lock when its worker is killed."""
            async with vault.acquire(key="killed"):
                await asyncio.sleep(order.seconds)
            return {"held": order.number}

        @client.task(name="alerts.nearly_late", execution_timeout=timedelta(seconds=40))
        async def nearly_late(order: Order) -> dict[str, int]:
            """Ends shortly before its timeout, if the order takes 38 seconds."""
            await asyncio.sleep(order.seconds)
            return {"ended": order.number}

        @client.task(name="alerts.block_loop", execution_timeout=timedelta(minutes=2))
        async def block_loop(order: Order) -> dict[str, int]:
            """Blocks the event loop of its worker, as a synchronous call in an asynchronous task does."""
            time.sleep(order.seconds)  # noqa: ASYNC251  # the fault that this task has
            return {"blocked": order.number}

        @client.task(name="alerts.doze", execution_timeout=timedelta(seconds=20))
        @client.stagger_execution(wait_delta=timedelta(seconds=60))
        async def doze(order: Order) -> dict[str, int]:
            """Sleeps in its slot far longer than it works."""
            return {"dozed": order.number}

        async def obey(order: Order) -> dict[str, int]:
            if order.number < 0:
                raise ValueError("the order has a negative number")
            return {"obeyed": order.number}

        # Two tasks that fail when they are asked to: one much, one a little.
        self.fails_much = client.task(name="alerts.fails_much")(obey)
        self.fails_little = client.task(name="alerts.fails_little")(obey)
        self.block_loop, self.doze = block_loop, doze
        self.refused, self.impatient, self.unique_error, self.hold = refused, impatient, unique_error, hold
        self.many_names, self.nearly_late = many_names, nearly_late
        self.hold_until_killed = hold_until_killed

    @property
    def tasks(self) -> list[Any]:
        """The tasks for the workers of the shop. `KILLED_WORKER` serves the other one."""
        return [
            self.refused, self.impatient, self.unique_error, self.hold, self.block_loop, self.doze, self.fails_much,
            self.fails_little, self.many_names, self.nearly_late,
        ]  # fmt: skip


def refuse_extensions() -> None:
    """Send the extension requests of `REFUSED_TASK` for a run that does not exist, so that the engine refuses them."""
    extend = compat.SdkContext.extend_timeout

    async def extend_other_run(context: compat.SdkContext, seconds: float) -> float:
        if context._ctx.task_name == REFUSED_TASK:
            context = copy.copy(context)
            context.task_run_id = str(uuid.uuid4())
        return await extend(context, seconds)

    compat.SdkContext.extend_timeout = extend_other_run


class BrokenProcessor(SpanProcessor):
    """A span processor of a program that raises. Telemetry must survive it."""

    def on_end(self, span: ReadableSpan) -> None:
        if span.name == f"process {UNIQUE_ERROR_TASK}":
            raise RuntimeError("a bug in a span processor")


def main() -> None:
    refuse_extensions()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(Path(os.environ["LIVE_SPANS"]))))
    provider.add_span_processor(BrokenProcessor())
    client = Mageflow(Hatchet(), tracer_provider=provider)
    shop, faulty = declare(client), FaultyTasks(client)
    name = os.environ["LIVE_WORKER"]
    tasks = [faulty.hold_until_killed] if name == KILLED_WORKER else [*shop.tasks, *faulty.tasks]
    client.worker(name, slots=30, durable_slots=5, workflows=tasks).start()


if __name__ == "__main__":
    main()
