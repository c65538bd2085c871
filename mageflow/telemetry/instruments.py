"""Instruments: the counters and histograms of `names.metrics` on a registry, created once per registry.

Two clients with one registry share its instruments. Series are cached by label values, so recording takes one dict
lookup and one lock inside ``prometheus_client``. No metric is created before something is recorded: the SDK's listener
process imports the same program and must not expose the same metrics with value 0.

Owns the folding of label values and the limit for the number of series. Gauges are computed at scrape time, in
`mageflow.telemetry.gauges`.
"""

import os
import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any, Final, Protocol

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from mageflow.telemetry.gauges import ScrapeCollector
from mageflow.telemetry.names import events
from mageflow.telemetry.names import metrics as names
from mageflow.telemetry.names.metrics import METRICS, OTHER, Metric
from mageflow.telemetry.records import write_raw

__all__ = ["Instruments", "find_instruments", "instruments_for", "label_text"]


def label_text(metric: Metric, values: tuple[str, ...]) -> str:
    """The labels as in the exposition, without braces."""
    escaped = (value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for value in values)
    return ",".join(f'{label}="{value}"' for label, value in zip(metric.labels, escaped, strict=True))


def series_of(metric: Metric) -> int:
    """How many series one set of label values has."""
    return len(metric.buckets) + 3 if metric.kind == "histogram" else 1


class _Child(Protocol):
    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None: ...

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None: ...


class _Refused:
    """Instead of a series above the limit."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Record nothing."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Record nothing."""


class _Merged:
    """Instead of a histogram above the limit: counts into the one that many tasks share, and that this happened."""

    def __init__(self, shared: _Child, lost: Callable[[], None]) -> None:
        self._shared = shared
        self._lost = lost

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Histograms only: never called."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Observe in the shared histogram."""
        self._shared.observe(amount, exemplar)
        self._lost()


class _Counting:
    """Adds to a counter of ``prometheus_client`` without its checks: no amount of ours is negative."""

    __slots__ = ("_add",)

    def __init__(self, child: Any) -> None:
        self._add: Callable[[float], None] = child._value.inc

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Add to the counter. No counter carries exemplars."""
        self._add(amount)

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Counters only: never called."""


class _Bisecting:
    """Records into a histogram of ``prometheus_client`` without its search from the first bucket on.

    That takes a microsecond or two with sixty buckets, and the check of an exemplar, whose labels are always ours,
    another one. An attempt observes three times.
    """

    __slots__ = ("_bounds", "_buckets", "_sum")

    def __init__(self, child: Any) -> None:
        self._bounds: list[float] = child._upper_bounds
        self._buckets: list[Any] = child._buckets
        self._sum: Any = child._sum

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Histograms only: never called."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count into the first bucket whose bound is not below the value."""
        self._sum.inc(amount)
        bucket = self._buckets[bisect_left(self._bounds, amount)]
        bucket.inc(1)
        if exemplar:
            bucket.set_exemplar(Exemplar(exemplar, amount, time.time()))


_FAMILIES: Final[Mapping[str, Callable[[str, str], Family]]] = {
    "counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily,
}  # fmt: skip
_REFUSED: Final = _Refused()
_SHARE_OF_GAUGES: Final = 0.1
"""Counters and histograms leave this share of the limit free, so that slots and attempts are always shown."""
_SHARE_OF_COUNTERS: Final = 0.2
"""Histograms leave this share free beside it: detail goes before counts do."""
_TASK_LABELS: Final = frozenset({"task", "victim_task", "waiter_task", "holder_task"})
_STAGGER_ONLY: Final = frozenset({names.STAGGERS, names.TIMEOUT_EXTENSIONS})
_ESSENTIAL: Final = frozenset({names.TASK_RUNS, names.TELEMETRY_ERRORS, names.TELEMETRY_DROPPED_LABELS})
"""Counters that no limit refuses: a task that runs is always seen to run. There are few series of them."""


class Instruments(Collector):
    """Every counter and histogram of one registry, and its gauges: one collector for all of them.

    Thread safe. May raise what ``prometheus_client`` raises; callers use a `mageflow.telemetry.guards.Guard`.
    """

    def __init__(self, registry: CollectorRegistry, *, max_series: int) -> None:
        self._lock = threading.RLock()
        self._families: dict[Metric, Any] = {}
        self._by_metric: dict[Metric, list[tuple[str, Any]]] = {}
        self._children: dict[tuple[object, ...], _Child] = {}
        self._seen: dict[str, set[str]] = {}
        self._folded: set[str] = set()
        self._zeroed: set[tuple[str, str]] = set()
        self._tasks: set[str] = {OTHER, names.EVENT_TASK}
        self._locks: set[str] = {OTHER}
        self.max_series = max_series
        self.series = 0
        """How many samples the instruments expose, without gauges."""
        if "PROMETHEUS_DISABLE_CREATED_SERIES" not in os.environ:
            prometheus_client.disable_created_metrics()
        self.gauges = ScrapeCollector(
            room=lambda: max(0, self.max_series - self.series),
            left_out=lambda count: self._dropped(names.SERIES, count),
        )
        registry.register(self)

    # -- reading -------------------------------------------------------------------------------------------------

    def describe(self) -> Iterable[Family]:
        """Reserve all names in the registry."""
        return [_FAMILIES[metric.kind](metric.name, metric.help) for metric in METRICS]

    def collect(self) -> Iterator[Family]:
        """Read everything, as any exporter of ``prometheus_client`` does."""
        # Gauges first: they count what they have no room for.
        yield from self.gauges.collect()
        for family in list(self._families.values()):
            yield from family.collect()

    def by_metric(self) -> Iterator[tuple[Metric, list[tuple[str, Any]]]]:
        """The counters and histograms, with their labels as text and their object of ``prometheus_client``."""
        with self._lock:
            found = [(metric, list(series)) for metric, series in self._by_metric.items()]
        yield from found

    # -- recording -----------------------------------------------------------------------------------------------

    def inc(self, metric: Metric, *values: str, by: float = 1.0) -> None:
        """Add to a counter."""
        child = self._children.get((metric, *values))
        (child or self._make(metric, values)).inc(by)

    def observe(self, metric: Metric, value: float, *values: str, exemplar: dict[str, str] | None = None) -> None:
        """Observe a value in a histogram. The exemplar is used if the metric carries exemplars."""
        child = self._children.get((metric, *values))
        (child or self._make(metric, values)).observe(value, exemplar if metric.exemplars else None)

    # -- declaration ---------------------------------------------------------------------------------------------

    def allow_task(self, name: str) -> None:
        """Accept a task's name as a label value."""
        self._tasks.add(name)

    def allow_lock(self, name: str) -> None:
        """Accept a lock's name as a label value, and create its series, with 0."""
        self._locks.add(name)
        if ("lock", name) not in self._zeroed:
            self._zeroed.add(("lock", name))
            self._zero({"lock": name}, METRICS)

    def zero_producer(self, workflow: str) -> None:
        """Create the series of a program that sends this workflow or stand-alone task, with 0."""
        if ("enqueue", workflow) not in self._zeroed:
            self._zeroed.add(("enqueue", workflow))
            for result in names.OK_ERROR:
                self.inc(names.TASKS_ENQUEUED, workflow, "direct", result, by=0.0)
            for reason in names.UNSERVED_REASONS:
                self.inc(names.TASKS_UNSERVED, workflow, reason, by=0.0)
            self._zero_once()

    def zero_flow(self, flow: str, flow_name: str) -> None:
        """Create the series of flows with this name, with 0, unless the label has reached its limit of names."""
        if (names.FLOWS_FINISHED, flow, flow_name, names.FLOW_OUTCOMES[0]) in self._children:
            return
        seen = self._seen.get("flow_name", ())
        if flow_name in seen or len(seen) < names.LABEL_LIMITS["flow_name"]:
            self.inc(names.FLOWS_STARTED, flow, flow_name, by=0.0)
            for outcome in names.FLOW_OUTCOMES:
                self.inc(names.FLOWS_FINISHED, flow, flow_name, outcome, by=0.0)

    def _zero_once(self) -> None:
        if ("", "") not in self._zeroed:
            self._zeroed.add(("", ""))
            self._zero({}, (names.TELEMETRY_ERRORS,))
            for result in names.OK_ERROR:
                self.inc(names.TASKS_ENQUEUED, names.EVENT_TASK, "event", result, by=0.0)
            for label in names.FOLDED_LABELS:
                self.inc(names.TELEMETRY_DROPPED_LABELS, label, by=0.0)

    def zero_worker(self, task: str, *, is_staggered: bool) -> None:
        """Create the counters of attempts of this task, with 0.

        Histograms and rare counters are created when something happens: a worker has many tasks, and few of them do
        everything.
        """
        if ("attempt", task) in self._zeroed:
            return
        self._zeroed.add(("attempt", task))
        unused = {names.TASKS_ENQUEUED, names.TASKS_UNSERVED, *(() if is_staggered else _STAGGER_ONLY)}
        self._zero({"task": task}, (m for m in METRICS if m not in unused))
        self._zero({}, METRICS)
        self._zero_once()

    def _zero(self, fixed: Mapping[str, str], metrics: Iterable[Metric]) -> None:
        for metric in metrics:
            is_wanted = metric.kind == "counter"
            if is_wanted and {label for label in metric.labels if label not in metric.closed} == set(fixed):
                choices = [metric.closed.get(label) or (fixed[label],) for label in metric.labels]
                for values in product(*choices):
                    if (metric, *values) not in self._children:
                        self._make(metric, values)

    # -- series --------------------------------------------------------------------------------------------------

    def fold(self, metric: Metric, values: tuple[str, ...]) -> tuple[str, ...]:
        """The label values, with ``__other__`` for those that are not accepted."""
        return tuple(self._accepted(metric, label, value) for label, value in zip(metric.labels, values, strict=True))

    def _accepted(self, metric: Metric, label: str, value: str) -> str:
        if (known := metric.closed.get(label)) is not None:
            is_accepted = value in known
        elif label in _TASK_LABELS:
            is_accepted = value in self._tasks
        elif label == "lock":
            is_accepted = value in self._locks
        else:
            seen = self._seen.setdefault(label, set())
            is_accepted = value in seen or len(seen) < names.LABEL_LIMITS.get(label, 50)
            if is_accepted:
                seen.add(value)
        if is_accepted or value == OTHER:
            return value
        self._dropped(label)
        return OTHER

    def _dropped(self, label: str, count: int = 1) -> None:
        if label != "label":
            self.inc(names.TELEMETRY_DROPPED_LABELS, label, by=count)
        if label not in self._folded:
            self._folded.add(label)
            write_raw(events.TELEMETRY_LABEL_FOLDED, label=label)

    def _make(self, metric: Metric, values: tuple[str, ...]) -> _Child:
        with self._lock:
            folded = self.fold(metric, values)
            child = self._children.get((metric, *folded))
            if child is None:
                child = self._create(metric, folded)
            if folded == values and child is not _REFUSED:
                self._children[metric, *values] = child
            return child

    def _create(self, metric: Metric, values: tuple[str, ...]) -> _Child:
        size = series_of(metric)
        room = self.max_series * (1.0 - _SHARE_OF_GAUGES) - self.series
        if metric.kind == "histogram" and size > room - self.max_series * _SHARE_OF_COUNTERS:
            # The histogram of all tasks, locks or flows that have no room is still exact, and so is a sum over all.
            shared = tuple(
                v if label in metric.closed else OTHER for label, v in zip(metric.labels, values, strict=True)
            )
            if shared != values:
                return _Merged(self._make(metric, shared), lambda: self._dropped(names.SERIES))
        if size > room and metric not in _ESSENTIAL:
            self._dropped(names.SERIES)
            return _REFUSED
        family = self._families.get(metric)
        if family is None:
            family = self._families[metric] = _family(metric)
        self.series += size
        child = family.labels(*values) if metric.labels else family
        self._by_metric.setdefault(metric, []).append((label_text(metric, values), child))
        return _Bisecting(child) if metric.kind == "histogram" else _Counting(child)


def _family(metric: Metric) -> Counter | Histogram:
    # Without a registry of its own: `Instruments` is the collector of all of them.
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=None)
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.help, metric.labels, registry=None, buckets=metric.buckets)
    raise TypeError(f"{metric.name} is a gauge: it is computed when scraped")


_by_registry: weakref.WeakKeyDictionary[CollectorRegistry, Instruments] = weakref.WeakKeyDictionary()
_by_registry_lock = threading.Lock()


def find_instruments(registry: CollectorRegistry) -> Instruments | None:
    """The instruments of this registry; None if nothing was recorded yet."""
    return _by_registry.get(registry)


def instruments_for(registry: CollectorRegistry, *, max_series: int) -> Instruments:
    """The instruments of this registry, created on the first call.

    By registry and not by client, because a registry accepts every name only once. The largest ``max_series`` of all
    calls applies.
    """
    with _by_registry_lock:
        instruments = _by_registry.get(registry)
        if instruments is None:
            instruments = _by_registry[registry] = Instruments(registry, max_series=max_series)
        instruments.max_series = max(instruments.max_series, max_series)
        return instruments
