"""How trace context, stamps and reasons travel with a run, in Hatchet's additional metadata.

Everything is a flat string. The SDK merges a running task's metadata into every child it spawns, so every enqueue
writes all of our keys, empty where unused, and nothing is inherited by accident.

Two rules keep the consumer simple. A run belongs under the ``traceparent`` it carries. And where ``mageflow_link``
points to that same span, the run is one of many: it starts its own trace and links instead, as runs of a source in
``trace_link_sources`` do (a schedule that fires for a year is no trace).
"""

import time
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mageflow.interceptors import Enqueue, EnqueueItem, current_attempt
from mageflow.telemetry.names import traces

__all__ = [
    "Arrival",
    "arrive",
    "context_of",
    "inject",
    "queue_wait_seconds",
    "span_context_of",
    "stamp",
    "traceparent_of",
]

_TRACE_CONTEXT = TraceContextTextMapPropagator()
_BAGGAGE = W3CBaggagePropagator()


def traceparent_of(context: SpanContext) -> str:
    """A span context as W3C text, or an empty string when there is none."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def context_of(traceparent: str, tracestate: str = "") -> Context:
    """A context whose current span is the remote one; an empty context when the text is no ``traceparent``."""
    carrier = {traces.KEY_TRACEPARENT: traceparent}
    if tracestate:
        carrier[traces.KEY_TRACESTATE] = tracestate
    return _TRACE_CONTEXT.extract(carrier, Context())


def span_context_of(traceparent: str) -> SpanContext | None:
    """The remote span, or None when the text is no ``traceparent``."""
    if not traceparent:
        return None
    found = trace.get_current_span(context_of(traceparent)).get_span_context()
    return found if found.is_valid else None


@dataclass(slots=True)
class Arrival:
    """What a run's metadata says about where its attempt belongs."""

    parent: Context | None
    """None where nothing was carried: the current context decides."""
    links: list[Link] = field(default_factory=list[Link])
    is_new_root: bool = False
    is_external: bool = False
    """The parent was written by the SDK's instrumentor, an ancestor or the engine."""


def arrive(metadata: Mapping[str, object], *, link_sources: Collection[str], has_baggage: bool = False) -> Arrival:
    """Decide parent and links of an attempt from the metadata of its run."""
    traceparent = _text(metadata, traces.KEY_TRACEPARENT)
    link = _text(metadata, traces.KEY_LINK)
    arrival = Arrival(None)
    if link and link != traceparent and (linked := span_context_of(link)) is not None:
        arrival.links.append(Link(linked))
    if not traceparent:
        return arrival
    parent = context_of(traceparent, _text(metadata, traces.KEY_TRACESTATE))
    carried = trace.get_current_span(parent).get_span_context()
    if not carried.is_valid:
        return arrival
    arrival.is_external = not _text(metadata, traces.KEY_ENQUEUED_AT)
    if link == traceparent or _text(metadata, traces.KEY_SOURCE) in link_sources:
        arrival.links.append(Link(carried))
        arrival.is_new_root = True
        parent = Context()
    if has_baggage and (baggage := _text(metadata, traces.KEY_BAGGAGE)):
        parent = _BAGGAGE.extract({traces.KEY_BAGGAGE: baggage}, parent)
    arrival.parent = parent
    return arrival


def queue_wait_seconds(metadata: Mapping[str, object], now: float) -> float | None:
    """Seconds from the enqueue stamp, or from the due time where that is later; None when we did not enqueue it.

    May be negative: hosts' clocks differ.
    """
    stamps = [_text(metadata, key) for key in (traces.KEY_ENQUEUED_AT, traces.KEY_DUE_AT)]
    if not stamps[0]:
        return None
    try:
        return now - max(float(each) for each in stamps if each)
    except ValueError:
        return None


def stamp(item: EnqueueItem, call: Enqueue, *, now: float | None = None, has_queue_source: bool = False) -> None:
    """Write all of our keys into the metadata of a run about to be enqueued.

    A registration for a cron gets no stamp and no link: its metadata is copied to every run it will ever start.
    """
    metadata = item.metadata
    is_static = call.source == "cron"
    metadata[traces.KEY_ENQUEUED_AT] = "" if is_static else f"{time.time() if now is None else now:.6f}"
    metadata[traces.KEY_DUE_AT] = "" if is_static or call.due_at is None else f"{call.due_at:.6f}"
    metadata[traces.KEY_SOURCE] = call.source
    if has_queue_source:
        metadata[traces.KEY_QUEUE_SOURCE] = call.source
    metadata[traces.KEY_FLOW] = item.flow or call.flow
    metadata[traces.KEY_LINK] = "" if is_static else item.link or call.link
    metadata[traces.KEY_SIGNATURE] = (
        item.signature_id or call.signature_id or str(metadata.get(traces.KEY_SIGNATURE) or "")
    )
    metadata.setdefault(traces.KEY_DEDUPE, "")


def inject(metadata: MutableMapping[str, object], context: Context, *, has_baggage: bool) -> None:
    """Write the context's current span, and its baggage where that may travel, into a run's metadata."""
    span = trace.get_current_span(context).get_span_context()
    if not span.is_valid:
        return
    metadata[traces.KEY_TRACEPARENT] = traceparent_of(span)
    # An ancestor's would be merged in by the SDK where this run has none of its own.
    inherited: Mapping[str, object] = attempt.metadata if (attempt := current_attempt.get()) is not None else {}
    state = span.trace_state.to_header()
    if state or traces.KEY_TRACESTATE in inherited:
        metadata[traces.KEY_TRACESTATE] = state
    carrier: dict[str, str] = {}
    if has_baggage:
        _BAGGAGE.inject(carrier, context)
    if carrier or traces.KEY_BAGGAGE in inherited:
        metadata[traces.KEY_BAGGAGE] = carrier.get(traces.KEY_BAGGAGE, "")


def _text(metadata: Mapping[str, object], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""
