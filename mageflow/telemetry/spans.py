"""Starts and fails spans, with the OpenTelemetry API alone.

Without the OpenTelemetry SDK the calls do nothing, and trace context still travels. Every span has an empty
``hatchet.payload``: the span processor of Hatchet's SDK copies the input of the run to every span inside a task, unless
the span has that attribute already.
"""

import hashlib
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NoOpTracer,
    NoOpTracerProvider,
    ProxyTracer,
    ProxyTracerProvider,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
)
from opentelemetry.util.types import AttributeValue

from mageflow.distribution import DISTRIBUTION
from mageflow.error_text import clipped, text_of
from mageflow.telemetry.names import traces
from mageflow.telemetry.names.traces import SpanName

__all__ = ["Attributes", "Spans", "hashed", "suppressed"]

Attributes = dict[str, AttributeValue]

_STACK_CHARACTERS: Final = 32_768
"""Of a traceback. An exporter drops a whole batch for one attribute of several megabytes."""

_NO_TRACER: Final = NoOpTracer()
_WITHOUT_SPANS: Final = (ProxyTracerProvider, NoOpTracerProvider)

_KINDS: Final[Mapping[str, SpanKind]] = {
    "producer": SpanKind.PRODUCER,
    "client": SpanKind.CLIENT,
    "consumer": SpanKind.CONSUMER,
    "internal": SpanKind.INTERNAL,
}


class Spans:
    """Makes spans of `names.traces` for one client."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        *,
        exception_detail: Literal["type", "message", "full"] = "type",
    ) -> None:
        self._tracer: Tracer = trace.get_tracer(traces.SCOPE, _version(), tracer_provider, schema_url=traces.SCHEMA_URL)
        self._may_record = False
        self._detail = exception_detail
        self.server: Attributes = {}
        """``server.address`` and ``server.port`` of Hatchet."""

    @property
    def may_record(self) -> bool:
        """False if no span can be recorded: the program has set no provider of tracers, or one that does nothing.

        A provider that is set later counts from then on.
        """
        if not self._may_record:
            self._may_record = not (
                isinstance(self._tracer, NoOpTracer)
                or (isinstance(self._tracer, ProxyTracer) and isinstance(trace.get_tracer_provider(), _WITHOUT_SPANS))
            )
        return self._may_record

    def pass_on(self, context: Context | None) -> Span:
        """What `start` gives where `may_record` is False: the parent, which travels on."""
        return _NO_TRACER.start_span("", context)

    def start(
        self,
        name: SpanName,
        subject: str = "",
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        context: Context | None = None,
        links: Sequence[Link] = (),
        start_time: int | None = None,
    ) -> Span:
        """Start a span without making it current. ``start_time`` is in nanoseconds since the epoch."""
        own = self.with_common(attributes or {})
        return self._tracer.start_span(
            name(subject), context, _KINDS[name.kind], own, links, start_time, record_exception=False
        )

    def with_common(self, attributes: Mapping[str, AttributeValue]) -> Attributes:
        """A copy with the attributes that every span has."""
        return {
            traces.MESSAGING_SYSTEM: traces.HATCHET_SYSTEM,
            traces.HATCHET_PAYLOAD: "",
            **self.server,
            **attributes,
        }

    def start_stage(self, name: str, attributes: Mapping[str, AttributeValue]) -> Span:
        """Start a span inside an attempt: as `start_process`, a child of the current span."""
        return self._tracer.start_span(name, None, SpanKind.INTERNAL, attributes, record_exception=False)

    def start_process(self, name: str, attributes: Attributes, context: Context | None, links: Sequence[Link]) -> Span:
        """Start the span of an attempt: what `start` does, with a name and attributes that are complete already."""
        return self._tracer.start_span(name, context, SpanKind.CONSUMER, attributes, links, record_exception=False)

    def fail(self, span: Span, error: BaseException | None, error_type: str = "") -> None:
        """Set status ERROR and ``error.type``: the given type, or the class of the exception as ``exception.type``."""
        kind = error_type or (_class_of(error) if error is not None else "")
        span.set_status(Status(StatusCode.ERROR, kind or None))
        if kind:
            span.set_attribute(traces.ERROR_TYPE, kind)

    def record(self, span: Span, error: BaseException, at_ns: int | None = None) -> None:
        """Add the ``exception`` event, in the detail of `Settings.exception_detail`; now, unless a time is given."""
        if span.is_recording():
            span.add_event(traces.EVENT_EXCEPTION, self.exception_attributes(error), at_ns)

    def exception_attributes(self, error: BaseException) -> Attributes:
        """The exception's class; its message and traceback if `Settings.exception_detail` allows them."""
        attributes: Attributes = {traces.EXCEPTION_TYPE: _class_of(error)}
        if self._detail != "type":
            attributes[traces.EXCEPTION_MESSAGE] = text_of(error)
        if self._detail == "full":
            attributes[traces.EXCEPTION_STACKTRACE] = clipped(
                "".join(traceback.format_exception(error)), _STACK_CHARACTERS
            )
        return attributes


def _class_of(error: BaseException) -> str:
    """The class with its module, except for Python's own, as OpenTelemetry's SDK names it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _version() -> str | None:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return None  # not installed, run from a checkout


@contextmanager
def suppressed() -> Generator[None]:
    """Suppress spans of other instrumentations: for polling, heartbeats and renewals."""
    token = otel_context.attach(
        otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the API has no public name for it
    )
    try:
        yield
    finally:
        otel_context.detach(token)


def hashed(resource: str, detail: Literal["hash", "raw"]) -> str:
    """A resource key as it appears in spans and logs: 16 hex digits, equal for equal keys, or as it is with ``raw``."""
    return resource if detail == "raw" else hashlib.blake2b(resource.encode(), digest_size=8).hexdigest()
