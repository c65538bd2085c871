"""Attempts that failed lately."""

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mageflow.cli.console import data
from mageflow.cli.top.sources.snapshot import Snapshot
from mageflow.cli.top.views.durations import short

__all__ = ["errors_table"]

_ID_WIDTH = 8
_SHOWN = 100
_UNSUCCESSFUL = ("failed", "retried", "timed_out")


def errors_table(snapshot: Snapshot) -> RenderableType:
    """The latest attempts that failed, were retried or timed out; the latest first."""
    failed = [each for each in snapshot.attempts if each.outcome in _UNSUCCESSFUL]
    if not failed:
        return Text("no attempt has failed lately on this host", "dim")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    for name in ("ago", "task", "run", "attempt", "outcome", "after"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("ago", "attempt", "after") else "left")
    table.add_column("error", overflow="ellipsis", no_wrap=True, ratio=1)
    for each in sorted(failed, key=lambda attempt: -attempt.ended_at)[:_SHOWN]:
        is_final = not each.will_retry
        table.add_row(
            short(snapshot.at - each.ended_at),
            data(each.task),
            data(each.run_id[:_ID_WIDTH], "dim"),
            f"{each.attempt}/{each.max_attempts}",
            data(each.outcome, "bold red" if is_final else "yellow"),
            short(each.elapsed_s),
            data(": ".join(part for part in (each.exception, each.message) if part)),
        )
    return table
