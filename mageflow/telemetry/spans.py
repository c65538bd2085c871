"""Spans: opening, failing and linking them, on the OpenTelemetry API alone.

Without an SDK every call here is a no-op of the API and trace context still travels. Every span carries an empty
``hatchet.payload``: the SDK's span processor copies the run's whole input onto every span inside a task, and leaves
a key alone that is already there.
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
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.util.types import AttributeValue

from mageflow.distribution import DISTRIBUTION
from mageflow.errors import clipped, text_of
from mageflow.telemetry.names import traces
from mageflow.telemetry.names.traces import SpanName

__all__ = ["Attributes", "Spans", "hashed", "suppressed"]

Attributes = dict[str, AttributeValue]

_STACK_CHARACTERS: Final = 32_768
"""An exporter that meets one attribute of megabytes drops the whole batch it is in."""

_KINDS: Final[Mapping[str, SpanKind]] = {
    "producer": SpanKind.PRODUCER,
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
        self._detail = exception_detail
        self.server: Attributes = {}
        """``server.address`` and ``server.port`` of Hatchet, once known."""

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
        own: Attributes = {
            traces.MESSAGING_SYSTEM: traces.HATCHET_SYSTEM,
            traces.HATCHET_PAYLOAD: "",
            **self.server,
        }
        if attributes:
            own.update(attributes)
        return self._tracer.start_span(
            name(subject), context, _KINDS[name.kind], own, links, start_time, record_exception=False
        )

    def fail(self, span: Span, error: BaseException | None, error_type: str = "") -> None:
        """Mark a span as failed, with as much of the exception as the settings let out."""
        kind = error_type or (type(error).__name__ if error is not None else "")
        span.set_status(Status(StatusCode.ERROR, kind or None))
        if kind:
            span.set_attribute(traces.ERROR_TYPE, kind)

    def record(self, span: Span, error: BaseException) -> None:
        """Add the ``exception`` event, with as much of it as the settings let out."""
        if span.is_recording():
            span.add_event(traces.EVENT_EXCEPTION, self.exception_attributes(error))

    def exception_attributes(self, error: BaseException) -> Attributes:
        """The exception's class, and its message and traceback only where the settings say so."""
        kind = type(error)
        attributes: Attributes = {traces.EXCEPTION_TYPE: f"{kind.__module__}.{kind.__qualname__}"}
        if self._detail != "type":
            attributes[traces.EXCEPTION_MESSAGE] = text_of(error)
        if self._detail == "full":
            attributes[traces.EXCEPTION_STACKTRACE] = clipped(
                "".join(traceback.format_exception(error)), _STACK_CHARACTERS
            )
        return attributes


def _version() -> str | None:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return None  # run from a checkout that is not installed


@contextmanager
def suppressed() -> Generator[None]:
    """Keep instrumentations of other libraries quiet: for polling, heartbeats and renewals nobody wants to see."""
    token = otel_context.attach(
        otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the API has no public name for it
    )
    try:
        yield
    finally:
        otel_context.detach(token)


def hashed(resource: str, detail: Literal["hash", "raw"]) -> str:
    """A resource key as spans and logs may carry it: 16 hex digits, equal for equal keys, unless ``raw``."""
    return resource if detail == "raw" else hashlib.blake2b(resource.encode(), digest_size=8).hexdigest()
