"""The dictionary: the name of everything that mageflow records.

`metrics` has the metric families with labels, closed values and buckets; `traces` the spans, span attributes and span
events; `events` the log events. This room imports the standard library only, so that dashboards, rules, tests and
programs can use it.
"""

from mageflow.telemetry.names import events, metrics, traces
from mageflow.telemetry.names.events import EVENTS, LogEvent
from mageflow.telemetry.names.metrics import METRICS, Metric
from mageflow.telemetry.names.traces import ATTRIBUTES, SPAN_EVENTS, SPANS, SpanName

__all__ = [
    "ATTRIBUTES",
    "EVENTS",
    "METRICS",
    "SPANS",
    "SPAN_EVENTS",
    "LogEvent",
    "Metric",
    "SpanName",
    "events",
    "metrics",
    "traces",
]
