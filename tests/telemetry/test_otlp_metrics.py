"""Metrics by OTLP: the same values under the same names as at the endpoint, by a real exporter over real sockets."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics.export import Gauge, Sum
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, Counter, Histogram, Summary
from prometheus_client import Gauge as PrometheusGauge
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Exemplar as PrometheusExemplar
from prometheus_client.samples import Sample

from mageflow.telemetry.otlp_metrics import MetricsPush, metrics_of
from mageflow.testing import capture_logs
from tests.telemetry.otlp_receiver import serve

PROGRAM = """
import asyncio, os
from hatchet_sdk import Hatchet
from mageflow import Mageflow
from mageflow.telemetry import configure

client = Mageflow(Hatchet())

@client.task(name="pushed")
async def pushed(message: dict) -> dict:
    return {}

async def drive():
    await asyncio.sleep(1)
    for _ in range(3):
        await pushed.aio_run({})
    os.kill(os.getpid(), 15)

async def lifespan():
    task = asyncio.create_task(drive())
    yield None

if __name__ == "__main__":
    configure(service_name="shop", resource_attributes={"deployment.environment.name": "stage"})
    client.worker("otlp", workflows=[pushed], lifespan=lifespan).start()
"""


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[ExportMetricsServiceRequest]]]:
    """An OTLP receiver: its URL and every request it got."""
    received: list[ExportMetricsServiceRequest] = []
    with serve("/v1/metrics", lambda body: received.append(ExportMetricsServiceRequest.FromString(body))) as url:
        yield url, received


def attributes(of: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in of.attributes}


@pytest.mark.slow
def test_a_worker_sends_what_it_serves(mageflow_engine, receiver, tmp_path: Path):
    """Counters, histograms with exemplars, gauges and the resource; the last push is at the end of the program."""
    url, received = receiver
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, str(program)],
        env={
            **os.environ,
            "MAGEFLOW_METRICS_PORT": "0",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=shop-1,k8s.node.name=node-a",
            "HATCHET_CLIENT_NAMESPACE": "tenant_a_",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert len(received) >= 2, ended.stderr

    (resource_metrics,) = received[-1].resource_metrics
    resource = attributes(resource_metrics.resource)
    expected = {
        "service.name": "shop",
        "deployment.environment.name": "stage",
        "k8s.pod.name": "shop-1",
        "k8s.node.name": "node-a",
        "hatchet.namespace": "tenant_a_",
    }
    assert {key: resource[key] for key in expected} == expected
    assert {"service.instance.id", "host.name", "process.pid"} <= resource.keys()

    (scope_metrics,) = resource_metrics.scope_metrics
    assert scope_metrics.scope.name == "mageflow"
    metrics = {each.name: each for each in scope_metrics.metrics}
    runs = metrics["mageflow_task_runs"].sum
    assert (runs.is_monotonic, runs.aggregation_temporality) == (True, 2)
    values = {attributes(point)["outcome"]: point.as_double for point in runs.data_points}
    assert values["succeeded"] == 3.0
    assert sum(values.values()) == 3.0
    assert all(0 < point.start_time_unix_nano < point.time_unix_nano for point in runs.data_points)

    durations = metrics["mageflow_task_run_duration_seconds"]
    assert durations.unit == "s"
    (ok,) = [
        each for each in durations.histogram.data_points if attributes(each) == {"task": "pushed", "outcome": "ok"}
    ]
    assert (ok.count, sum(ok.bucket_counts), len(ok.bucket_counts)) == (3, 3, len(ok.explicit_bounds) + 1)
    assert ok.sum > 0.0
    assert [len(each.trace_id) for each in ok.exemplars][:1] == [16]
    # The last message has it only if it was sent while the worker still ran.
    assert any(
        each.name == "mageflow_worker_slots" and each.gauge.data_points
        for message in received
        for each in message.resource_metrics[0].scope_metrics[0].metrics
    )


def test_each_kind_of_prometheus_metric_has_its_kind_in_opentelemetry():
    """Names without ``_total``, units by name, counts per bucket, and no value that Prometheus does not keep."""
    registry = CollectorRegistry()
    Counter("shop_sent_bytes", "Sent.", ["to"], registry=registry).labels("a").inc(7)
    PrometheusGauge("shop_open", "Open.", registry=registry).set(2)
    histogram = Histogram("shop_wait_seconds", "Waits.", buckets=(1.0, 5.0), registry=registry)
    for value in (0.5, 2.0, 3.0, 9.0):
        histogram.observe(value, {"trace_id": "ab" * 16, "span_id": "cd" * 8} if value == 3.0 else None)
    Summary("shop_size", "Sizes.", registry=registry).observe(4)
    found = {each.name: each for each in metrics_of(registry.collect(), 1, 2)}

    assert set(found) == {"shop_sent_bytes", "shop_open", "shop_wait_seconds", "shop_size_count", "shop_size_sum"}
    sent = found["shop_sent_bytes"]
    assert isinstance(sent.data, Sum)
    assert (sent.unit, sent.data.data_points[0].attributes, sent.data.data_points[0].value) == ("By", {"to": "a"}, 7)
    assert isinstance(found["shop_open"].data, Gauge)
    assert (found["shop_open"].unit, found["shop_open"].data.data_points[0].value) == ("", 2.0)
    (wait,) = found["shop_wait_seconds"].data.data_points
    assert (wait.bucket_counts, wait.explicit_bounds, wait.count, wait.sum) == ([1, 2, 1], [1.0, 5.0], 4, 14.5)
    (exemplar,) = wait.exemplars
    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (3.0, int("ab" * 16, 16), int("cd" * 8, 16))
    assert found["shop_size_sum"].data.data_points[0].value == 4.0


def test_a_collector_that_raises_hides_its_own_metrics_only(receiver):
    """In a push too; the log says which one."""
    url, received = receiver
    registry = CollectorRegistry()
    PrometheusGauge("queue_depth", "Read when pushed.", registry=registry).set_function(lambda: 1 / 0)
    Counter("orders_total", "The program's own.", registry=registry).inc(3)
    push = MetricsPush(OTLPMetricExporter(f"{url}/v1/metrics"), Resource({}), registry, 60.0)
    push.start()
    with capture_logs() as logs:
        push.stop()

    (scope,) = [scope for each in received for resource in each.resource_metrics for scope in resource.scope_metrics]
    assert [(each.name, [point.as_double for point in each.sum.data_points]) for each in scope.metrics] == [
        ("orders", [3.0])
    ]
    assert logs.one("mageflow.telemetry.error")["site"] == "collector queue_depth"


def test_a_foreign_collector_with_unordered_buckets_and_exemplars_without_ids_is_understood():
    """A program may register collectors of its own."""
    family = Family("own", "Own.", "histogram")
    family.samples = [
        Sample("own_bucket", {"le": "+Inf"}, 3),
        Sample("own_bucket", {"le": "1.0"}, 1, None, PrometheusExemplar({"user": "x"}, 1.0)),
        Sample("own_sum", {}, math.pi),
    ]
    (metric,) = metrics_of([family], 1, 2)

    (point,) = metric.data.data_points
    assert (point.bucket_counts, point.explicit_bounds, point.sum, point.exemplars) == ([1, 2], [1.0], math.pi, [])
