"""Writes the tables of ``docs/telemetry.md``: metrics, buckets, spans, log events, wraps and events.

Run ``python docs/telemetry_tables.py`` after a change of `mageflow.telemetry.names` or `mageflow.interceptors`. A test
compares the page with what this program writes.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import mageflow.interceptors
from mageflow.interceptors import Event, Interceptor
from mageflow.telemetry.names import EVENTS, METRICS, SPANS, Metric, metrics

PAGE: Final = Path(__file__).with_name("telemetry.md")
_BLOCK: Final = re.compile(r"(<!-- table: (?P<name>\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


def _bucket_sets() -> dict[tuple[float, ...], str]:
    return {
        value: name
        for name, value in vars(metrics).items()
        if name.isupper() and isinstance(value, tuple) and value and all(isinstance(each, float) for each in value)
    }


def _labels(metric: Metric) -> str:
    shown = [
        f"`{label}` ({', '.join(metric.closed[label])})" if label in metric.closed else f"`{label}`"
        for label in metric.labels
    ]
    return ", ".join(shown)


def _metrics_table() -> str:
    buckets = _bucket_sets()
    return _table(
        ("Metric", "Type", "Labels", "Meaning"),
        (
            (
                f"`{metric.name}`{' †' if metric.exemplars else ''}{' ‡' if metric.view == 'cluster' else ''}",
                f"histogram, {buckets[metric.buckets]}" if metric.buckets else metric.kind,
                _labels(metric),
                metric.help,
            )
            for metric in METRICS
        ),
    )


def _buckets_table() -> str:
    return _table(
        ("Set", "Upper bounds"),
        ((name, _bounds(bounds)) for bounds, name in _bucket_sets().items()),
    )


def _bounds(bounds: tuple[float, ...]) -> str:
    if bounds == metrics.grid(bounds[0], bounds[-1]):
        return f"{bounds[0]:g} to {bounds[-1]:g}, {len(bounds)} bounds of the grid"
    return ", ".join(f"{bound:g}" for bound in bounds)


def _spans_table() -> str:
    return _table(("Span", "Kind", "Covers"), ((f"`{each.template}`", each.kind, each.help) for each in SPANS))


def _events_table() -> str:
    return _table(
        ("Event", "Level", "Written when", "Fields"),
        ((f"`{each.name}`", each.level, each.help, ", ".join(each.fields)) for each in EVENTS),
    )


def _first_line(of: object) -> str:
    return (inspect.getdoc(of) or "").partition("\n")[0].replace("``", "`")


def _wraps_table() -> str:
    methods = {name: each for name, each in vars(Interceptor).items() if not name.startswith("_") and name != "event"}
    return _table(
        ("Method", "Call", "What it does"),
        (
            (f"`{name}`", f"`{next(iter(inspect.get_annotations(each).values())).__name__}`", _first_line(each))
            for name, each in methods.items()
        ),
    )


def _happenings() -> Iterator[type[Event]]:
    exported = (getattr(mageflow.interceptors, name) for name in mageflow.interceptors.__all__)
    return (each for each in exported if isinstance(each, type) and issubclass(each, Event) and each is not Event)


def _happenings_table() -> str:
    return _table(("Event", "Published when"), ((f"`{each.__name__}`", _first_line(each)) for each in _happenings()))


TABLES: Final[dict[str, Callable[[], str]]] = {
    "metrics": _metrics_table,
    "buckets": _buckets_table,
    "spans": _spans_table,
    "log_events": _events_table,
    "wraps": _wraps_table,
    "events": _happenings_table,
}


def page_with_tables(text: str) -> str:
    """The page with every table between its markers replaced by the current one."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block['name']]()}\n{block[3]}", text)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
