"""`configure`: sets up traces, logs and metrics, by OTLP too, for programs that have not done so.

The only place in this room that changes something global. The rest uses what the program has set up.
"""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TextIO

from opentelemetry import trace

from mageflow.config import Settings
from mageflow.did_you_mean import hint
from mageflow.error_text import shown
from mageflow.errors import ConfigurationError
from mageflow.telemetry.last_seconds import last_seconds
from mageflow.telemetry.log_setup import LogSetup
from mageflow.telemetry.names import traces
from mageflow.telemetry.otlp_variables import MetricsByOTLP, logs_by_otlp, metrics_by_otlp, traces_by_otlp

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["configure"]

_INSTANCE_ID = str(uuid.uuid4())

_pushes: list[Any] = []
"""The push of metrics that `configure` has started; one at most."""

_log_pushes: list[Any] = []
"""The push of log records that `configure` has started; one at most."""


def configure(
    *,
    service_name: str,
    logs: Literal["json", "console"] | None = "json",
    level: int | str = logging.INFO,
    exception_detail: Literal["type", "message", "full"] | None = None,
    resource_attributes: Mapping[str, str] | None = None,
    registry: "CollectorRegistry | None" = None,
    stream: TextIO | None = None,
    hatchet_run_lines: bool | None = None,
) -> None:
    """Set up traces, logs and metrics by OTLP for this process; call it once, before the worker starts.

    Traces: an SDK tracer provider, exporting by OTLP when ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or its ``_TRACES_`` form)
    is set, read now. Over HTTP, or gRPC if ``OTEL_EXPORTER_OTLP_PROTOCOL`` is ``grpc``. A provider the program has set
    up already is kept as it is. Logs: structlog and the standard library both end in one root handler. Other handlers
    on the standard streams, Hatchet's too, write the same format or go; the SDK's listener process is set up alike.
    With ``"json"`` Python's warnings and uncaught exceptions are log records. Metrics: sent by OTLP too, beside the
    endpoint, when ``OTEL_METRICS_EXPORTER`` is ``otlp`` or ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`` is set; every
    ``OTEL_METRIC_EXPORT_INTERVAL`` milliseconds (60000), from a thread of their own, in the temporality and the kind of
    histogram that the variables of the exporter ask for. Logs by OTLP: the JSON line of every record is sent too, from
    a thread of its own, when ``OTEL_LOGS_EXPORTER`` is ``otlp`` or ``OTEL_EXPORTER_OTLP_LOGS_ENDPOINT`` is set and
    ``logs`` is not None. Calling it again replaces the root handler and nothing else.

    Args:
        service_name: The ``service.name`` of every span and metric.
        logs: One JSON object per line, readable text, or None to leave logging alone.
        level: Of the root logger.
        exception_detail: What JSON lines show of an exception: its class, also its message, or its traceback. By
            default ``MAGEFLOW_EXCEPTION_DETAIL``, which is ``type`` if unset. Events of mageflow follow the setting of
            their client instead.
        resource_attributes: More about this process, for every span and metric.
        registry: Whose metrics are sent; ``prometheus_client.REGISTRY`` unless given. Give it to the client too.
        stream: Where logs go; standard error unless given.
        hatchet_run_lines: Whether the lines that the SDK writes at the begin and the end of every run stay. By default
            ``MAGEFLOW_HATCHET_RUN_LINES``, which is false if unset: for tasks of mageflow they are dropped where its
            event of the same run is written.

    Raises:
        ConfigurationError: ``logs`` or ``exception_detail`` has another value, OTLP is asked for and the exporter
            is not installed, or a variable has a value that is not known. Nothing has been set up then.
    """
    _refuse_unknown("format of logs", logs, ("json", "console"))
    _refuse_unknown("exception_detail", exception_detail, ("type", "message", "full"))
    traces_exporter, sending, logs_exporter = traces_by_otlp(), metrics_by_otlp(), logs_by_otlp()
    if not _has_provider():
        _set_provider(_resource(service_name, resource_attributes or {}), traces_exporter)
    if sending is not None and not _pushes:
        _push(sending, _resource(service_name, resource_attributes or {}), registry)
    if logs is not None:
        if logs_exporter is not None and not _log_pushes:
            _log_pushes.append(_logs_push(logs_exporter, _resource(service_name, resource_attributes or {})))
        push = _log_pushes[0] if _log_pushes else None
        settings = Settings()
        LogSetup(
            logs,
            level,
            exception_detail or settings.exception_detail,
            stream,
            push,
            settings.hatchet_run_lines if hatchet_run_lines is None else hatchet_run_lines,
        ).apply()


def _refuse_unknown(what: str, given: object, known: tuple[str, ...]) -> None:
    if given is not None and given not in known:
        raise ConfigurationError(f"there is no {what} {shown(given)}{hint(str(given), known)}")


def _has_provider() -> bool:
    from opentelemetry.sdk.trace import TracerProvider

    return isinstance(trace.get_tracer_provider(), TracerProvider)


def _resource(service_name: str, attributes: Mapping[str, str]) -> Any:
    """What this process is: by the conventions, with ``OTEL_RESOURCE_ATTRIBUTES``; given attributes win."""
    from opentelemetry.sdk.resources import Resource

    found = {"service.instance.id": _INSTANCE_ID, "host.name": socket.gethostname(), "process.pid": os.getpid()}
    if namespace := os.environ.get("HATCHET_CLIENT_NAMESPACE"):
        found[traces.HATCHET_NAMESPACE] = namespace
    return Resource(found).merge(Resource.create({"service.name": service_name, **attributes}))


def _set_provider(resource: Any, exporter: Any) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class Processor(BatchSpanProcessor):
        def shutdown(self) -> None:
            """Send what is left, for a limited time: the SDK repeats for half a minute if the collector is away."""
            last = threading.Thread(target=super().shutdown, name="mageflow-last-spans", daemon=True)
            try:
                last.start()
            except RuntimeError:  # the interpreter is too far on its way out for a thread
                return
            last.join(last_seconds())

    provider = TracerProvider(resource=resource)
    if exporter is not None:
        provider.add_span_processor(Processor(exporter()))
    trace.set_tracer_provider(provider)


def _push(sending: MetricsByOTLP, resource: Any, registry: "CollectorRegistry | None") -> None:
    from prometheus_client import REGISTRY

    from mageflow.telemetry.otlp_metrics import MetricsPush

    push = MetricsPush(
        sending.exporter(),
        resource,
        REGISTRY if registry is None else registry,
        sending.interval_seconds,
        is_delta=sending.is_delta,
        has_exponential_histograms=sending.has_exponential_histograms,
    )
    push.start()
    _pushes.append(push)


def _logs_push(exporter: Any, resource: Any) -> Any:
    from mageflow.telemetry.otlp_logs import LogsPush

    return LogsPush(exporter(), dict(resource.attributes))
