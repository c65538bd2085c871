"""OTLP over gRPC: traces and metrics of a program arrive at a real gRPC server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.telemetry.test_configuration import printed, pushing, run

PROGRAM = """
configure(service_name="shop", logs=None)
from prometheus_client import Counter, Histogram
Counter("shop_sold", "Sold.").inc(4)
Histogram("shop_wait_seconds", "Waits.").observe(0.3)
with trace.get_tracer("shop").start_as_current_span("sell"):
    pass
"""


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.names: list[str] = []

    def Export(self, request, context):  # noqa: N802 - gRPC names it
        self.names += [
            span.name for each in request.resource_spans for scope in each.scope_spans for span in scope.spans
        ]
        return trace_service_pb2.ExportTraceServiceResponse()


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self) -> None:
        self.found: dict[str, object] = {}

    def Export(self, request, context):  # noqa: N802 - gRPC names it
        self.found.update({each.name: each for resource in request.resource_metrics
                           for scope in resource.scope_metrics for each in scope.metrics})  # fmt: skip
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
def receiver() -> Iterator[tuple[str, Traces, Metrics]]:
    server, traces, metrics = grpc.server(ThreadPoolExecutor(4)), Traces(), Metrics()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(traces, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(metrics, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", traces, metrics
    server.stop(None).wait()


def test_the_protocol_variable_chooses_grpc_for_both_signals(receiver):
    """Spans and metrics are sent when the program ends, in the shapes that are asked for."""
    url, traces, metrics = receiver
    printed(
        PROGRAM,
        OTEL_EXPORTER_OTLP_ENDPOINT=url,
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta",
        OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION="base2_exponential_bucket_histogram",
    )

    assert traces.names == ["sell"]
    sold, waits = metrics.found["shop_sold"], metrics.found["shop_wait_seconds"]
    assert (sold.sum.aggregation_temporality, sold.sum.data_points[0].as_double) == (1, 4.0)
    assert (waits.exponential_histogram.aggregation_temporality, waits.unit) == (1, "s")
    assert waits.exponential_histogram.data_points[0].count == 1


def test_a_signal_may_have_a_protocol_of_its_own(receiver):
    """Its variable wins over the general one."""
    url, traces, metrics = receiver
    printed(
        PROGRAM,
        OTEL_EXPORTER_OTLP_ENDPOINT=url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="grpc",
    )
    assert (traces.names, metrics.found) == (["sell"], {})


@pytest.mark.parametrize(
    ("variable", "value", "known"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf, grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "both", "cumulative, delta, lowmemory"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "native",
            "explicit_bucket_histogram, base2_exponential_bucket_histogram",
        ),
    ],
)
def test_a_value_that_is_not_known_is_refused(variable, value, known):
    """With the name of the variable and what it may be."""
    assert pushing(**{"OTEL_METRICS_EXPORTER": "otlp", variable: value}) == f"{variable} is {value}; known are {known}"


def test_grpc_without_its_exporter_names_the_extra():
    """The exporter over HTTP does not help."""
    ran = run(
        "sys.modules['opentelemetry.exporter.otlp.proto.grpc.trace_exporter'] = None\nconfigure(service_name='shop')",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
    )
    assert ran.returncode == 1
    assert "the OTLP exporter for gRPC is not installed: pip install" in ran.stderr
    assert "[otlp-grpc]" in ran.stderr
