"""Whether Hatchet's own instrumentor is at work beside us, seen from outside.

``HatchetInstrumentor`` is a singleton whose constructor adds an exporter each time, and whose ``uninstrument()``
unwraps nothing (hatchet-sdk 1.43.1, ``opentelemetry/instrumentor.py``): it must never be constructed to be detected.
So we look at its footprints: the context variable it sets around an attempt, and the wrappers it put on
``AdminClient``. Modules are looked up and never imported: what is not loaded is not at work.
"""

import sys
from collections.abc import Iterable
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span

__all__ = ["PRIVATE_ATTRIBUTES", "consumer_span", "unexcluded_attributes", "wraps_producer"]

PRIVATE_ATTRIBUTES = ("payload", "additional_metadata")
"""What ``HATCHET_CLIENT_OPENTELEMETRY_EXCLUDED_ATTRIBUTES`` must list for inputs to stay out of traces."""


def consumer_span() -> Span | None:
    """The instrumentor's span of the attempt this code runs in, or None."""
    variables = sys.modules.get("hatchet_sdk.runnables.contextvars")
    if variables is None or variables.ctx_hatchet_span_attributes.get() is None:
        return None
    span = trace.get_current_span()
    return span if span.get_span_context().is_valid else None


def _instrumentor() -> Any:
    admin = sys.modules.get("hatchet_sdk.clients.admin")
    wrapper = getattr(vars(admin.AdminClient).get("run_workflow"), "_self_wrapper", None) if admin else None
    owner = getattr(wrapper, "__self__", None)
    return owner if type(owner).__name__ == "HatchetInstrumentor" else None


def wraps_producer() -> bool:
    """Whether the instrumentor makes its own span around every enqueue."""
    return _instrumentor() is not None


def unexcluded_attributes() -> Iterable[str]:
    """Which of `PRIVATE_ATTRIBUTES` an active instrumentor exports; nothing when none is active."""
    instrumentor = _instrumentor()
    if instrumentor is None:
        return ()
    excluded = {str(getattr(each, "value", each)) for each in instrumentor.config.otel.excluded_attributes}
    return tuple(name for name in PRIVATE_ATTRIBUTES if name not in excluded)
