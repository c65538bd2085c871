"""One demo on running services: run the scenario, report it, continue."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from rich.console import Console

from mageflow import Mageflow
from mageflow.cli.demo.expectations import Observed, check
from mageflow.cli.demo.progress import show_progress
from mageflow.cli.demo.report import show
from mageflow.cli.demo.scenario import Results, run_scenario
from mageflow.cli.demo.services import STOPPING, Services
from mageflow.cli.demo.shop import Workload, declare, send_traffic
from mageflow.cli.demo.shop.spans import JsonLinesExporter, SpanRecord, read_spans
from mageflow.cli.demo.summary import summarize
from mageflow.cli.interrupts import run_answered, say_at_once
from mageflow.telemetry.names import traces
from mageflow.testing import samples

__all__ = ["observe", "open_workload", "report", "serve", "watch"]

_SPANS_SECONDS = 20.0
_STOP_SECONDS = 3.0
_WATCH_SECONDS = 2.0


def observe(console: Console, services: Services, seconds: float) -> Observed:
    """Run the scenario of the demo in this process, and collect its results and telemetry.

    Args:
        console: Where the progress is shown.
        services: The running processes. This process writes its spans to their directory.
        seconds: How long plain runs are started.

    Raises:
        EngineError: The worker has ended.
    """
    own_spans = services.directory / "demo-spans.jsonl"
    registry = CollectorRegistry()
    provider = TracerProvider(resource=Resource.create({"service.name": "demo"}))
    provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(own_spans)))
    results = Results(seconds)

    async def run() -> Workload:
        async with open_workload(services, registry=registry, tracer_provider=provider) as workload:
            progress = asyncio.create_task(show_progress(console, services, results))
            try:
                await run_scenario(workload, results)
            finally:
                progress.cancel()
                await asyncio.gather(progress, return_exceptions=True)
        return workload

    expected = run_answered(run(), STOPPING).expected
    provider.shutdown()
    attempts = sum(expected.attempts.values())
    worker = services.samples_after(attempts)
    spans = _spans_after(attempts, own_spans, services.directory / "worker-spans.jsonl")
    summary = summarize(results, worker, samples(registry), spans, services.directory / "worker.log")
    return Observed(results, expected, summary, spans)


def _spans_after(attempts: int, *paths: Path) -> list[SpanRecord]:
    """The spans in these files when this many attempts have ended theirs, or after 20 s.

    The worker counts an attempt before the span of the attempt ends and is written.
    """
    deadline = time.monotonic() + _SPANS_SECONDS
    while True:
        spans = read_spans(*paths)
        ended = sum(1 for span in spans if span.kind == "consumer" and traces.TASK_OUTCOME in span.attributes)
        if ended >= attempts or time.monotonic() > deadline:
            return spans
        time.sleep(0.1)


def report(console: Console, observed: Observed, took_seconds: float, *, as_json: bool) -> bool:
    """Print the report, or the same as JSON on standard output.

    Returns:
        Whether every expectation is met.
    """
    expectations = check(observed)
    is_met = all(expectation.holds for expectation in expectations)
    if as_json:
        document = {
            "ok": is_met,
            "took_seconds": round(took_seconds, 3),
            "expectations": list(map(asdict, expectations)),
        }
        click.echo(json.dumps({**document, **asdict(observed.summary)}, indent=2))
    else:
        show(console, observed.summary, expectations, took_seconds=took_seconds)
    return is_met


def serve(console: Console, services: Services) -> None:
    """Print the addresses of the services, then start runs of every kind until SIGINT or SIGTERM.

    Raises:
        EngineError: The worker has ended.
    """
    addresses = {
        "metrics": services.metrics_url,
        "redis": services.valkey.url,
        "files": services.directory,
    }
    exports = (f"export {name}='{value}'" for name, value in services.engine.environment().items())
    for line in ("", *(f"{name:<8} {where}" for name, where in addresses.items()), *exports):
        console.print(line, soft_wrap=True)

    async def run() -> None:
        stopped = asyncio.Event()

        def stop() -> None:
            say_at_once(STOPPING)
            stopped.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        # Only now: a signal is not lost, though a shell that starts a program in the background lets it ignore SIGINT.
        console.print("Runs are started until Ctrl-C.", style="bold")
        async with open_workload(services, registry=CollectorRegistry()) as workload:
            traffic = asyncio.create_task(send_traffic(workload))
            end = asyncio.create_task(stopped.wait())
            while not end.done():
                await asyncio.to_thread(services.samples)  # raises when the worker has ended
                await asyncio.wait([traffic, end], timeout=_WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if traffic.done():
                    traffic.result()
            await _end(traffic)

    asyncio.run(run())


def watch(services: Services) -> None:
    """Start runs of every kind, and show the live view until its user quits.

    Raises:
        EngineError: The worker has ended.
    """
    from mageflow.cli.top import open_reader
    from mageflow.cli.top.views import LiveView

    async def run() -> None:
        async with (
            open_workload(services, registry=CollectorRegistry()) as workload,
            open_reader(services.valkey.url, None, (services.metrics_url,)) as reader,
        ):
            traffic = asyncio.create_task(send_traffic(workload))
            await LiveView(reader, interval=1.0).run_async()
            await _end(traffic)

    asyncio.run(run())
    services.samples()


async def _end(traffic: "asyncio.Task[None]") -> None:
    """End the traffic. Bounded: a call that does not end when it is cancelled must not keep the program."""
    traffic.cancel()
    await asyncio.wait([traffic], timeout=_STOP_SECONDS)


@asynccontextmanager
async def open_workload(services: Services, **options: Any) -> AsyncGenerator[Workload]:
    """A workload on a client of this process, connected to the services. ``options`` are those of `Mageflow`."""
    async with Redis.from_url(services.valkey.url) as redis:
        client = Mageflow(services.engine.client(), redis, **options)
        try:
            yield Workload(client, declare(client))
        finally:
            await client.aclose()
