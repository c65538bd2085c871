"""The time line of ``mageflow inspect`` as bars, its budget, and what is waited for."""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mageflow.cli.console import TABLE_WIDTH, data, print_folded, span
from mageflow.cli.inspect.timeline import MemberSpan, Timeline, cells_of
from mageflow.cli.inspect.waits import Wait
from mageflow.terminal import printable

__all__ = ["MARKS", "draw_timeline", "draw_waits"]

MARKS: Final[Mapping[str, tuple[str, str]]] = {
    "": (" ", ""),
    "hand-over": (".", "dim"),
    "queue": ("-", "dim"),
    "loading": ("r", "magenta"),
    "stagger": ("~", "cyan"),
    "lock": ("!", "yellow"),
    "body": ("#", "green"),
    "running": (">", "bold cyan"),
    "other": ("_", "red"),
    "flow": ("=", "blue"),
}
"""The mark and the style of each part. ASCII, so that a terminal of every encoding shows it."""
_LABEL: Final = 24
_NARROW_LABEL: Final = 12
_NARROW: Final = 60
_TIME: Final = 11
_SHARE: Final = 0.0005


def draw_waits(console: Console, waits: Sequence[Wait]) -> None:
    """Print one line for each thing that is waited for."""
    for each in waits:
        since = "" if each.seconds is None else f", for {span(each.seconds)}"
        place = f"{each.path}: " if each.path else ""
        if console.width < TABLE_WIDTH:
            print_folded(console, "waits for", printable(f"{place}{each.text}{since}"))
            continue
        console.print(Text.assemble(("waits for ", "bold yellow"), (place, "dim"), data(each.text), (since, "dim")))


def draw_timeline(console: Console, timeline: Timeline) -> None:
    """Print a bar for each span, the meaning of the marks, and the budget."""
    label = _NARROW_LABEL if console.width < _NARROW else _LABEL
    width = max(8, min(80, console.width - label - _TIME - 2))
    console.print(Text.assemble(("time line", "dim"), f"  {span(timeline.seconds)}"))
    for each in timeline.spans:
        line = Text.assemble(_label(each, label), " ")
        for part, cells in cells_of(each, timeline.seconds, width):
            mark, style = MARKS[part]
            line.append(mark * cells, style)
        line.append(" " * max(0, label + 1 + width - line.cell_len))
        line.append(f" {span(each.seconds):>{_TIME}}")
        console.print(line, no_wrap=True, overflow="ellipsis")
    used = {part for each in timeline.spans for part, _ in cells_of(each, timeline.seconds, width)} - {""}
    legend = [Text.assemble(MARKS[part], f" {part}") for part in MARKS if part in used]
    console.print(Text("  ").join(legend))
    console.print(_budget(timeline))


def _label(each: MemberSpan, width: int) -> Text:
    member = each.member
    role = "" if not member.path.callbacks else "on success " if member.role == "success callback" else "on error "
    number = "" if member.path.callbacks else f"{member.path} "
    text = data(f"{number}{role}{member.task or 'flow'}")
    if cell_len(text.plain) > width:
        text.truncate(width, overflow="ellipsis")
    text.append(" " * max(0, width - text.cell_len))
    return text


def _budget(timeline: Timeline) -> Text:
    whole = sum(timeline.budget.values())
    text = Text.assemble(("budget", "dim"), "  ")
    for number, (part, seconds) in enumerate(timeline.budget.items()):
        text.append(", " if number else "")
        share = f" ({seconds / whole:.0%})" if whole and seconds / whole >= _SHARE else ""
        text.append(f"{part} {span(seconds)}{share}", MARKS[part][1])
    return text
