"""What the standard variables of OpenTelemetry ask for: which signal by OTLP, over which protocol, in which shape."""

import os
from importlib import import_module
from typing import Any, Final, Literal

from mageflow._frozen import frozen
from mageflow.distribution import installs
from mageflow.errors import ConfigurationError

__all__ = ["MetricsByOTLP", "logs_by_otlp", "metrics_by_otlp", "traces_by_otlp"]

_TRACES_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_METRICS_EXPORTER, _METRICS_ENDPOINT = "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
_METRICS_EXPORTERS: Final = ("otlp", "prometheus", "none")
_LOGS_EXPORTER, _LOGS_ENDPOINT = "OTEL_LOGS_EXPORTER", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
_LOGS_EXPORTERS: Final = ("otlp", "console", "none")
_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
_PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
_PROTOCOLS: Final = ("http/protobuf", "grpc")
_TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_TEMPORALITIES: Final = ("cumulative", "delta", "lowmemory")
_AGGREGATION: Final = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
_AGGREGATIONS: Final = ("explicit_bucket_histogram", "base2_exponential_bucket_histogram")


@frozen
class MetricsByOTLP:
    """How metrics are sent."""

    exporter: Any
    """The class of the exporter."""
    interval_seconds: float
    is_delta: bool
    has_exponential_histograms: bool


def traces_by_otlp() -> Any:
    """The class of the exporter that the variables ask for; None if they ask for none.

    Raises:
        ConfigurationError: A value is not known, or the exporter is not installed.
    """
    variable = next((name for name in _TRACES_ENDPOINTS if os.environ.get(name)), "")
    return _exporter(variable, "TRACES", "trace_exporter", "OTLPSpanExporter") if variable else None


def metrics_by_otlp() -> MetricsByOTLP | None:
    """What the variables ask for; None if they ask for no metrics. Every value is checked, also an unused one.

    Raises:
        ConfigurationError: A value is not known, or the exporter is not installed.
    """
    variable = _asks_for(_METRICS_EXPORTER, _METRICS_ENDPOINT, _METRICS_EXPORTERS)
    interval = _interval_seconds()
    temporality = _one_of(_TEMPORALITY, _TEMPORALITIES)
    aggregation = _one_of(_AGGREGATION, _AGGREGATIONS)
    if not variable:
        return None
    exporter = _exporter(variable, "METRICS", "metric_exporter", "OTLPMetricExporter")
    return MetricsByOTLP(exporter, interval, temporality != "cumulative", aggregation != _AGGREGATIONS[0])


def logs_by_otlp() -> Any:
    """The class of the exporter that the variables ask for; None if they ask for no logs.

    Raises:
        ConfigurationError: A value is not known, or the exporter is not installed.
    """
    variable = _asks_for(_LOGS_EXPORTER, _LOGS_ENDPOINT, _LOGS_EXPORTERS)
    return _exporter(variable, "LOGS", "_log_exporter", "OTLPLogExporter") if variable else None


def _asks_for(exporter: str, endpoint: str, known: tuple[str, ...]) -> str:
    """The variable that asks for metrics or logs by OTLP; empty if none does.

    The general endpoint does not: it is often that of a backend for traces alone, and metrics and logs have a way
    already.
    """
    chosen = {each.strip() for each in os.environ.get(exporter, "").split(",")} - {""}
    if unknown := chosen.difference(known):
        raise ConfigurationError(f"{exporter} is {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    if chosen:
        return exporter if "otlp" in chosen else ""
    return endpoint if os.environ.get(endpoint) else ""


def _exporter(variable: str, signal: Literal["TRACES", "METRICS", "LOGS"], module: str, name: str) -> Any:
    specific = _PROTOCOL.replace("OTLP_", f"OTLP_{signal}_")
    protocol = _one_of(specific if os.environ.get(specific) else _PROTOCOL, _PROTOCOLS)
    package, extra, what = ("grpc", "otlp-grpc", " for gRPC") if protocol == "grpc" else ("http", "otlp", "")
    try:
        return getattr(import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}"), name)
    except ImportError as error:
        raise ConfigurationError(
            f"{variable} is set, and the OTLP exporter{what} is not installed: {installs(extra)}"
        ) from error


def _one_of(variable: str, known: tuple[str, ...]) -> str:
    """The value of a variable, in small letters; the first known one if it is not set."""
    value = os.environ.get(variable, "").strip().lower() or known[0]
    if value not in known:
        raise ConfigurationError(f"{variable} is {value}; known are {', '.join(known)}")
    return value


def _interval_seconds() -> float:
    text = os.environ.get(_INTERVAL) or "60000"
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = 0.0
    if not 0.0 < milliseconds < float("inf"):
        raise ConfigurationError(f"{_INTERVAL} is {text!r}, which is not a number of milliseconds above 0")
    return milliseconds / 1000
