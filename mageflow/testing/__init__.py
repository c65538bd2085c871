"""Tests of programs that use mageflow: a real engine, a real Valkey server, real workers, and their telemetry.

`mageflow.testing.plugin` has the pytest fixtures; pytest finds it through its entry point. The objects behind the
fixtures are public too: `capture_spans`, `capture_logs`, `samples`, `StartedRuns`, `Leftovers`, `control_stagger`,
`EmbeddedValkey`, `WorkerProcess` and `running_worker`. There is no fake Redis and no fake engine here: the real ones
start in less than a second.

Names are imported on first use (PEP 562), so that the plugin costs nothing in a test run that does not use it.
"""

from typing import TYPE_CHECKING

from mageflow._lazy import lazy_names

if TYPE_CHECKING:
    from mageflow.testing.capture import (
        LogCapture,
        Samples,
        SpanCapture,
        capture_logs,
        capture_spans,
        samples,
    )
    from mageflow.testing.runs import Leftovers, StartedRun, StartedRuns
    from mageflow.testing.stagger import StaggerControl, control_stagger
    from mageflow.testing.valkey import EmbeddedValkey
    from mageflow.testing.workers import RunningWorker, WorkerProcess, running_worker

__all__ = [
    "EmbeddedValkey",
    "Leftovers",
    "LogCapture",
    "RunningWorker",
    "Samples",
    "SpanCapture",
    "StaggerControl",
    "StartedRun",
    "StartedRuns",
    "WorkerProcess",
    "capture_logs",
    "capture_spans",
    "control_stagger",
    "running_worker",
    "samples",
]

_HOMES = {
    "mageflow.testing.valkey": ("EmbeddedValkey",),
    "mageflow.testing.runs": ("Leftovers", "StartedRun", "StartedRuns"),
    "mageflow.testing.capture": ("LogCapture", "Samples", "SpanCapture", "capture_logs", "capture_spans", "samples"),
    "mageflow.testing.workers": ("RunningWorker", "WorkerProcess", "running_worker"),
    "mageflow.testing.stagger": ("StaggerControl", "control_stagger"),
}

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
