"""Pictures for a terminal: the crowd's delays against their window, and one run as a trace waterfall.

Both draw what they are given to scale; neither rounds anything away but to a character's width.
"""

from collections.abc import Sequence

from rich.text import Text

from mageflow.cli.demo.facts import StaggeredRun
from mageflow.cli.demo.spans import SpanRecord

__all__ = ["draw_stagger", "draw_waterfall"]

_LABEL_WIDTH = 34
_SPARKS = " ▁▂▃▄▅▆▇█"


def draw_stagger(runs: Sequence[StaggeredRun], *, window_seconds: float, timeout_seconds: float, width: int) -> Text:
    """The delay and the body of each run on one time axis, shortest delay first, and how the delays are spread.

    Args:
        runs: What is drawn, one line each.
        window_seconds: The longest delay that was allowed.
        timeout_seconds: The task's own execution timeout, marked on the axis.
        width: Characters for the axis.
    """
    end = max([window_seconds, *(run.delay_seconds + run.body_seconds for run in runs)])
    width = max(20, width)

    def column(seconds: float) -> int:
        return min(width - 1, round(seconds / end * (width - 1)))

    picture = Text(no_wrap=True)
    for run in runs:
        line = [" "] * width
        styles = [""] * width
        for index in range(column(run.delay_seconds)):
            line[index], styles[index] = "·", "cyan"
        for index in range(column(run.delay_seconds), column(run.delay_seconds + run.body_seconds) + 1):
            line[index], styles[index] = "█", "green" if run.outcome == "succeeded" else "red"
        mark = column(timeout_seconds)
        if line[mark] in " ·":
            line[mark], styles[mark] = "╎", "yellow"
        for character, style in zip(line, styles, strict=True):
            picture.append(character, style)
        picture.append(f"  {run.delay_seconds:5.2f} s\n", "cyan")
    picture.append_text(_axis(end, window_seconds, timeout_seconds, width))
    picture.append_text(_spread(runs, window_seconds, width, column(window_seconds) + 1))
    return picture


def _axis(end: float, window: float, timeout: float, width: int) -> Text:
    def column(seconds: float) -> int:
        return min(width - 1, round(seconds / end * (width - 1)))

    line = ["─"] * width
    line[0], line[column(window)], line[column(timeout)] = "└", "┴", "╎"
    names = [" "] * (width + 12)
    for at, name in ((0, "0"), (column(timeout), f"timeout {timeout:g} s"), (column(window), f"window {window:g} s")):
        start = min(at, len(names) - len(name))
        names[start : start + len(name)] = name
    return Text("".join(line) + "\n" + "".join(names).rstrip() + "\n", "dim", no_wrap=True)


def _spread(runs: Sequence[StaggeredRun], window: float, width: int, window_columns: int) -> Text:
    bins = 10
    counts = [0] * bins
    for run in runs:
        counts[min(bins - 1, int(run.delay_seconds / window * bins))] += 1
    most = max(counts, default=0) or 1
    mean = sum(run.delay_seconds for run in runs) / len(runs) if runs else 0.0
    each = max(1, min(width, window_columns) // bins)
    sparks = "".join(_SPARKS[round(count / most * (len(_SPARKS) - 1))] * each for count in counts)
    text = Text(sparks, "magenta", no_wrap=True)
    text.append(f"\nmean {mean:.2f} s of {window / 2:.2f} s expected; per tenth of the window: ", "dim")
    text.append(" ".join(str(count) for count in counts), "dim")
    return text


def draw_waterfall(spans: Sequence[SpanRecord], width: int) -> Text:
    """One trace: each span as a bar at its time, children under their parents.

    Args:
        spans: All spans of one trace.
        width: Characters for the bars.
    """
    picture = Text(no_wrap=True)
    if not spans:
        return picture
    start = min(span.start for span in spans)
    total = max(max(span.end for span in spans) - start, 1e-9)
    width = max(20, width)
    for depth, span in _in_order(spans):
        label = f"{'  ' * depth}{span.name}"
        first = min(width - 1, int((span.start - start) / total * width))
        last = max(first + 1, min(width, round((span.end - start) / total * width)))
        color = "red" if span.status == "error" else _COLORS.get(span.kind, "green")
        picture.append(f"{label[:_LABEL_WIDTH]:<{_LABEL_WIDTH}} ")
        picture.append(" " * first)
        picture.append("━" * (last - first), color)
        picture.append(" " * (width - last))
        picture.append(f"  {_duration(span.seconds):>8}", "dim")
        picture.append(f"  {span.service}\n", "dim")
        for name, at in span.events:
            where = min(width - 1, int((at - start) / total * width))
            picture.append(f"{'  ' * (depth + 1)}• {name}"[:_LABEL_WIDTH].ljust(_LABEL_WIDTH + 1), "dim")
            picture.append(" " * where + "◆\n", "yellow")
    picture.rstrip()
    return picture


_COLORS = {"producer": "blue", "consumer": "cyan"}


def _in_order(spans: Sequence[SpanRecord]) -> list[tuple[int, SpanRecord]]:
    """Depth first, children by start; a span whose parent is not among them is a root."""
    known = {span.span_id for span in spans}
    children: dict[str, list[SpanRecord]] = {}
    for span in sorted(spans, key=lambda each: each.start):
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)

    def walk(parent: str, depth: int) -> list[tuple[int, SpanRecord]]:
        return [found for span in children.get(parent, ()) for found in [(depth, span), *walk(span.span_id, depth + 1)]]

    return walk("", 0)


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.1f} ms"
