"""The tables of ``mageflow list``."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mageflow.cli.console import data, print_rows, span
from mageflow.store import FoundSignature

__all__ = ["draw"]


def draw(
    console: Console, found: Sequence[FoundSignature], *, matches: int, counts: Mapping[str, Mapping[str, int]]
) -> None:
    """Print one row for each record, and a line of counts for each kind."""
    if found:
        now = datetime.now(UTC)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("kind", "name", "status", "changed", "age", "attempts", "key"):
            table.add_column(name, overflow="fold", justify="right" if name == "attempts" else "left")
        for each in found:
            changed = span((now - each.updated_at).total_seconds())
            age = span((now - each.created_at).total_seconds())
            row = (each.kind, data(each.name), each.status, changed, age, str(each.attempts), data(each.key))
            table.add_row(*row)
        print_rows(console, table)
        console.print()
    if not any(count for by_status in counts.values() for count in by_status.values()):
        console.print("nothing is stored: signatures, chains and swarms are, plain runs are not")
    elif not matches:
        console.print("nothing matches")
    elif matches > len(found):
        console.print(Text(f"{len(found)} of {matches} are shown: --limit shows more", "dim"))
    for kind, by_status in counts.items():
        stored = ", ".join(f"{count} {status}" for status, count in by_status.items() if count)
        if stored:
            console.print(Text(f"stored as {kind}: {stored}", "dim"))
