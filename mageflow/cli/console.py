"""The console of all commands: it prints data as text, never as markup or control characters."""

import os
import textwrap
from collections.abc import Iterable
from typing import Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mageflow.terminal import printable

__all__ = ["TABLE_WIDTH", "DataConsole", "data", "print_folded", "print_rows", "span"]

TABLE_WIDTH: Final = 80
"""Columns below which a table becomes blocks of lines."""
_LABEL_WIDTH: Final = 10


class DataConsole(Console):
    """A `rich.console.Console` that never reads a string as markup and never passes on a control character.

    Strings are not highlighted and emoji codes are not replaced. Use `rich.text.Text` for style and `data` for values.

    Args:
        stderr: Print to standard error.
        width: Columns if the output is no terminal and COLUMNS is not set. None is the default of rich, 80.
    """

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        if width is not None and not self.is_terminal and "COLUMNS" not in os.environ:
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
    """Print a table; in a console that is narrower than 80 columns each row as a block of lines.

    A line of a block is a heading and a value. Words are not cut: what is longer than the console is one line, which a
    terminal wraps and a copy has whole.
    """
    if console.width >= TABLE_WIDTH:
        console.print(table)
        return
    headings = [str(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for heading, cell in zip(headings, cells, strict=True):
            text = cell.plain if isinstance(cell, Text) else str(cell)
            if text.strip():
                print_folded(console, heading, text)
        console.print()


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
