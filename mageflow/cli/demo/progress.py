"""The progress of the scenario on a console, from the worker's own metrics."""

import asyncio
import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mageflow.cli.demo.scenario import TASKS, Results
from mageflow.cli.demo.services import Services
from mageflow.telemetry.names import metrics
from mageflow.testing import Samples

__all__ = ["outcome_counts", "show_progress"]

_TABLE_SECONDS = 0.5
_LINE_SECONDS = 2.0

_OUTCOME_STYLES = {
    "succeeded": "green",
    "retried": "yellow",
    "timed_out": "magenta",
    "failed": "red",
    "cancelled": "dim",
    "skipped": "dim",
}


def outcome_counts(counts: Mapping[str, float]) -> Text:
    """Attempts by outcome, coloured, always in the same order."""
    shown = {outcome: style for outcome, style in _OUTCOME_STYLES.items() if counts.get(outcome)}
    return Text("  ").join(Text(f"{counts[outcome]:.0f} {outcome}", style) for outcome, style in shown.items())


async def show_progress(console: Console, services: Services, results: Results) -> None:
    """Show the progress until cancelled: a table in a terminal, elsewhere a line every two seconds."""
    if not console.is_terminal:
        while True:
            await asyncio.sleep(_LINE_SECONDS)
            console.print(_line(results, await asyncio.to_thread(services.samples)))
    with Live(console=console, auto_refresh=False, transient=True) as live:
        try:
            while True:
                live.update(_table(results, await asyncio.to_thread(services.samples)), refresh=True)
                await asyncio.sleep(_TABLE_SECONDS)
        finally:
            live.update(Text(""), refresh=True)


def _line(results: Results, samples: Samples) -> Text:
    phases = samples.by("phase", metrics.TASKS_IN_FLIGHT.name)
    in_flight = ", ".join(f"{count:.0f} {phase}" for phase, count in phases.items() if count) or "nothing"
    ended = f"{results.ended} of {len(results.runs)} runs ended"
    return Text(f"{time.time() - results.started_at:5.1f} s  {ended}; in flight: {in_flight}")


def _table(results: Results, samples: Samples) -> Group:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("task", "", "runs", "attempts by outcome"):
        table.add_column(heading, header_style="bold")
    for name, task in TASKS.items():
        runs = results.of(name)
        ended = sum(1 for run in runs if run.ended_at is not None)
        outcomes = outcome_counts(samples.by("outcome", metrics.TASK_RUNS.name, task=name))
        bar = ProgressBar(total=max(1, len(runs)), completed=ended, width=18)
        table.add_row(Text(name, "bold"), Text(task.shows, "dim"), bar, outcomes)
    phases = samples.by("phase", metrics.TASKS_IN_FLIGHT.name)
    slots = samples.total(metrics.WORKER_SLOTS.name, pool="default")
    used = samples.total(metrics.WORKER_SLOTS_USED.name, pool="default")
    line = Text(f"\n{time.time() - results.started_at:5.1f} s   slots {used:.0f} of {slots:.0f}   ")
    line.append(f"in a stagger delay {phases.get('stagger', 0):.0f}   ", "cyan")
    line.append(f"running {phases.get('running', 0):.0f}   ", "green")
    line.append(f"near their timeout {samples.total(metrics.TASKS_NEAR_TIMEOUT.name):.0f}", "yellow")
    return Group(table, line)
