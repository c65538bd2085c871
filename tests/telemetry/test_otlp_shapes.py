"""Delta temporality and exponential histograms: what the real exporter sends, and how exact it is."""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mageflow.telemetry.names.metrics import METRICS, QUANTILE_ERROR
from mageflow.telemetry.otlp_metrics import MetricsPush, metrics_of
from mageflow.telemetry.otlp_shapes import exponential

SETS = sorted({each.buckets for each in METRICS if len(each.buckets) > 17})
DELTA = 1


class Collector:
    """Takes or refuses what is pushed to it."""

    def __init__(self) -> None:
        self.accepts = True
        self.refused = 0
        self.accepted: list[ExportMetricsServiceRequest] = []
        self.url = ""

    def metrics(self, number: int) -> dict[str, Any]:
        """The metrics of one accepted push."""
        (resource,) = self.accepted[number].resource_metrics
        return {each.name: each for scope in resource.scope_metrics for each in scope.metrics}


@contextmanager
def served(collector: Collector) -> Iterator[Collector]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.accepts:
                collector.accepted.append(ExportMetricsServiceRequest.FromString(body))
            else:
                collector.refused += 1
            self.send_response(200 if collector.accepts else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        collector.url = f"http://127.0.0.1:{server.server_port}/v1/metrics"
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_deltas_add_up_to_the_totals_also_over_refused_pushes():
    """Each accepted push has what was added since the one before; gauges and unchanged series are no additions."""
    registry = CollectorRegistry()
    runs = Counter("shop_runs", "Runs.", ["task"], registry=registry)
    Gauge("shop_open", "Open.", registry=registry).set(5)
    seconds = Histogram("shop_wait_seconds", "Waits.", buckets=(1.0, 5.0), registry=registry)
    runs.labels("rare").inc()
    with served(Collector()) as collector:
        exporter = OTLPMetricExporter(endpoint=collector.url)
        push = MetricsPush(exporter, Resource.get_empty(), registry, 0.05, is_delta=True)
        push.start()
        for number in range(3):
            runs.labels("often").inc(3)
            seconds.observe(number * 3, {"trace_id": "ab" * 16, "span_id": f"{number + 1:016x}"})
            before = len(collector.accepted)
            wait(lambda before=before: len(collector.accepted) > before + 1)
        collector.accepts = False
        wait(lambda: collector.refused >= 1)
        runs.labels("often").inc(10)
        before_more = collector.refused
        wait(lambda: collector.refused > before_more + 1)
        collector.accepts = True
        before = len(collector.accepted)
        wait(lambda: len(collector.accepted) > before)
        push.stop()

    pushes = [collector.metrics(number) for number in range(len(collector.accepted))]
    points = [(each["shop_runs"].sum, point) for each in pushes if "shop_runs" in each
              for point in each["shop_runs"].sum.data_points]  # fmt: skip
    totals: dict[str, float] = {}
    for _, point in points:
        task = point.attributes[0].value.string_value
        totals[task] = totals.get(task, 0.0) + point.as_double
    assert totals == {"rare": 1.0, "often": 19.0}
    assert {sums.aggregation_temporality for sums, _ in points} == {DELTA}
    assert sum(point.attributes[0].value.string_value == "rare" for _, point in points) == 1, "no addition, no point"
    spans = sorted((point.start_time_unix_nano, point.time_unix_nano) for _, point in points)
    assert all(start < end for start, end in spans)

    waits = [point for each in pushes if "shop_wait_seconds" in each
             for point in each["shop_wait_seconds"].histogram.data_points]  # fmt: skip
    assert [sum(column) for column in zip(*(each.bucket_counts for each in waits), strict=True)] == [1, 1, 1]
    assert (sum(each.count for each in waits), sum(each.sum for each in waits)) == (3, 9.0)
    exemplars = [exemplar.span_id for each in waits for exemplar in each.exemplars]
    assert len(exemplars) == len(set(exemplars)) == 3, "an exemplar is sent with the push that counts it"
    assert {each["shop_open"].gauge.data_points[0].as_double for each in pushes} == {5.0}


def test_an_exponential_histogram_arrives_with_exact_count_sum_and_exemplars():
    """Values below the first bound and above the last one are counted too."""
    registry = CollectorRegistry()
    histogram = Histogram("shop_wait_seconds", "Waits.", ["task"], buckets=(1.0, 1.25, 5.0), registry=registry)
    for value in (0.0, 0.5, 1.1, 1.2, 3.0, 90.0):
        histogram.labels("a").observe(value, {"trace_id": "ab" * 16, "span_id": "cd" * 8} if value == 3.0 else None)
    histogram.labels("idle")
    with served(Collector()) as collector:
        exporter = OTLPMetricExporter(endpoint=collector.url)
        push = MetricsPush(exporter, Resource.get_empty(), registry, 60.0, has_exponential_histograms=True)
        push.start()
        push.stop()

    data = collector.metrics(0)["shop_wait_seconds"].exponential_histogram
    assert data.aggregation_temporality == 2
    points = {each.attributes[0].value.string_value: each for each in data.data_points}
    assert (points["idle"].count, list(points["idle"].positive.bucket_counts)) == (0, [])
    found = points["a"]
    assert (found.count, found.zero_count + sum(found.positive.bucket_counts)) == (6, 6)
    assert found.sum == pytest.approx(95.8)
    base = 2.0 ** (2.0**-found.scale)
    ends = [(base ** (found.positive.offset + number), base ** (found.positive.offset + number + 1), count)
            for number, count in enumerate(found.positive.bucket_counts) if count]  # fmt: skip
    inside = [(1.0, 2), (math.sqrt(1.25), 2), (2.5, 1), (5.000001, 1)]
    assert len(ends) == len(inside)
    for (low, high, count), (value, expected) in zip(ends, inside, strict=True):
        assert low < value <= high * (1 + 1e-9)
        assert count == expected
    (exemplar,) = found.exemplars
    assert (exemplar.as_double, exemplar.trace_id.hex()) == (3.0, "ab" * 16)


@pytest.mark.parametrize("buckets", SETS, ids=lambda each: f"{each[0]:g} to {each[-1]:g}")
@pytest.mark.parametrize("spread", [0.05, 0.5, 1.5])
def test_a_quantile_of_an_exponential_histogram_is_as_exact_as_that_of_a_board(buckets, spread):
    """Whichever value of its bucket a backend shows."""
    draw = random.Random(13)
    middle = math.log(math.sqrt(buckets[0] * buckets[-1]))
    values = sorted(min(max(draw.lognormvariate(middle, spread), buckets[0]), buckets[-1]) for _ in range(999))
    registry = CollectorRegistry()
    histogram = Histogram("shop_value", "Values.", buckets=buckets, registry=registry)
    for value in values:
        histogram.observe(value)
    (metric,) = metrics_of(registry.collect(), 1, 2)
    (point,) = exponential(metric).data.data_points
    base = 2.0 ** (2.0**-point.scale)

    assert len(point.positive.bucket_counts) <= 160
    for share in (0.5, 0.9, 0.95, 0.99):
        true, below = values[math.ceil(share * 999) - 1], 0
        for number, count in enumerate(point.positive.bucket_counts):
            below += count
            if below >= share * 999:
                low, high = base ** (point.positive.offset + number), base ** (point.positive.offset + number + 1)
                break
        assert max(abs(low - true), abs(high - true)) / true <= QUANTILE_ERROR, (share, true, low, high)


def test_buckets_that_a_program_has_chosen_are_kept_within_160():
    """A very wide range, and bounds at zero and below."""
    registry = CollectorRegistry()
    wide = Histogram("shop_wide", "Wide.", buckets=(1e-9, 1e-3, 1.0, 1e9, 1e30), registry=registry)
    signed = Histogram("shop_signed", "Signed.", buckets=(-2.0, -1.0, 1.0, 2.0), registry=registry)
    for value in (1e-10, 1e-5, 1.0, 1e20, 1e40):
        wide.observe(value)
    for value in (-3.0, -1.5, 0.0, 1.5, 9.0):
        signed.observe(value)
    points = {each.name: exponential(each).data.data_points[0] for each in metrics_of(registry.collect(), 1, 2)}

    assert sum(points["shop_wide"].positive.bucket_counts) == 5
    assert len(points["shop_wide"].positive.bucket_counts) <= 160
    assert points["shop_signed"].zero_count == 1
    assert (sum(points["shop_signed"].negative.bucket_counts), sum(points["shop_signed"].positive.bucket_counts)) == (
        2,
        2,
    )
