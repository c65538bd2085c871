"""`configure`: sets up tracing and logging for programs that have not done so.

The only place in this room that changes something global. The rest uses what the program has set up.
"""

import logging
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, TextIO

from opentelemetry import trace

from mageflow.config import Settings
from mageflow.distribution import installs
from mageflow.errors import ConfigurationError
from mageflow.telemetry.log_setup import LogSetup

__all__ = ["configure"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def configure(
    *,
    service_name: str,
    logs: Literal["json", "console"] | None = "json",
    level: int | str = logging.INFO,
    exception_detail: Literal["type", "message", "full"] | None = None,
    resource_attributes: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Set up traces and logs for this process; call it once, before the worker starts.

    Traces: an SDK tracer provider, exporting by OTLP over HTTP when ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or its
    ``_TRACES_`` form) is set, read now. A provider the program has set up already is kept as it is. Logs: structlog
    and the standard library both end in one root handler. Other handlers on the standard streams, Hatchet's too, write
    the same format or go; the SDK's listener process is set up alike. With ``"json"`` Python's warnings and uncaught
    exceptions are log records. Calling it again replaces the root handler.

    Args:
        service_name: The ``service.name`` of every span.
        logs: One JSON object per line, readable text, or None to leave logging alone.
        level: Of the root logger.
        exception_detail: What JSON lines show of an exception: its class, also its message, or its traceback. By
            default ``MAGEFLOW_EXCEPTION_DETAIL``, which is ``type`` if unset.
        resource_attributes: More about this process, for every span.
        stream: Where logs go; standard error unless given.

    Raises:
        ConfigurationError: An OTLP endpoint is set and the exporter is not installed. Nothing has been set up then.
    """
    exporter = _exporter()
    if not _has_provider():
        _set_provider(service_name, resource_attributes or {}, exporter)
    if logs is not None:
        LogSetup(logs, level, exception_detail or Settings().exception_detail, stream).apply()


def _exporter() -> Any:
    endpoint = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None:
        return None
    try:
        module = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise ConfigurationError(
            f"{endpoint} is set, and the OTLP exporter is not installed: {installs('otlp')}"
        ) from error
    return module.OTLPSpanExporter


def _has_provider() -> bool:
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - only who configures needs the SDK

    return isinstance(trace.get_tracer_provider(), TracerProvider)


def _set_provider(service_name: str, attributes: Mapping[str, str], exporter: Any) -> None:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": service_name, **attributes}))
    if exporter is not None:
        provider.add_span_processor(BatchSpanProcessor(exporter()))
    trace.set_tracer_provider(provider)
