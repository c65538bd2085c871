"""Telemetry: spans, metrics and log events, their propagation and the metrics endpoint. An interceptor.

It refuses to fail a task, to wait for the network, to carry payloads, and to configure anything global; only
`configure`, called by the program, does that. ``docs/telemetry.md`` has the rules and the reasons.

Names are resolved on first use (PEP 562), so that an import of `names` loads no library.
"""

from typing import TYPE_CHECKING

from mageflow._lazy import lazy_names
from mageflow.telemetry import names

if TYPE_CHECKING:
    from mageflow.telemetry.configuration import configure
    from mageflow.telemetry.interceptor import Telemetry
    from mageflow.telemetry.records import add_trace_context
    from mageflow.telemetry.spans import suppressed

__all__ = ["Telemetry", "add_trace_context", "configure", "names", "suppressed"]

_HOMES = {
    "mageflow.telemetry.interceptor": ("Telemetry",),
    "mageflow.telemetry.records": ("add_trace_context",),
    "mageflow.telemetry.configuration": ("configure",),
    "mageflow.telemetry.spans": ("suppressed",),
}

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
