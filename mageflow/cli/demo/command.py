"""The command line of the demo. It imports what it needs when it runs, so that ``--help`` is fast."""

import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click

from mageflow.cli.numbers import FiniteRange
from mageflow.errors import ConfigurationError

__all__ = ["demo"]

_EPILOG = """\b
Examples:
  mageflow demo                      watch it, then read the report
  mageflow demo --seconds 3          the shortest demo, about 12 s
  mageflow demo --json | jq .tasks   the report as JSON
  mageflow demo --serve              go on until Ctrl-C; scrape /metrics
  mageflow demo --watch              the live view of a busy worker
  mageflow demo --keep out           keep spans, log and metrics in out/

\b
Exit status: 0 every expectation is met, 1 one is not met or a process
does not start, 2 wrong arguments. Needs the extra "local".
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--seconds",
    type=FiniteRange(0, 3600),
    default=8.0,
    show_default=True,
    help="How long plain runs are started. The other runs take about 7 s in any case.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object on standard output.")
@click.option("--serve", is_flag=True, help="After the report, start runs until Ctrl-C.")
@click.option("--watch", is_flag=True, help="Start runs of every kind and open the live view, instead of the report.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Copy the spans, the worker's log and its metrics to this directory.",
)
def demo(seconds: float, keep: Path | None, *, as_json: bool, serve: bool, watch: bool) -> None:
    """Run tasks of every kind on this machine and report what happened.

    Starts a Valkey server, an engine and a worker as processes on 127.0.0.1. Runs tasks with each decorator, a chain,
    a swarm and a deadlock. Reports their metrics, spans and results, and checks that these agree with each other.
    """
    began = time.monotonic()
    from mageflow.cli.console import DataConsole
    from mageflow.cli.demo.services import STOPPING, start_services
    from mageflow.cli.extras import require_extra, require_local
    from mageflow.cli.interrupts import answered

    require_local("demo")
    if watch:
        if as_json or serve or keep is not None:
            raise click.UsageError("--watch has no report: it excludes --json, --serve and --keep")
        require_extra("demo --watch", "top", "textual")

    if keep is not None:
        _make_directory(keep)
    console = DataConsole(stderr=as_json)
    with (
        answered(STOPPING),
        _directory(keep) as directory,
        start_services(directory, lambda line: console.print(line, style="dim")) as services,
    ):
        # Needs the SDK, which is imported in a thread while the processes start.
        from mageflow.cli.demo import session

        if watch:
            session.watch(services)
            console.print("Stopping: the worker ends its tasks, for at most a few seconds.", style="dim")
            return
        observed = session.observe(console, services, seconds)
        is_met = session.report(console, observed, time.monotonic() - began, as_json=as_json)
        if keep is not None:
            (directory / "metrics.txt").write_text(services.exposition(), encoding="utf-8")
        if serve:
            session.serve(console, services)
    if not is_met:
        raise SystemExit(1)


def _make_directory(path: Path) -> None:
    """Fail before anything starts, not after half a minute of work."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


@contextmanager
def _directory(keep: Path | None) -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="mageflow-demo-") as name:
        yield Path(name)
        if keep is not None:
            shutil.copytree(name, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("targets"))
