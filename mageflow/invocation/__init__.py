"""From a decorated function to a running attempt.

`decorators` record marks, `binding` decides once which arguments a function gets, `runner` runs around each attempt.
Nothing here imports the SDK: `context` is the port for what one attempt needs of it.
"""

from mageflow.invocation.around import RunHooks, RunnerServices
from mageflow.invocation.attempt_state import AttemptState
from mageflow.invocation.binding import Binding, alternatives, bind, type_hints
from mageflow.invocation.confirmation import EndingOf, OutcomeConfirmations
from mageflow.invocation.context import STATE_KEYWORD, AttemptContext
from mageflow.invocation.decorators import (
    GENERATOR,
    BodyLock,
    Marks,
    exclusive,
    is_generator,
    marks_of,
    record,
    stagger_execution,
    with_ctx,
    with_signature,
)
from mageflow.invocation.extension import TimeoutExtender
from mageflow.invocation.outcome import classify
from mageflow.invocation.runner import TaskRunner
from mageflow.invocation.shutdown import GivenBackError, Shutdown
from mageflow.invocation.signed import Replay, SignedRuns, Skip
from mageflow.invocation.stagger import stagger

__all__ = [
    "GENERATOR",
    "STATE_KEYWORD",
    "AttemptContext",
    "AttemptState",
    "Binding",
    "BodyLock",
    "EndingOf",
    "GivenBackError",
    "Marks",
    "OutcomeConfirmations",
    "Replay",
    "RunHooks",
    "RunnerServices",
    "Shutdown",
    "SignedRuns",
    "Skip",
    "TaskRunner",
    "TimeoutExtender",
    "alternatives",
    "bind",
    "classify",
    "exclusive",
    "is_generator",
    "marks_of",
    "record",
    "stagger",
    "stagger_execution",
    "type_hints",
    "with_ctx",
    "with_signature",
]
