"""Gauges, computed when scraped from what is live at that moment.

A gauge that is set and forgotten lies after a crash of the code that should have reset it. Here nobody sets gauges:
a `GaugeSource` looks at its live table when Prometheus asks.
"""

import weakref
from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from mageflow.telemetry.names.metrics import METRICS, Metric

__all__ = ["GaugeSource", "Sample", "ScrapeCollector"]

Sample = tuple[Metric, tuple[str, ...], float]
"""A gauge, its label values in the metric's order, and the value."""


class GaugeSource(Protocol):
    """Something with live facts."""

    def samples(self) -> Iterable[Sample]:
        """The facts of this moment. Called from the scraping thread; must not block and must not raise."""
        ...


class ScrapeCollector(Collector):
    """Makes one family of what all sources report. Sources are held weakly."""

    def __init__(self) -> None:
        self._sources: weakref.WeakSet[GaugeSource] = weakref.WeakSet()

    def add(self, source: GaugeSource) -> None:
        """Ask this source, too, from the next scrape on."""
        self._sources.add(source)

    def describe(self) -> Iterable[Family]:
        """Reserve the names without asking anybody."""
        return [_family(metric) for metric in METRICS if metric.kind == "gauge"]

    def collect(self) -> Iterator[Family]:
        """What the sources know; a gauge nobody reports is absent, which is not the same as 0."""
        merged: dict[Metric, dict[tuple[str, ...], float]] = {}
        for source in list(self._sources):
            for metric, labels, value in source.samples():
                series = merged.setdefault(metric, {})
                known = series.get(labels)
                if known is None:
                    series[labels] = value
                else:
                    series[labels] = known + value if metric.merge == "sum" else max(known, value)
        for metric, series in merged.items():
            family = _family(metric)
            for labels, value in series.items():
                family.add_metric(labels, value)
            yield family


def _family(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
