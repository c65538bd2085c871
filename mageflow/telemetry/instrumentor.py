"""Detects whether Hatchet's own instrumentor is active.

``HatchetInstrumentor`` is a singleton whose constructor adds an exporter each time, and whose ``uninstrument()``
unwraps nothing (hatchet-sdk 1.43.1, ``opentelemetry/instrumentor.py``). So it must not be constructed to be detected.
It leaves traces: the context variable that it sets around an attempt, and its wrappers on ``AdminClient``. Modules are
looked up and not imported: a module that is not loaded is not active.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from mageflow.telemetry.names import traces

__all__ = ["PRIVATE_ATTRIBUTES", "consumer_span", "hide_exception_text", "unexcluded_attributes", "wraps_producer"]

PRIVATE_ATTRIBUTES = ("payload", "additional_metadata", "child_key", "child_workflow_key", "key")
"""``HATCHET_CLIENT_OPENTELEMETRY_EXCLUDED_ATTRIBUTES`` must list these to keep data of users out of traces."""


def consumer_span() -> Span | None:
    """The instrumentor's span of the running attempt; None if it made none."""
    variables = sys.modules.get("hatchet_sdk.runnables.contextvars")
    if variables is None:
        return None
    attributes = getattr(variables, "ctx_hatchet_span_attributes", None)  # since 1.30
    if (_instrumentor() if attributes is None else attributes.get()) is None:
        return None
    span = trace.get_current_span()
    return span if span.get_span_context().is_valid else None


def hide_exception_text(span: Span, attributes_of: Callable[[BaseException], Mapping[str, AttributeValue]]) -> None:
    """Have the instrumentor's span record an exception with these attributes only. Called when the attempt has ended.

    The instrumentor records the message, the traceback and a status with the message afterwards, and has no setting
    against it. Nothing else uses the span by then.
    """
    set_status = span.set_status

    def record_exception(exception: BaseException, *_: object, **__: object) -> None:
        if span.is_recording():
            span.add_event(traces.EVENT_EXCEPTION, attributes_of(exception))

    def set_error_type(status: Status | StatusCode, *_: object, **__: object) -> None:
        code = status.status_code if isinstance(status, Status) else status
        known = getattr(span, "status", None)
        set_status(Status(code, known.description if isinstance(known, Status) and code is StatusCode.ERROR else None))

    vars(span).update(record_exception=record_exception, set_status=set_error_type)


def _instrumentor() -> Any:
    admin = sys.modules.get("hatchet_sdk.clients.admin")
    wrapper = getattr(vars(admin.AdminClient).get("run_workflow"), "_self_wrapper", None) if admin else None
    owner = getattr(wrapper, "__self__", None)
    return owner if type(owner).__name__ == "HatchetInstrumentor" else None


def wraps_producer() -> bool:
    """Whether the instrumentor makes its own span around every enqueue."""
    return _instrumentor() is not None


def unexcluded_attributes() -> Iterable[str]:
    """The `PRIVATE_ATTRIBUTES` that an active instrumentor exports; empty if none is active."""
    instrumentor = _instrumentor()
    if instrumentor is None:
        return ()
    excluded = {str(getattr(each, "value", each)) for each in instrumentor.config.otel.excluded_attributes}
    return tuple(name for name in PRIVATE_ATTRIBUTES if name not in excluded)
