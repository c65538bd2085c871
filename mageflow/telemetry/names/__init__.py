"""The one dictionary: what every signal of mageflow is called.

`metrics` has the metric families with their labels, closed values and buckets; `traces` the spans, attributes, span
events and metadata keys; `events` the log events. This room imports nothing of mageflow and nothing but the standard
library, so that anything may import it: instruments, dashboards, rules, tests and users' own code.
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
