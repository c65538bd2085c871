"""Celery: OpenTelemetry's instrumentation of it, with its one histogram for Prometheus, task events, its log.

The worker is a prefork pool of one child, which runs the tasks; the CPU time of both processes counts.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from opentelemetry.instrumentation.celery import CeleryInstrumentor

from tests.benchmarks.peers.signals import Batch, Send, recording


def _app(url: str) -> tuple[Any, Any]:
    app = Celery("bench", broker=url)
    app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
    batch = Batch(url)

    def noop(size: int) -> None:
        batch.note(size)

    return app, app.task(name="noop")(noop)


def _instrument() -> None:
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import start_http_server

    start_http_server(0, "127.0.0.1")
    meters = MeterProvider(metric_readers=[PrometheusMetricReader()], shutdown_on_exit=False)
    CeleryInstrumentor().instrument(tracer_provider=recording(), meter_provider=meters)


def serve(is_on: bool, url: str) -> None:
    """Be the worker."""
    app, _ = _app(url)
    if is_on:
        worker_process_init.connect(lambda **_: _instrument(), weak=False)
    flags = ["--loglevel=INFO", "--task-events"] if is_on else ["--loglevel=WARNING"]
    app.worker_main(["worker", "--concurrency=1", "--without-gossip", "--without-mingle", *flags])


@asynccontextmanager
async def sender(is_on: bool, url: str) -> AsyncIterator[Send]:
    """Send batches."""
    _, task = _app(url)
    if is_on:
        CeleryInstrumentor().instrument(tracer_provider=recording())

    async def send(count: int) -> None:
        for _ in range(count):
            task.delay(count)

    yield send
