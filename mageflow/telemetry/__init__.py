"""Telemetry: the first and hardest customer of `mageflow.interceptors`.

Owns spans, metrics, log events, their propagation and their exposition. It refuses to fail a task, to wait for the
network, to carry payloads, and to configure anything global: only `configure`, called by the user, does that.

Names are resolved on first use (PEP 562), so that reading the dictionary in `names` loads no library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mageflow.telemetry import names

if TYPE_CHECKING:
    from mageflow.telemetry.configuration import configure
    from mageflow.telemetry.interceptor import Telemetry
    from mageflow.telemetry.logs import add_trace_context
    from mageflow.telemetry.spans import suppressed

__all__ = ["Telemetry", "add_trace_context", "configure", "names", "suppressed"]

_HOMES = {
    "Telemetry": "mageflow.telemetry.interceptor",
    "add_trace_context": "mageflow.telemetry.logs",
    "configure": "mageflow.telemetry.configuration",
    "suppressed": "mageflow.telemetry.spans",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
