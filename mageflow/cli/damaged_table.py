"""The table of ``mageflow damaged``."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mageflow.cli.console import data, print_rows
from mageflow.store import DamageNote

__all__ = ["draw"]


def draw(console: Console, notes: Sequence[DamageNote], *, cleared: bool) -> None:
    """Print one row for each note."""
    if not notes:
        console.print("nothing is damaged")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("kind", "key", "found", "reason"):
        table.add_column(name, overflow="fold")
    for each in notes:
        found = each.at.isoformat(timespec="seconds") if each.at else ""
        table.add_row(each.kind, data(each.key), found, data(each.reason))
    print_rows(console, table)
    summary = f"{len(notes)} put aside" + ("; the list is empty now" if cleared else "")
    console.print()
    console.print(Text(summary, "dim"))
