"""docket: spans and metrics through OpenTelemetry, its Prometheus endpoint, its log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from docket import Docket, Worker
from docket.instrumentation import metrics_server
from opentelemetry import trace

from tests.benchmarks.peers.signals import AT_ONCE, Batch, Send, log, recording


async def noop(size: int) -> None:
    """Stands for the worker's task on the side of the sender."""


def _set_up(is_on: bool) -> None:
    log(is_on)
    if is_on:
        trace.set_tracer_provider(recording())


def serve(is_on: bool, url: str) -> None:
    """Be the worker."""
    _set_up(is_on)
    batch = Batch(url)

    async def noop(size: int) -> None:
        batch.note(size)

    async def run() -> None:
        async with Docket(name="bench", url=url) as docket:
            docket.register(noop)
            async with Worker(docket) as worker:
                await worker.run_forever()

    with metrics_server("127.0.0.1", 0) if is_on else nullcontext():
        asyncio.run(run())


@asynccontextmanager
async def sender(is_on: bool, url: str) -> AsyncIterator[Send]:
    """Send batches."""
    _set_up(is_on)
    async with Docket(name="bench", url=url) as docket:

        async def send(count: int) -> None:
            for _ in range(0, count, AT_ONCE):
                await asyncio.gather(*(docket.add(noop)(count) for _ in range(AT_ONCE)))

        yield send
