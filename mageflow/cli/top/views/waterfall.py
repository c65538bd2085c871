"""One trace as a waterfall: a bar for each attempt, coloured by where its time went."""

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from mageflow.cli.console import data
from mageflow.cli.top.sources.timeline import PARTS, TraceAttempt, TraceView
from mageflow.cli.top.views.durations import short

__all__ = ["Waterfall", "trace_line"]

_COLOURS = {
    "queue": "grey50",
    "signature_load": "magenta",
    "stagger": "cyan",
    "lock_wait": "yellow",
    "body": "green",
    "callbacks": "blue",
    "retry": "red",
}
_NAMES = {"signature_load": "signature", "lock_wait": "lock", "retry": "between attempts"}
_LABEL = 34
_TIME = 9
_MIN_BAR = 10
_ID_WIDTH = 8
_FAILED = ("failed", "retried", "timed_out", "cancelled")


def trace_line(trace: TraceView, now: float) -> Text:
    """A trace in the list of traces."""
    mark, style = ("▶", "cyan") if trace.is_running else ("✗", "red") if trace.outcome in _FAILED else ("✓", "green")
    return Text.assemble(
        (mark, style),
        data(f" {trace.name} "),
        data(trace.id[:_ID_WIDTH], "dim"),
        f" {short(trace.seconds)}",
        (f", {short(now - trace.began_at)} ago", "dim"),
    )


class Waterfall:
    """Draws one trace in the width that it is given.

    Args:
        trace: The trace.
    """

    def __init__(self, trace: TraceView) -> None:
        self._trace = trace

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The budget, one line for each attempt, and the colours."""
        trace = self._trace
        yield data(f"{trace.name} {trace.id}", "bold")
        yield self._budget()
        yield Text()
        width = max(_MIN_BAR, options.max_width - _LABEL - _TIME - 2)
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(width=_LABEL, no_wrap=True, overflow="ellipsis")
        table.add_column(width=width, no_wrap=True)
        table.add_column(width=_TIME, justify="right", no_wrap=True)
        for line in trace.lines:
            table.add_row(_label(line), self._bar(line, width), short(line.attempt.elapsed_s))
        yield table

    def _budget(self) -> Text:
        text = Text(f"{short(self._trace.seconds)} in all; of the attempts: ")
        parts = [(part, self._trace.budget[part]) for part in PARTS if self._trace.budget[part] > 0]
        for number, (part, seconds) in enumerate(parts):
            text.append(", " if number else "")
            text.append("█ ", _COLOURS[part])
            text.append(f"{_NAMES.get(part, part)} {short(seconds)}")
        return text

    def _bar(self, line: TraceAttempt, width: int) -> Text:
        """Each cell has the colour of the part that takes most of it."""
        scale = width / max(self._trace.seconds, 1e-9)
        shares: list[dict[str, float]] = [{} for _ in range(width)]
        for segment in line.segments:
            begin, end = segment.begin * scale, (segment.begin + segment.seconds) * scale
            for cell in range(max(0, int(begin)), min(width, int(end) + 1)):
                covered = min(end, cell + 1.0) - max(begin, float(cell))
                if covered > 0:
                    shares[cell][segment.part] = shares[cell].get(segment.part, 0.0) + covered
        bar = Text()
        for share in shares:
            part = max(share, key=lambda each: share[each], default="")
            bar.append("█" if part else "·", _COLOURS.get(part, "grey23"))
        return bar


def _label(line: TraceAttempt) -> Text:
    attempt = line.attempt
    text = Text.assemble(data(attempt.task, "bold" if attempt.phase else ""))
    if attempt.max_attempts > 1:
        text.append(f" {attempt.attempt}/{attempt.max_attempts}", "dim")
    if attempt.phase:
        text.append_text(data(f" {attempt.phase}", "cyan"))
    elif attempt.outcome != "succeeded":
        text.append_text(data(f" {attempt.exception or attempt.outcome}", "red"))
    return text
