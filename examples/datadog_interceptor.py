"""Trace with a tracer of your own. An interceptor can do everything that mageflow's own telemetry does.

The tracer is a small copy of Datadog's: 64-bit ids, an active span in a context variable, its own metadata keys. The
interceptor makes a span for every send and every attempt and passes the parent on in the run's metadata. It activates
the span again in the thread of a synchronous task, and starts and flushes the tracer with the worker.

Prints::

    checkout
      mageflow.send place-order
        mageflow.process place-order [succeeded, attempt 1]
          mageflow.send charge
            mageflow.process charge [succeeded, attempt 1]
              card.charge
"""

import asyncio
import itertools
import random
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow
from mageflow.interceptors import (
    Attempt,
    CallbackSend,
    Enqueue,
    Event,
    FlowFinish,
    Interceptor,
    LockAcquire,
    Stagger,
    WorkerInfo,
)

# -- a tracer ------------------------------------------------------------------------------------------------------


@dataclass
class Span:
    """One finished or running operation."""

    name: str
    trace_id: int
    span_id: int
    parent_id: int = 0
    started_at: float = 0.0
    seconds: float = 0.0
    error: str = ""
    tags: dict[str, Any] = field(default_factory=dict)


class Tracer:
    """Makes spans and keeps the finished ones."""

    def __init__(self) -> None:
        self.finished: list[Span] = []
        self.metrics: dict[str, int] = {}
        self._active: ContextVar[Span | None] = ContextVar("datadog_active_span", default=None)
        self._random = random.Random()  # noqa: S311 - ids, not secrets

    @property
    def active(self) -> Span | None:
        """The span that new spans become children of."""
        return self._active.get()

    def start(self, name: str, parent: Span | None) -> Span:
        """Start a span without activating it."""
        span_id = self._random.getrandbits(63)
        trace_id = parent.trace_id if parent is not None else self._random.getrandbits(63)
        return Span(name, trace_id, span_id, parent.span_id if parent is not None else 0, time.time())

    def finish(self, span: Span) -> None:
        """End a span."""
        span.seconds = time.time() - span.started_at
        self.finished.append(span)

    @contextmanager
    def activate(self, span: Span) -> Generator[None]:
        """Make a span the active one inside the block."""
        token = self._active.set(span)
        try:
            yield
        finally:
            self._active.reset(token)

    @contextmanager
    def trace(self, name: str, parent: Span | None = None, **tags: Any) -> Generator[Span]:
        """A span around the block, active inside it."""
        span = self.start(name, parent if parent is not None else self.active)
        span.tags.update(tags)
        try:
            with self.activate(span):
                yield span
        except BaseException as error:
            span.error = type(error).__name__
            raise
        finally:
            self.finish(span)

    def count(self, name: str) -> None:
        """Add one to a counter."""
        self.metrics[name] = self.metrics.get(name, 0) + 1


# -- the interceptor -----------------------------------------------------------------------------------------------

TRACE_KEY, PARENT_KEY = "x-datadog-trace-id", "x-datadog-parent-id"


class DatadogInterceptor(Interceptor):
    """Traces mageflow with a `Tracer`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._attempts: dict[Attempt, Span] = {}

    @contextmanager
    def enqueue(self, call: Enqueue) -> Generator[None]:
        """A span around the call. Its ids travel with every run."""
        name = call.items[0].task if len(call.items) == 1 else "batch"
        with self._tracer.trace(f"mageflow.send {name}", source=call.source) as span:
            for item in call.items:
                item.metadata.update({TRACE_KEY: str(span.trace_id), PARENT_KEY: str(span.span_id)})
            yield
            span.tags["run_ids"] = [item.run_id for item in call.items]

    @contextmanager
    def attempt(self, call: Attempt) -> Generator[None]:
        """A span around the attempt, a child of the span that sent the run."""
        parent = None
        if sent_by := call.metadata.get(PARENT_KEY):
            parent = Span("", int(str(call.metadata[TRACE_KEY])), int(str(sent_by)))
        with self._tracer.trace(f"mageflow.process {call.task.name}", parent, run_id=call.workflow_run_id) as span:
            self._attempts[call] = span
            try:
                yield
            finally:
                del self._attempts[call]
                span.tags.update(outcome=call.outcome, attempt=call.attempt_number)
                self._tracer.count(f"mageflow.runs.{call.outcome}")

    @contextmanager
    def execute_in_thread(self, call: Attempt) -> Generator[None]:
        """The thread does not see the context variables of the event loop: activate the span again."""
        span = self._attempts.get(call)
        if span is None:  # the attempt has ended without its thread
            yield
            return
        with self._tracer.activate(span):
            yield

    @contextmanager
    def stagger(self, call: Stagger) -> Generator[None]:
        """A span around the delay."""
        with self._tracer.trace("mageflow.stagger", delay_s=call.delay_seconds):
            yield

    @contextmanager
    def acquire_lock(self, call: LockAcquire) -> Generator[None]:
        """A span around the request."""
        with self._tracer.trace("mageflow.acquire", locks=[each.name for each in call.resources]) as span:
            try:
                yield
            finally:
                span.tags.update(outcome=call.outcome, waited_s=call.waited_seconds)

    @asynccontextmanager
    async def worker(self, call: WorkerInfo) -> AsyncGenerator[None]:
        """Start with the worker, and flush when its last task has ended."""
        self._tracer.count("mageflow.workers.started")
        print("worker started, tasks:", ", ".join(sorted(task.name for task in call.tasks)), flush=True)
        yield
        print("worker stopped, spans:", len(self._tracer.finished), flush=True)

    def event(self, event: Event) -> None:
        """Count what happened."""
        match event:
            case FlowFinish():
                self._tracer.count(f"mageflow.flows.{event.outcome}")
            case CallbackSend():
                self._tracer.count(f"mageflow.callbacks.{event.result}")
            case _:
                self._tracer.count(f"mageflow.events.{type(event).__name__}")


# -- a program -----------------------------------------------------------------------------------------------------

tracer = Tracer()
client = Mageflow(Hatchet(), interceptors=[DatadogInterceptor(tracer)])


class Order(BaseModel):
    amount: int


@client.task(name="charge")
def charge(order: Order) -> dict[str, int]:
    with tracer.trace("card.charge"):  # in a thread, and yet a child of the attempt
        return {"charged": order.amount}


@client.task(name="place-order")
async def place_order(order: Order) -> dict[str, int]:
    return await charge.aio_run(order)


@client.task(name="read-spans")
async def read_spans(_: Order) -> dict[str, Any]:
    return {"spans": [asdict(span) for span in tracer.finished]}


def tree(spans: list[Span], parent_id: int, depth: int = 0) -> Generator[str]:
    """The spans below a parent, one line each."""
    for span in sorted(spans, key=lambda each: each.started_at):
        if span.parent_id == parent_id:
            outcome = f" [{span.tags['outcome']}, attempt {span.tags['attempt']}]" if "attempt" in span.tags else ""
            yield "  " * depth + span.name + outcome
            yield from tree(spans, span.span_id, depth + 1)


async def main() -> None:
    with tracer.trace("checkout") as checkout:
        await place_order.aio_run(Order(amount=3))
    remote = [Span(**span) for span in (await read_spans.aio_run(Order(amount=0)))["spans"]]
    spans = [span for span in itertools.chain(tracer.finished, remote) if span.trace_id == checkout.trace_id]
    print("\n".join(tree(spans, checkout.parent_id)))


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("datadog-example", workflows=[charge, place_order, read_spans]).start()
    else:
        asyncio.run(main())
