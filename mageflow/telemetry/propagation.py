"""How trace context travels with a run, in the metadata of `mageflow.metadata`.

An attempt's span is a child of the run's ``traceparent``. Two kinds of runs start their own trace instead, with a link
to it: runs whose ``mageflow_link`` equals their ``traceparent``, and runs from `Settings.trace_link_sources` (else a
schedule that fires for a year would be one trace).
"""

import re
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mageflow.interceptors import current_attempt
from mageflow.metadata import (
    KEY_BAGGAGE,
    KEY_DUE_AT,
    KEY_ENQUEUED_AT,
    KEY_LINK,
    KEY_SOURCE,
    KEY_TRACEPARENT,
    KEY_TRACESTATE,
)

__all__ = [
    "Arrival",
    "arrive",
    "context_of",
    "inject",
    "queue_wait_seconds",
    "source_of",
    "span_context_of",
    "traceparent_of",
]

_TRACE_CONTEXT = TraceContextTextMapPropagator()
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
"""What every sender writes. Any other text is left to the general propagator."""

_BAGGAGE = W3CBaggagePropagator()

_KEY_CRON = "hatchet__cron_expression"
_KEY_CRON_DUE = "hatchet__cron_scheduled_at"
"""Hatchet writes both on the runs of crons, those of ``on_crons`` too."""


def traceparent_of(context: SpanContext) -> str:
    """A span context as W3C text; an empty string if it is not valid."""
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def context_of(traceparent: str, tracestate: str = "") -> Context:
    """A context whose current span is the remote one; an empty context if the text is not a ``traceparent``."""
    found = span_context_of(traceparent, tracestate)
    return Context() if found is None else _context_with(found)


def span_context_of(traceparent: str, tracestate: str = "") -> SpanContext | None:
    """The remote span; None if the text is not a ``traceparent``."""
    if not traceparent:
        return None
    # The general propagator takes 4 µs, and an attempt begins with this.
    if not tracestate and (parts := _TRACEPARENT.fullmatch(traceparent)) is not None:
        trace_id, span_id, flags = parts.groups()
        found = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
        return found if found.is_valid else None
    carrier = {KEY_TRACEPARENT: traceparent}
    if tracestate:
        carrier[KEY_TRACESTATE] = tracestate
    found = trace.get_current_span(_TRACE_CONTEXT.extract(carrier, Context())).get_span_context()
    return found if found.is_valid else None


_NO_CONTEXT: Final = Context()


def _context_with(span: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(span), _NO_CONTEXT)


@dataclass(slots=True)
class Arrival:
    """Where an attempt's span belongs, according to the metadata of its run."""

    parent: Context | None
    """None if the metadata has no trace context: then the current context is the parent."""
    sender: Span | None = None
    """The current span of ``parent``; None if it has none."""
    links: list[Link] = field(default_factory=list[Link])
    is_new_root: bool = False
    is_external: bool = False
    """True if the parent was written by the SDK's instrumentor, an ancestor or the engine."""


def arrive(metadata: Mapping[str, object], *, link_sources: Collection[str], has_baggage: bool = False) -> Arrival:
    """Decide the parent and the links of an attempt's span."""
    traceparent = _text(metadata, KEY_TRACEPARENT)
    link = _text(metadata, KEY_LINK)
    arrival = Arrival(None)
    if link and link != traceparent and (linked := span_context_of(link)) is not None:
        arrival.links.append(Link(linked))
    if not traceparent:
        return arrival
    carried = span_context_of(traceparent, _text(metadata, KEY_TRACESTATE))
    if carried is None:
        return arrival
    arrival.is_external = not _text(metadata, KEY_ENQUEUED_AT)
    if _is_cron(metadata):
        # Nothing sent the run: the engine has made up the parent, and no one records that span.
        arrival.parent, arrival.is_new_root = Context(), True
        return arrival
    if link == traceparent or _text(metadata, KEY_SOURCE) in link_sources:
        arrival.links.append(Link(carried))
        arrival.is_new_root = True
        parent = Context()
    else:
        arrival.sender = NonRecordingSpan(carried)
        parent = trace.set_span_in_context(arrival.sender, _NO_CONTEXT)
    if has_baggage and (baggage := _text(metadata, KEY_BAGGAGE)):
        parent = _BAGGAGE.extract({KEY_BAGGAGE: baggage}, parent)
    arrival.parent = parent
    return arrival


def source_of(metadata: Mapping[str, object]) -> str:
    """What started the run; empty for a run of another producer."""
    return _text(metadata, KEY_SOURCE) or ("cron" if _is_cron(metadata) else "")


def queue_wait_seconds(metadata: Mapping[str, object], now: float) -> float | None:
    """Seconds since the run was sent, or since its due time if that is later; None for a run of another producer.

    For the run of a cron: since its due time, by Hatchet's clock.

    Negative if the clock of this host is behind the sender's.
    """
    enqueued, due = _text(metadata, KEY_ENQUEUED_AT), _text(metadata, KEY_DUE_AT)
    try:
        if enqueued:
            return now - (max(float(enqueued), float(due)) if due else float(enqueued))
        if _is_cron(metadata):
            due = _text(metadata, _KEY_CRON_DUE)
            return now - datetime.fromisoformat(due).timestamp() if due else None
        return None
    except ValueError:
        return None


def inject(metadata: MutableMapping[str, object], context: Context, *, has_baggage: bool) -> None:
    """Write the context's current span into a run's metadata, and its baggage if that may travel."""
    span = trace.get_current_span(context).get_span_context()
    if not span.is_valid:
        return
    metadata[KEY_TRACEPARENT] = traceparent_of(span)
    # The SDK would merge the running attempt's values in where this run has none.
    inherited: Mapping[str, object] = attempt.metadata if (attempt := current_attempt.get()) is not None else {}
    state = span.trace_state.to_header()
    if state or KEY_TRACESTATE in inherited:
        metadata[KEY_TRACESTATE] = state
    carrier: dict[str, str] = {}
    if has_baggage:
        _BAGGAGE.inject(carrier, context)
    if carrier or KEY_BAGGAGE in inherited:
        metadata[KEY_BAGGAGE] = carrier.get(KEY_BAGGAGE, "")


def _is_cron(metadata: Mapping[str, object]) -> bool:
    # A run that is sent from the run of a cron inherits the keys, but it is stamped.
    return bool(_text(metadata, _KEY_CRON)) and not _text(metadata, KEY_ENQUEUED_AT)


def _text(metadata: Mapping[str, object], key: str) -> str:
    value = metadata.get(key)
    return value if isinstance(value, str) else ""
