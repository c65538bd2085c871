"""The console of all commands: it prints data as text, never as markup or control characters."""

import os
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mageflow.terminal import printable

__all__ = ["TABLE_WIDTH", "DataConsole", "data", "print_folded", "print_rows", "span"]

TABLE_WIDTH: Final = 80
"""Columns below which a row that is no table has a line for each value."""
_LABEL_WIDTH: Final = 10
_FOLDED_WIDTH: Final = 24
_NO_LIMIT: Final = 1_000_000


class DataConsole(Console):
    """A `rich.console.Console` that never reads a string as markup and never passes on a control character.

    Strings are not highlighted and emoji codes are not replaced. Use `rich.text.Text` for style and `data` for values.

    Args:
        stderr: Print to standard error.
        width: Columns if the output is no terminal and COLUMNS is not set. None is the default of rich, 80.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        self.is_pipe = width is not None and not self.is_terminal and "COLUMNS" not in os.environ
        """Whether the output has no width of its own."""
        if width is not None and self.is_pipe:
            self.width = width

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does. A control character that is still in the text becomes a visible escape."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n"), segment.style)


def data(value: object, style: str = "") -> Text:
    """A value from Redis, Hatchet or a log as one line of text. Control characters become visible escapes."""
    return Text(printable(str(value)), style)


def span(seconds: float) -> str:
    """A length of time, such as ``4.2 s``, ``3 min 5 s`` or ``2 h 7 min``. A negative one is 0."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def print_rows(console: Console, table: Table) -> None:
    """Print a table, if the console is wide enough for it. Else each row is a block of lines.

    Words are not cut, so that an id can be copied. In a table only cells longer than 24 columns are folded, between
    words. A block has its headings before its values; in a console narrower than 80 columns each pair has a line, and
    what is longer than the console is one line, which a terminal wraps and a copy has whole. A pipe has no width: there
    a table is as wide as it needs.
    """
    widths = _widths(console, table)
    if widths is not None:
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        console.print(table)
        return
    headings = [str(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        texts = [cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells]
        pairs = [(heading, text) for heading, text in zip(headings, texts, strict=True) if text.plain.strip()]
        if console.width >= TABLE_WIDTH:
            _print_packed(console, pairs)
            continue
        for heading, text in pairs:
            print_folded(console, heading, text.plain)
        console.print()


def _widths(console: Console, table: Table) -> list[int] | None:
    """Widths of the columns with which no word is cut, or None if the console is too narrow for that."""
    natural: list[int] = []
    least: list[int] = []
    for column in table.columns:
        cells = "\n".join(
            cell.plain if isinstance(cell, Text) else str(cell) for cell in (column.header, *column.cells)
        )
        longest = max(map(cell_len, cells.split("\n")))
        natural.append(longest)
        words = max(map(cell_len, cells.split()), default=0)
        least.append(min(longest, max(words, _FOLDED_WIDTH)))
    edges = console.measure(table, options=console.options.update(max_width=_NO_LIMIT)).maximum - sum(natural)
    if isinstance(console, DataConsole) and console.is_pipe:
        console.width = max(console.width, sum(natural) + edges)
    spare = console.width - edges - sum(least)
    if spare < 0:
        return None
    widths: list[int] = []
    for wanted, needed in zip(natural, least, strict=True):
        more = min(wanted - needed, spare)
        widths.append(needed + more)
        spare -= more
    return widths


def _print_packed(console: Console, pairs: Sequence[tuple[str, Text]]) -> None:
    """Print a row as lines of headings and values, its first value as their head. A pair is not divided if it fits."""
    line = Text.assemble((pairs[0][1].plain, "bold"))
    for heading, text in pairs[1:]:
        first, *further = text.split("\n")
        pair = Text("  ").join([Text.assemble((heading, "dim"), " ", first), *further])
        if line.cell_len + 2 + pair.cell_len > console.width:
            console.print(line, soft_wrap=True)
            line = Text()
        line = Text.assemble(line, "  ", pair)
    console.print(line, soft_wrap=True)


def print_folded(console: Console, name: str, text: str) -> None:
    """Print a name and a value in a narrow console, without cutting a word."""
    label = f"{name[:_LABEL_WIDTH]:<{_LABEL_WIDTH}}"
    room = max(_LABEL_WIDTH, console.width - _LABEL_WIDTH - 1)
    lines = [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(part.strip(), room, break_long_words=False, break_on_hyphens=False)
    ]
    for number, line in enumerate(lines):
        head = label if number == 0 else " " * len(label)
        if len(line) > room:
            console.print(Text(head.rstrip(), "dim"), soft_wrap=True)
            console.print(Text(line), soft_wrap=True)
        else:
            console.print(Text.assemble((head, "dim"), " ", line), soft_wrap=True)
