"""What the scopes of observed calls share: the recorder, the call, and a span that is current inside."""

from contextvars import Token
from typing import Generic, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

from mageflow.telemetry.recorder import Recorder

__all__ = ["SpanScope"]

Call = TypeVar("Call")


class SpanScope(Generic[Call]):
    """The state of a scope with one span. The scope itself starts and ends the span, each inside a guard."""

    __slots__ = ("_call", "_recorder", "_span", "_token")

    def __init__(self, recorder: Recorder, call: Call) -> None:
        self._recorder = recorder
        self._call = call
        self._span: Span | None = None
        self._token: Token[Context] | None = None

    def _open(self, span: Span) -> None:
        """Make a span current, until `_leave`."""
        self._span = span
        self._token = otel_context.attach(trace.set_span_in_context(span))

    def _leave(self, site: str) -> None:
        """Make current again what was so before. Never raises."""
        if self._token is not None:
            with self._recorder.guards.context.catching(site):
                otel_context.detach(self._token)
