r"""The help of a command in a narrow terminal: no word is cut.

Click keeps a paragraph after ``\b`` as it is, so its lines are longer than a narrow terminal, and it cuts words that do
not fit beside the names of the options.
"""

import re
import shutil
import textwrap
from collections.abc import Iterable
from typing import Final

import click

__all__ = ["NarrowContext"]

_WIDE: Final = 76
"""Columns for text at 80: click takes two, and the indentation of a section takes two."""
_AS_WRITTEN: Final = "\b"
_COLUMNS: Final = re.compile(" {2,}")
"""Spaces that align a second column: there is none in a narrow terminal."""


class _Formatter(click.HelpFormatter):
    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        # Click takes no terminal to be narrower than 50 columns.
        columns = shutil.get_terminal_size().columns if width is None else width + 2
        super().__init__(indent_increment, max(min(columns, max_width or 80) - 2, 30), max_width)

    def write_text(self, text: str) -> None:
        room = self.width - self.current_indent
        if room < _WIDE:
            text = "\n\n".join(_narrowed(paragraph, room) for paragraph in text.split("\n\n"))
        super().write_text(text)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        if self.width - self.current_indent >= _WIDE:
            super().write_dl(rows, col_max, col_spacing)
            return
        for name, text in rows:
            for paragraph, indent in ((name, ""), (text, "    ")):
                for line in _folded(paragraph, self.width - self.current_indent - len(indent)):
                    self.write(f"{'':{self.current_indent}}{indent}{line}\n")


class NarrowContext(click.Context):
    """A context whose help fits 40 columns."""

    formatter_class = _Formatter


def _narrowed(paragraph: str, room: int) -> str:
    first, *lines = paragraph.split("\n")
    if first != _AS_WRITTEN:
        return "\n".join(["\b", *_folded(" ".join(paragraph.split()), room)])
    narrow = [_AS_WRITTEN]
    for line in lines:
        indent = " " * min(len(line) - len(line.lstrip()), 4)  # more aligns it with a second column
        text = line.strip()
        if len(text) > room - len(indent) - 2:
            text = _COLUMNS.sub("  ", text)
        folded = _folded(text, room - len(indent) - 2) or [""]
        narrow += [f"{indent}{'' if number == 0 else '  '}{each}" for number, each in enumerate(folded)]
    return "\n".join(narrow)


def _folded(text: str, room: int) -> list[str]:
    return textwrap.wrap(text, max(room, 10), break_long_words=False, break_on_hyphens=False)
