"""`configure`: sets up tracing and logging for programs that have not done so.

The only place in this room that changes something global. The rest uses what the program has set up.
"""

import io
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from importlib import import_module
from typing import Any, Literal, TextIO

import structlog
from opentelemetry import trace

from mageflow.distribution import installs
from mageflow.errors import ConfigurationError
from mageflow.telemetry.logs import add_trace_context, hand_over
from mageflow.telemetry.records import LogFields
from mageflow.terminal import printable

__all__ = ["configure"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


_EXCEPTION_KEYS = frozenset({"exc_info", "stack_info"})


class _Handler(logging.StreamHandler[TextIO]):
    """The root handler of `configure`, so that a second call replaces it and leaves other handlers alone."""


class _JsonFormatter(structlog.stdlib.ProcessorFormatter):
    """Renders mageflow's events directly: the processors would add a third to their cost."""

    def format(self, record: logging.LogRecord) -> str:
        fields: object = record.msg
        if isinstance(fields, LogFields) and not record.exc_info and _EXCEPTION_KEYS.isdisjoint(fields):
            return str(fields)
        return super().format(record)


def configure(
    *,
    service_name: str,
    logs: Literal["json", "console"] | None = "json",
    level: int | str = logging.INFO,
    resource_attributes: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Set up traces and logs for this process; call it once, before the worker starts.

    Traces: an SDK tracer provider, exporting by OTLP over HTTP when ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or its
    ``_TRACES_`` form) is set, read now. A provider the program has set up already is kept as it is. Logs: structlog
    and the standard library both end in one root handler. Calling it again replaces that handler and changes nothing
    else.

    Args:
        service_name: The ``service.name`` of every span.
        logs: One JSON object per line, readable text, or None to leave logging alone.
        level: Of the root logger.
        resource_attributes: More about this process, for every span.
        stream: Where logs go; standard error unless given.

    Raises:
        ConfigurationError: An OTLP endpoint is set and the exporter is not installed. Nothing has been set up then.
    """
    exporter = _exporter()
    if not _has_provider():
        _set_provider(service_name, resource_attributes or {}, exporter)
    if logs is not None:
        _set_logs(logs, level, stream)


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


def _set_logs(logs: Literal["json", "console"], level: int | str, stream: TextIO | None) -> None:
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_trace_context,
    ]
    formatter, rendering = structlog.stdlib.ProcessorFormatter, _console(stream or sys.stderr)
    if logs == "json":
        formatter = _JsonFormatter
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    handler = _Handler(stream)
    handler.setFormatter(formatter(foreign_pre_chain=shared, processors=[formatter.remove_processors_meta, *rendering]))
    structlog.configure(
        processors=[*shared, hand_over],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for each in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(each)
    root.addHandler(handler)
    root.setLevel(level)


def _console(stream: TextIO) -> Sequence[Any]:
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(),
        exception_formatter=_plain_traceback,
    )
    return [_show_as_text, renderer]


def _plain_traceback(output: TextIO, exc_info: Any) -> None:
    """Write a traceback as plain text, without the values of local variables: they may be secrets."""
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    output.write(printable(text.getvalue(), keep="\n"))


def _show_as_text(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what a terminal acts on: a name or an error message of a user must not control it or forge a line."""
    for key, value in event.items():
        # Tracebacks keep their lines; every other value is one line.
        if isinstance(value, str):
            event[key] = printable(value, keep="\n" if key in {"exception", "stack"} else "")
        elif key not in {"exc_info", "stack_info"} and not isinstance(value, int | float | bool | None):
            event[key] = printable(str(value))
    return event
