"""The command itself: its options, and the order of things. Imports what it needs when it runs."""

import asyncio
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from mageflow.cli.demo.expected import Expectation
    from mageflow.cli.demo.facts import Facts
    from mageflow.cli.demo.play import Play
    from mageflow.cli.demo.stage import Stage
    from mageflow.testing import Samples

__all__ = ["demo", "perform_on"]

_ACT_SECONDS = 15.0
"""How long one act takes when the play goes on and on."""

_EPILOG = """\b
Examples:
  mageflow demo                       watch it, then read the report (about 20 s)
  mageflow demo --seconds 3           the shortest: as long as the crowd needs
  mageflow demo --json | jq .tasks    the same facts for a machine
  mageflow demo --serve               keep it all running; scrape the worker's /metrics
  mageflow demo --keep demo-output    spans, log and metrics as files

\b
Exit status: 0 when every expectation was met, 1 when one was not or something did not start.
Needs the extra `local`.
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600),
    default=8.0,
    show_default=True,
    help="How long ordinary runs keep coming. The crowd of delayed runs takes about 6 s of its own.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts and expectations as one JSON object, no report.")
@click.option("--serve", is_flag=True, help="After the report go on and on until Ctrl-C, to be scraped.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Copy the spans, the worker's log and its metrics to this directory.",
)
def demo(seconds: float, keep: Path | None, *, as_json: bool, serve: bool) -> None:
    """Watch decorated tasks explain themselves, on this machine alone.

    Starts a Valkey server, an engine and a worker, each a process of its own on 127.0.0.1, runs tasks of every kind, a
    chain, a swarm and a deadlock, and reports what their metrics, spans and results say: nothing shown is made up. At
    the end it checks that they agree with each other and with what was run.
    """
    began = time.monotonic()
    from rich.console import Console

    from mageflow.cli.demo.stage import set_up
    from mageflow.cli.extras import require_local

    require_local("demo")

    console = Console(stderr=as_json)
    with _directory(keep) as directory, set_up(directory, lambda words: _say(console, words)) as stage:
        # Only now: what follows needs the SDK, which is loaded while the processes start.
        from mageflow.cli.demo.expectations import check
        from mageflow.cli.demo.facts import gather
        from mageflow.cli.demo.report import show
        from mageflow.cli.demo.spans import read_spans

        play, own = perform_on(console, stage, seconds)
        worker = stage.scrape()
        spans = read_spans(stage.own_spans, stage.worker_spans)
        facts = gather(play, worker, own, spans, stage.worker_log)
        expectations = check(play, facts, spans)
        took_seconds = time.monotonic() - began
        if as_json:
            click.echo(json.dumps(_as_json(facts, expectations, took_seconds), indent=2))
        else:
            show(console, facts, expectations, took_seconds=took_seconds)
        if keep is not None:
            (directory / "metrics.txt").write_text(_exposition(stage), encoding="utf-8")
        if serve:
            _announce(console, stage)
            _play_on(stage)
    if not all(expectation.holds for expectation in expectations):
        raise SystemExit(1)


def _say(console: "Console", words: str) -> None:
    console.print(words, style="dim", highlight=False)


@contextmanager
def _directory(keep: Path | None) -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="mageflow-demo-") as name:
        yield Path(name)
        if keep is not None:
            shutil.copytree(name, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("targets"))


def perform_on(console: "Console", stage: "Stage", seconds: float) -> "tuple[Play, Samples]":
    """Run everything, and return the runs with this process's own metrics."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from prometheus_client import CollectorRegistry
    from redis.asyncio import Redis

    from mageflow import Mageflow
    from mageflow.cli.demo.flow_tasks import declare_warehouse
    from mageflow.cli.demo.live import watch
    from mageflow.cli.demo.play import Play, perform
    from mageflow.cli.demo.spans import JsonLinesExporter
    from mageflow.cli.demo.tasks import declare
    from mageflow.testing import samples

    registry = CollectorRegistry()
    provider = TracerProvider(resource=Resource.create({"service.name": "demo"}))
    provider.add_span_processor(SimpleSpanProcessor(JsonLinesExporter(stage.own_spans)))

    async def run() -> Play:
        play = Play(seconds)
        async with Redis.from_url(stage.valkey.url) as redis:
            client = Mageflow(stage.engine.client(), redis, registry=registry, tracer_provider=provider)
            shop, warehouse = declare(client), declare_warehouse(client)
            watching = asyncio.create_task(watch(console, stage, play))
            try:
                await perform(client, shop, warehouse, play)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        return play

    play = asyncio.run(run())
    provider.shutdown()
    return play, samples(registry)


def _exposition(stage: "Stage") -> str:
    import urllib.request

    with urllib.request.urlopen(stage.metrics_url, timeout=5) as response:  # noqa: S310 - our own worker
        return response.read().decode()


def _as_json(facts: "Facts", expectations: "list[Expectation]", took_seconds: float) -> dict[str, Any]:
    return {
        "ok": all(expectation.holds for expectation in expectations),
        "took_seconds": round(took_seconds, 3),
        "expectations": [asdict(expectation) for expectation in expectations],
        **facts.to_json(),
    }


def _announce(console: "Console", stage: "Stage") -> None:
    """Say where everything is."""
    console.print()
    for what, where in (
        ("metrics", stage.metrics_url),
        ("redis", stage.valkey.url),
        ("spans", stage.worker_spans),
        ("log", stage.worker_log),
    ):
        console.print(f"[bold]{what:<8}[/] {where}", highlight=False, soft_wrap=True)
    for name, value in stage.engine.environment().items():
        console.print(f"export {name}='{value}'", highlight=False, soft_wrap=True, markup=False)
    console.print("The play goes on and on; Ctrl-C ends it.", style="bold")


def _play_on(stage: "Stage") -> None:
    """Run everything again and again until Ctrl-C, so that there is something to scrape.

    Raises:
        EngineError: The worker has ended.
    """
    from prometheus_client import CollectorRegistry
    from redis.asyncio import Redis

    from mageflow import Mageflow
    from mageflow.cli.demo.flow_tasks import declare_warehouse
    from mageflow.cli.demo.play import Play, perform
    from mageflow.cli.demo.tasks import declare

    async def run() -> None:
        async with Redis.from_url(stage.valkey.url) as redis:
            client = Mageflow(stage.engine.client(), redis, registry=CollectorRegistry())
            shop, warehouse = declare(client), declare_warehouse(client)
            while True:
                await asyncio.to_thread(stage.scrape)  # notices a worker that has ended
                await perform(client, shop, warehouse, Play(_ACT_SECONDS))

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        asyncio.run(run())
