"""Gauges: computed at scrape time from live state, never set.

A gauge that is set keeps its value after a crash of the code that should have reset it. Here each `GaugeSource` is
read when Prometheus scrapes.
"""

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from mageflow.interceptors import ClusterView, QueueView
from mageflow.telemetry.names import metrics
from mageflow.telemetry.names.metrics import Metric

__all__ = ["ClusterGauges", "GaugeSource", "Sample", "ScrapeCollector"]

Sample = tuple[Metric, tuple[str, ...], float]
"""A gauge, its label values in the metric's order, and the value."""


class GaugeSource(Protocol):
    """Live state that is exported as gauges."""

    def samples(self) -> Iterable[Sample]:
        """The current values. Called from the scraping thread; must not block and must not raise."""
        ...


class ScrapeCollector:
    """Merges the samples of all sources into metric families. Holds the sources weakly.

    Args:
        room: How many series one scrape may contain.
        left_out: Called with the number of series for which a scrape had no room.
    """

    def __init__(self, room: Callable[[], int], left_out: Callable[[int], None]) -> None:
        self._sources: weakref.WeakSet[GaugeSource] = weakref.WeakSet()
        self._room = room
        self._left_out = left_out

    def add(self, source: GaugeSource) -> None:
        """Read this source too, from the next scrape on."""
        self._sources.add(source)

    def collect(self) -> Iterator[Family]:
        """The values as metric families of ``prometheus_client``."""
        for metric, values in self.read():
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, value in values:
                family.add_metric(labels, value)
            yield family

    def read(self) -> Iterator[tuple[Metric, list[tuple[tuple[str, ...], float]]]]:
        """Read all sources: label values and value. A gauge without a sample is absent, which is different from 0."""
        merged: dict[Metric, dict[tuple[str, ...], float]] = {}
        for source in list(self._sources):
            for metric, labels, value in source.samples():
                series = merged.setdefault(metric, {})
                known = series.get(labels)
                if known is None:
                    series[labels] = value
                else:
                    series[labels] = known + value if metric.merge == "sum" else max(known, value)
        room, wanted = self._room(), sum(len(series) for series in merged.values())
        if wanted > room:
            self._left_out(wanted - room)
        # Slots and attempts come before locks: a program may have thousands of lock names, and only a few tasks.
        for metric in sorted(merged, key=lambda each: "lock" in each.labels):
            values = list(merged[metric].items())[:room]
            room -= len(values)
            if values:
                yield metric, values


class ClusterGauges:
    """Cluster-wide gauges, exported by the leader; every other process exports ``mageflow_cluster_leader`` = 0.

    A reading is exported until the lease ends under which it was made: afterwards another process may lead. A
    `GaugeSource`.
    """

    def __init__(self) -> None:
        self._view: ClusterView | None = None
        self._queue: QueueView | None = None

    def update(self, view: ClusterView) -> bool:
        """Replace the reading.

        Returns:
            Whether this process became the leader, or stopped being it.
        """
        was_leader = self._view is not None and self._view.is_leader
        self._view = view
        return was_leader != view.is_leader

    def update_queue(self, queue: QueueView) -> None:
        """Replace the reading of what waits in Hatchet."""
        self._queue = queue

    def samples(self) -> Iterable[Sample]:
        """Nothing before the first reading."""
        view = self._view
        if view is None:
            return
        leads = view.is_leader and time.monotonic() < view.valid_until
        yield metrics.CLUSTER_LEADER, (), float(leads)
        if leads:
            yield from _cluster_samples(view)
        queue = self._queue
        if leads and queue is not None and time.monotonic() < queue.valid_until:
            for task, runs in queue.waiting.items():
                yield metrics.TASKS_WAITING, (task,), float(runs.count)
                yield metrics.TASK_OLDEST_WAITING, (task,), runs.oldest_seconds


def _cluster_samples(view: ClusterView) -> Iterable[Sample]:
    for (kind, status), count in view.signatures.items():
        yield metrics.SIGNATURES, (kind, status), count
    for kind in metrics.FLOW_KINDS:
        yield metrics.FLOWS_ACTIVE, (kind,), view.active.get(kind, 0.0)
        yield metrics.FLOW_OLDEST_ACTIVE, (kind,), view.oldest_seconds.get(kind, 0.0)
    for state in metrics.ITEM_STATES:
        yield metrics.SWARM_ITEMS, (state,), view.items.get(state, 0.0)
    for lock, count in view.orphaned.items():
        yield metrics.LOCKS_ORPHANED, (lock,), count
    for element in metrics.GRAPH_ELEMENTS:
        yield metrics.WAIT_GRAPH_SIZE, (element,), view.wait_graph.get(element, 0.0)
