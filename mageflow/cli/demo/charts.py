"""Charts for a terminal: the delays of the staggered runs, and one trace as a waterfall. Both are drawn to scale."""

from collections.abc import Sequence

from rich.text import Text

from mageflow.cli.demo.shop.spans import SpanRecord
from mageflow.cli.demo.summary import StaggeredRun
from mageflow.terminal import printable

__all__ = ["draw_stagger", "draw_waterfall", "duration"]

_MIN_WIDTH = 20
_LABEL_WIDTH = 34
_BINS = 10
_SPARKS = " ▁▂▃▄▅▆▇█"
_KIND_STYLES = {"producer": "blue", "consumer": "cyan"}


def duration(seconds: float | None, *, digits: int = 0) -> str:
    """A duration in seconds or milliseconds, or ``-`` for None. ``digits`` is the least precision in milliseconds."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{max(digits, int(seconds < 0.01))}f} ms"  # noqa: PLR2004 - tenths below ten


def draw_stagger(runs: Sequence[StaggeredRun], *, window_seconds: float, timeout_seconds: float, width: int) -> Text:
    """The delay and the body of each run on one time axis, and the distribution of the delays.

    Args:
        runs: One line for each, in this order.
        window_seconds: The longest allowed delay.
        timeout_seconds: The task's execution timeout. It is marked on the axis.
        width: Characters for the axis; at least 20.
    """
    end = max([window_seconds, *(run.delay_seconds + run.body_seconds for run in runs)])
    width = max(_MIN_WIDTH, width)

    def column(seconds: float) -> int:
        return min(width - 1, round(seconds / end * (width - 1)))

    chart = Text(no_wrap=True)
    for run in runs:
        start, stop = column(run.delay_seconds), column(run.delay_seconds + run.body_seconds)
        line = Text("·" * start, "cyan")
        line.append("█" * (stop - start + 1), "green" if run.outcome == "succeeded" else "red")
        line.append(" " * (width - len(line)))
        mark = column(timeout_seconds)
        if line.plain[mark] in " ·":
            line = Text.assemble(line[:mark], ("╎", "yellow"), line[mark + 1 :])
        chart.append_text(line).append(f"  {run.delay_seconds:5.2f} s\n", "cyan")
    labels = {
        0: "0",
        column(timeout_seconds): f"timeout {timeout_seconds:g} s",
        column(window_seconds): f"window {window_seconds:g} s",
    }
    chart.append_text(_axis(labels, width))
    return chart.append_text(_distribution(runs, window_seconds, max(_BINS, column(window_seconds) + 1)))


def _axis(labels: dict[int, str], width: int) -> Text:
    """A line with a mark for each label, and a line with the labels. Keys are columns."""
    marks = dict(zip(labels, "└╎┴", strict=False))
    line = "".join(marks.get(column, "─") for column in range(width))
    names = [" "] * (width + 12)
    for column, label in labels.items():
        start = min(column, len(names) - len(label))
        names[start : start + len(label)] = label
    return Text(f"{line}\n{''.join(names).rstrip()}\n", "dim", no_wrap=True)


def _distribution(runs: Sequence[StaggeredRun], window: float, width: int) -> Text:
    counts = [0] * _BINS
    for run in runs:
        counts[min(_BINS - 1, int(run.delay_seconds / window * _BINS))] += 1
    most = max(counts) or 1
    mean = sum(run.delay_seconds for run in runs) / len(runs) if runs else 0.0
    bars = "".join(_SPARKS[round(count / most * (len(_SPARKS) - 1))] * (width // _BINS) for count in counts)
    text = Text(bars, "magenta", no_wrap=True)
    text.append(f"\nmean {mean:.2f} s, expected {window / 2:.2f} s; per tenth of the window: ", "dim")
    return text.append(" ".join(map(str, counts)), "dim")


def draw_waterfall(spans: Sequence[SpanRecord], width: int) -> Text:
    """One trace: each span as a bar, children below their parents.

    Args:
        spans: All spans of one trace.
        width: Characters for the bars; at least 20.
    """
    chart = Text(no_wrap=True)
    if not spans:
        return chart
    start = min(span.start for span in spans)
    total = max(max(span.end for span in spans) - start, 1e-9)
    width = max(_MIN_WIDTH, width)

    def column(time: float) -> int:
        return min(width - 1, int((time - start) / total * width))

    for depth, span in _depth_first(spans):
        first = column(span.start)
        last = max(first + 1, min(width, round((span.end - start) / total * width)))
        style = "red" if span.status == "error" else _KIND_STYLES.get(span.kind, "green")
        chart.append(_label(depth, span.name) + " " * first)
        chart.append("━" * (last - first), style).append(" " * (width - last))
        chart.append(f"  {duration(span.seconds, digits=1):>8}  {printable(span.service)}\n", "dim")
        for name, at in span.events:
            chart.append(_label(depth + 1, f"• {name}"), "dim").append(" " * column(at) + "◆\n", "yellow")
    chart.rstrip()
    return chart


def _label(depth: int, name: str) -> str:
    return f"{'  ' * depth}{printable(name)}"[:_LABEL_WIDTH].ljust(_LABEL_WIDTH + 1)


def _depth_first(spans: Sequence[SpanRecord]) -> list[tuple[int, SpanRecord]]:
    """Each span with its depth, children in the order they started. A span without its parent here is a root."""
    known = {span.span_id for span in spans}
    children: dict[str, list[SpanRecord]] = {}
    for span in sorted(spans, key=lambda each: each.start):
        children.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)

    def walk(parent: str, depth: int) -> list[tuple[int, SpanRecord]]:
        return [found for span in children.get(parent, ()) for found in [(depth, span), *walk(span.span_id, depth + 1)]]

    return walk("", 0)
