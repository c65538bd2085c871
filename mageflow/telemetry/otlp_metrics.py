"""Metrics by OTLP: what the metrics endpoint would serve, sent on an interval.

The instruments stay those of ``prometheus_client``: a metric is recorded once, and both ways show the same value. Names
follow the rules of OpenTelemetry for Prometheus metrics: a counter has no ``_total``, which a backend with Prometheus
names adds again, and the unit is given beside the name.
"""

import atexit
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from mageflow.distribution import installed_version
from mageflow.telemetry.collectors import collectors_of
from mageflow.telemetry.guards import Guards
from mageflow.telemetry.last_seconds import last_seconds
from mageflow.telemetry.otlp_shapes import Deltas, exponential
from mageflow.telemetry.spans import suppressed

__all__ = ["MetricsPush", "metrics_of"]

_UNITS: Final = {"_seconds": "s", "_bytes": "By"}
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE

_Labels = tuple[tuple[str, str], ...]


class MetricsPush:
    """Sends all metrics of a registry on an interval, from a daemon thread, and once more when the program ends.

    Args:
        exporter: Waits for the network, in this thread only.
        resource: What this process is.
        registry: Read on each interval.
        interval_seconds: Between two pushes.
        is_delta: Whether a push has what was added since the one before, instead of totals.
        has_exponential_histograms: Whether histograms are sent as exponential ones.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        resource: Resource,
        registry: CollectorRegistry,
        interval_seconds: float,
        *,
        is_delta: bool = False,
        has_exponential_histograms: bool = False,
    ) -> None:
        self._exporter = exporter
        self._resource = resource
        self._registry = registry
        self._interval = interval_seconds
        self._started_ns = time.time_ns()
        self._deltas = Deltas(self._started_ns) if is_delta else None
        self._is_exponential = has_exponential_histograms
        self._stopping = threading.Event()
        self._guard = Guards(lambda _: None).metric
        self._thread = threading.Thread(target=self._run, name="mageflow-otlp-metrics", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Push once more and end. Waits for 3 s at most."""
        self._stopping.set()
        self._thread.join(last_seconds())
        atexit.unregister(self.stop)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(self._interval)
            with self._guard.catching("otlp"), suppressed():
                now_ns = time.time_ns()
                result = self._exporter.export(self._data(now_ns))
                if self._deltas is not None and result is MetricExportResult.SUCCESS:
                    self._deltas.accept(now_ns)

    def _data(self, now_ns: int) -> MetricsData:
        scope = InstrumentationScope("mageflow", installed_version())
        metrics: list[Metric] = []
        for name, collector in collectors_of(self._registry):
            with self._guard.catching(f"collector {name}"):
                metrics += list(metrics_of(collector.collect(), self._started_ns, now_ns))
        if self._deltas is not None:
            metrics = self._deltas.of(metrics)
        if self._is_exponential:
            metrics = [exponential(each) for each in metrics]
        return MetricsData([ResourceMetrics(self._resource, [ScopeMetrics(scope, metrics, "")], "")])


def metrics_of(families: Iterable[Family], started_ns: int, now_ns: int) -> Iterator[Metric]:
    """Metric families of Prometheus as metrics of OpenTelemetry, cumulative since ``started_ns``.

    A summary becomes two sums, its count and its sum. A family without a sample is left out.
    """
    for family in families:
        if family.type == "histogram":
            points = list(_histogram_points(family.samples, started_ns, now_ns))
            if points:
                yield _metric(family.name, family, Histogram(points, _CUMULATIVE))
        elif family.type == "counter":
            yield from _sums(family, {f"{family.name}_total": family.name}, started_ns, now_ns)
        elif family.type == "summary":
            yield from _sums(family, {f"{family.name}{end}": f"{family.name}{end}" for end in ("_count", "_sum")},
                             started_ns, now_ns)  # fmt: skip
        else:
            by_name: dict[str, list[NumberDataPoint]] = {}
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    by_name.setdefault(sample.name, []).append(NumberDataPoint(sample.labels, 0, now_ns, sample.value))
            for name, gauge in by_name.items():
                yield _metric(name, family, Gauge(gauge))


def _sums(family: Family, names: Mapping[str, str], started_ns: int, now_ns: int) -> Iterator[Metric]:
    for sample_name, name in names.items():
        points = [
            NumberDataPoint(each.labels, started_ns, now_ns, each.value, _exemplars([each]))
            for each in family.samples
            if each.name == sample_name
        ]
        if points:
            yield _metric(name, family, Sum(points, _CUMULATIVE, is_monotonic=True))


def _metric(name: str, family: Family, data: Any) -> Metric:
    return Metric(
        name, family.documentation, next((unit for end, unit in _UNITS.items() if name.endswith(end)), ""), data
    )


def _histogram_points(samples: Iterable[Sample], started_ns: int, now_ns: int) -> Iterator[HistogramDataPoint]:
    buckets: dict[_Labels, list[tuple[float, Sample]]] = {}
    sums: dict[_Labels, float] = {}
    for sample in samples:
        labels: _Labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            buckets.setdefault(labels, []).append((float(sample.labels["le"]), sample))
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    for labels, unordered in buckets.items():
        ordered = sorted(unordered, key=lambda each: each[0])
        cumulative = [round(sample.value) for _, sample in ordered]
        counts = [count - before for count, before in zip(cumulative, [0, *cumulative[:-1]], strict=True)]
        unknown: Any = None  # Prometheus keeps neither the least nor the greatest value
        yield HistogramDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=started_ns,
            time_unix_nano=now_ns,
            count=cumulative[-1],
            sum=sums.get(labels, 0.0),
            bucket_counts=counts,
            explicit_bounds=[bound for bound, _ in ordered[:-1]],
            min=unknown,
            max=unknown,
            exemplars=_exemplars(sample for _, sample in ordered),
        )


def _exemplars(samples: Iterable[Sample]) -> list[Exemplar]:
    found: list[Exemplar] = []
    for exemplar in (each.exemplar for each in samples):
        if exemplar is not None and {"trace_id", "span_id"} <= exemplar.labels.keys():
            other = {name: value for name, value in exemplar.labels.items() if name not in {"trace_id", "span_id"}}
            at = int(float(exemplar.timestamp or time.time()) * 1e9)
            ids = int(exemplar.labels["span_id"], 16), int(exemplar.labels["trace_id"], 16)
            found.append(Exemplar(other, exemplar.value, at, *ids))
    return found
