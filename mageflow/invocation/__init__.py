"""From a decorated function to a running attempt.

`decorators` record what a function asks for, `binding` decides once what it gets, `runner` goes around each attempt.
The room knows nothing of the SDK: what it needs of it is the port in `host`; what it needs of stored signatures is the
port in `signed`.
"""

from mageflow.invocation.binding import Binding, alternatives, bind, type_hints
from mageflow.invocation.decorators import (
    BodyLock,
    Marks,
    exclusive,
    marks_of,
    record,
    stagger_execution,
    with_ctx,
    with_signature,
)
from mageflow.invocation.extension import TimeoutExtender
from mageflow.invocation.host import Host, TaskContext
from mageflow.invocation.outcome import classify
from mageflow.invocation.runner import InThread, RunHooks, RunnerServices, TaskRunner
from mageflow.invocation.signed import Replay, SignedRuns, Skip, StoredRuns
from mageflow.invocation.stagger import stagger

__all__ = [
    "Binding",
    "BodyLock",
    "Host",
    "InThread",
    "Marks",
    "Replay",
    "RunHooks",
    "RunnerServices",
    "SignedRuns",
    "Skip",
    "StoredRuns",
    "TaskContext",
    "TaskRunner",
    "TimeoutExtender",
    "alternatives",
    "bind",
    "classify",
    "exclusive",
    "marks_of",
    "record",
    "stagger",
    "stagger_execution",
    "type_hints",
    "with_ctx",
    "with_signature",
]
