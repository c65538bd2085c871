"""taskiq: its OpenTelemetry middleware for spans, its Prometheus middleware for metrics, its log."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from tests.benchmarks.peers.signals import AT_ONCE, Batch, Send, log, recording


def _broker(is_on: bool, url: str, noop: Callable[..., Any], metrics: Path | None = None) -> tuple[Any, Any]:
    log(is_on)
    broker = RedisStreamBroker(url)
    if is_on:
        from taskiq.middlewares.opentelemetry_middleware import OpenTelemetryMiddleware
        from taskiq.middlewares.prometheus_middleware import PrometheusMiddleware

        broker.add_middlewares(OpenTelemetryMiddleware(tracer_provider=recording()))
        if metrics:
            broker.add_middlewares(PrometheusMiddleware(metrics, 0, "127.0.0.1"))
    return broker, broker.register_task(noop, task_name="noop")


def serve(is_on: bool, url: str) -> None:
    """Be the worker."""
    batch = Batch(url)

    async def noop(size: int) -> None:
        batch.note(size)

    with tempfile.TemporaryDirectory() as folder:
        broker, _ = _broker(is_on, url, noop, Path(folder))
        broker.is_worker_process = True
        asyncio.run(run_receiver_task(broker, run_startup=True))


@asynccontextmanager
async def sender(is_on: bool, url: str) -> AsyncIterator[Send]:
    """Send batches."""

    async def noop(size: int) -> None:
        raise AssertionError("the worker runs it")

    broker, task = _broker(is_on, url, noop)
    await broker.startup()

    async def send(count: int) -> None:
        for _ in range(0, count, AT_ONCE):
            await asyncio.gather(*(task.kiq(count) for _ in range(AT_ONCE)))

    yield send
    await broker.shutdown()
