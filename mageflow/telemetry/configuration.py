"""`configure`: sets up traces, logs and metrics, by OTLP too, for programs that have not done so.

The only place in this room that changes something global. The rest uses what the program has set up.
"""

import logging
import os
import socket
import sys
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from opentelemetry import trace

from mageflow.config import Settings
from mageflow.did_you_mean import hint
from mageflow.error_text import shown
from mageflow.errors import ConfigurationError
from mageflow.telemetry.last_seconds import last_seconds
from mageflow.telemetry.log_format import ExceptionDetail
from mageflow.telemetry.log_setup import LogSetup
from mageflow.telemetry.names import traces
from mageflow.telemetry.otlp_variables import MetricsByOTLP, logs_by_otlp, metrics_by_otlp, traces_by_otlp

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from prometheus_client import CollectorRegistry

    from mageflow.telemetry.otlp_logs import LogsPush
    from mageflow.telemetry.otlp_metrics import MetricsPush

__all__ = ["configure"]

_INSTANCE_ID = str(uuid.uuid4())


@dataclass(slots=True)
class _Started:
    """What the calls of `configure` in this process have started. A later call uses it again."""

    metrics: "MetricsPush | None" = None
    logs: "LogsPush | None" = None


_started: Final = _Started()


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
        pydantic.ValidationError: The same for a variable of mageflow that ``logs`` needs.
    """
    _refuse_unknown("format of logs", logs, ("json", "console"))
    _refuse_unknown("exception_detail", exception_detail, ("type", "message", "full"))
    setup = None if logs is None else _log_setup(logs, level, exception_detail, has_run_lines=hatchet_run_lines)
    traces_exporter, sending, logs_exporter = traces_by_otlp(), metrics_by_otlp(), logs_by_otlp()
    resource = cache(partial(_resource, service_name, resource_attributes or {}))
    if not _has_provider():
        _set_provider(resource(), traces_exporter)
    if sending is not None and _started.metrics is None:
        _started.metrics = _metrics_push(sending, resource(), registry)
    if setup is not None:
        if logs_exporter is not None and _started.logs is None:
            _started.logs = _logs_push(logs_exporter, resource())
        setup.apply(stream or sys.stderr, _started.logs)


def _refuse_unknown(what: str, given: object, known: tuple[str, ...]) -> None:
    if given is not None and given not in known:
        raise ConfigurationError(f"there is no {what} {shown(given)}{hint(str(given), known)}")


def _log_setup(
    kind: Literal["json", "console"],
    level: int | str,
    exception_detail: ExceptionDetail | None,
    *,
    has_run_lines: bool | None,
) -> LogSetup:
    settings = Settings()
    return LogSetup(
        kind,
        level,
        exception_detail or settings.exception_detail,
        settings.hatchet_run_lines if has_run_lines is None else has_run_lines,
    )


def _has_provider() -> bool:
    from opentelemetry.sdk.trace import TracerProvider

    return isinstance(trace.get_tracer_provider(), TracerProvider)


def _resource(service_name: str, attributes: Mapping[str, str]) -> "Resource":
    """What this process is: by the conventions, with ``OTEL_RESOURCE_ATTRIBUTES``; given attributes win."""
    from opentelemetry.sdk.resources import Resource

    found = {"service.instance.id": _INSTANCE_ID, "host.name": socket.gethostname(), "process.pid": os.getpid()}
    if namespace := os.environ.get("HATCHET_CLIENT_NAMESPACE"):
        found[traces.HATCHET_NAMESPACE] = namespace
    return Resource(found).merge(Resource.create({"service.name": service_name, **attributes}))


def _set_provider(resource: "Resource", exporter: Any) -> None:
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


def _metrics_push(sending: MetricsByOTLP, resource: "Resource", registry: "CollectorRegistry | None") -> "MetricsPush":
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
    return push


def _logs_push(exporter: Any, resource: "Resource") -> "LogsPush":
    from mageflow.telemetry.otlp_logs import LogsPush

    return LogsPush(exporter(), resource.attributes)
