"""What is shown while it runs: each task's progress, where the worker's slots are, and how it ends."""

import asyncio
import time
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mageflow.cli.demo.play import CAST, Play
from mageflow.cli.demo.stage import Stage
from mageflow.telemetry.names import metrics
from mageflow.testing import Samples

__all__ = ["OUTCOME_STYLES", "watch"]

_LOOK_EVERY_SECONDS = 0.5
_TELL_EVERY_SECONDS = 2.0

OUTCOME_STYLES = {
    "succeeded": "green",
    "retried": "yellow",
    "timed_out": "magenta",
    "failed": "red",
    "cancelled": "dim",
    "skipped": "dim",
}
"""How each outcome is coloured, in the order they are listed."""


async def watch(console: Console, stage: Stage, play: Play) -> None:
    """Show how the play goes, from the worker's own metrics, until cancelled.

    In a terminal: a table that lives. Elsewhere: a line every two seconds.
    """
    if console.is_terminal:
        await _watch_live(console, stage, play)
    else:
        await _watch_in_lines(console, stage, play)


async def _watch_live(console: Console, stage: Stage, play: Play) -> None:
    with Live(console=console, auto_refresh=False, transient=True) as live:
        try:
            while True:
                live.update(_view(play, await asyncio.to_thread(stage.scrape)), refresh=True)
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
        finally:
            live.update(Text(""), refresh=True)


async def _watch_in_lines(console: Console, stage: Stage, play: Play) -> None:
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(_TELL_EVERY_SECONDS)
            phases = (await asyncio.to_thread(stage.scrape)).by("phase", metrics.TASKS_IN_FLIGHT.name)
            console.print(
                f"{time.time() - play.started_at:5.1f} s  {play.ended} of {len(play.results)} runs ended; in flight: "
                + (", ".join(f"{count:.0f} {phase}" for phase, count in phases.items() if count) or "nothing"),
                highlight=False,
            )


def _view(play: Play, now: Samples) -> Group:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("task", "", "runs", "attempts, by outcome"):
        table.add_column(heading, header_style="bold")
    for name, part in CAST.items():
        results = play.of(name)
        ended = sum(1 for result in results if result.has_ended)
        outcomes = now.by("outcome", metrics.TASK_RUNS.name, task=name)
        told = Text("  ").join(
            Text(f"{outcomes[outcome]:.0f} {outcome}", style)
            for outcome, style in OUTCOME_STYLES.items()
            if outcomes.get(outcome)
        )
        table.add_row(
            Text(name, "bold"),
            Text(part.what, "dim"),
            ProgressBar(total=max(1, len(results)), completed=ended, width=18),
            told,
        )
    phases = now.by("phase", metrics.TASKS_IN_FLIGHT.name)
    slots = now.total(metrics.WORKER_SLOTS.name, pool="default")
    used = now.total(metrics.WORKER_SLOTS_USED.name, pool="default")
    line = Text(f"\n{time.time() - play.started_at:5.1f} s   slots {used:.0f} of {slots:.0f}   ")
    line.append(f"asleep in a stagger {phases.get('stagger', 0):.0f}   ", "cyan")
    line.append(f"running {phases.get('running', 0):.0f}   ", "green")
    line.append(f"near their timeout {now.total(metrics.TASKS_NEAR_TIMEOUT.name):.0f}", "yellow")
    return Group(table, line)
