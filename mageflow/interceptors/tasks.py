"""Calls about tasks: attempts, enqueues, staggers, extensions.

This file owns the facts and the variable that carries the running attempt. It refuses to compose interceptors.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

from mageflow.interceptors.events import Event
from mageflow.types import ExtensionReason, Outcome, Phase, Pool, Source, Stage

__all__ = [
    "Attempt",
    "Enqueue",
    "EnqueueItem",
    "ExtendTimeout",
    "Stagger",
    "TaskDeclared",
    "TaskInfo",
    "TimeoutExtension",
    "current_attempt",
]


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What is known of a task when it is declared.

    ``name`` is the label in every signal: the declared name for a stand-alone task, ``workflow:task`` for a
    task of a workflow; never namespaced.
    """

    name: str
    workflow_name: str
    execution_timeout_seconds: float
    retries: int
    pool: Pool = "default"
    is_batch: bool = False
    is_async: bool = True
    stagger_window_seconds: float | None = None
    code_function_name: str = ""


@dataclass(frozen=True, slots=True)
class TaskDeclared(Event):
    """A task was declared, when its module is imported. A task that is declared again replaces the first one."""

    task: TaskInfo


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt of one run of a task (or of one batch), live from wrapper entry to wrapper exit.

    The same object is what gauges look at while it runs: `phase`, `elapsed_seconds` and `extended_seconds`
    are current at any moment and may be read from another thread.
    """

    task: TaskInfo
    workflow_run_id: str
    task_run_id: str
    worker_id: str
    attempt_number: int
    """From 1, one more than Hatchet's retry count."""
    max_attempts: int
    """One more than the task's retries. For a run of a signature, attempts lost with their worker come on top: they
    have a number, and Hatchet does not count them against the retries."""
    metadata: MutableMapping[str, object]
    """Hatchet's additional metadata of the run, as received; a copy, not the live object."""
    is_cancelled: Callable[[], bool]
    batch_size: int = 1
    monotonic: Callable[[], float] = time.monotonic
    priority: int = 1
    """Hatchet's priority of the run: 1 low, 2 medium, 3 high."""

    traceparent: str = ""
    """An interceptor may set it on entry, as W3C text: the span of this attempt. The next step of its flow links to
    it."""
    signature_key: str = ""
    """Redis key of the signature the run was started from; empty for a plain run."""
    signature_id: str = ""
    """Id of that signature, or of the flow it is a member of: the id within ``signature_key``."""
    flow_kind: Literal["", "chain", "swarm"] = ""
    flow_id: str = ""
    flow_name: str = ""
    flow_step: int = 0
    flow_steps: int = 0

    phase: Phase = "running"
    stage: Stage = "body"
    stage_seconds: dict[Stage, float] = field(default_factory=dict[Stage, float])
    extended_seconds: float = 0.0
    """Seconds the engine granted on top of the task's execution timeout."""
    outcome: Outcome | None = None
    """Filled in."""
    exception: BaseException | None = None
    """Filled in for failed, retried and timed_out attempts, also where the block is left without it."""
    will_retry: bool = False
    """Filled in: whether the engine is expected to start another attempt."""
    skip_reason: str = ""
    """Filled in for ``skipped``: the signature's status."""
    creations: dict[str, int] = field(default_factory=dict[str, int])
    """How many signatures and flows of each content this attempt has created, so that a retry finds them again."""
    evicted: bool = False
    """Filled in: a durable invocation was put aside to wait and will go on later; this is no end of an attempt."""
    thread_running: bool = False
    """Whether a synchronous body is still running in its thread; true after the end means an orphaned thread."""
    is_resumed: bool = False
    """Whether a durable invocation goes on after it was put aside: its time in the queue was told before."""
    started_at: float = 0.0
    _stage_since: float = 0.0

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started_at = self._stage_since = self.monotonic()

    def enter(self, phase: Phase, stage: Stage) -> None:
        """Move on to another phase; the time since the last move is charged to the stage that is left."""
        self.charge()
        self.phase, self.stage = phase, stage

    def charge(self) -> None:
        """Charge the time since the last move to the current stage."""
        now = self.monotonic()
        self.stage_seconds[self.stage] = self.stage_seconds.get(self.stage, 0.0) + (now - self._stage_since)
        self._stage_since = now

    @property
    def elapsed_seconds(self) -> float:
        """Wall time since the wrapper was entered."""
        return self.monotonic() - self.started_at

    @property
    def timeout_seconds(self) -> float:
        """The execution timeout including every extension granted so far."""
        return self.task.execution_timeout_seconds + self.extended_seconds

    @property
    def remaining_seconds(self) -> float:
        """How much of the timeout is left; may be negative."""
        return self.timeout_seconds - self.elapsed_seconds


current_attempt: ContextVar[Attempt | None] = ContextVar("mageflow_current_attempt", default=None)
"""The attempt this code runs in: set for the task's coroutine, and in the thread of a synchronous task."""


@dataclass(slots=True, eq=False)
class EnqueueItem:
    """One run about to be handed to Hatchet.

    ``metadata`` is a copy, and is what will be sent. The keys of `mageflow.metadata` are written, except trace context.
    An interceptor may add keys.
    """

    task: str
    metadata: dict[str, object]
    run_id: str = ""
    """Filled in."""
    signature_id: str = ""
    """Id of the signature it is started from, or of the flow it is a member of; empty for a plain run."""
    traceparent: str = ""
    """The span that is to be its parent, the start of its flow; empty: the current span."""


@dataclass(slots=True, eq=False)
class Enqueue:
    """One call that hands runs to Hatchet, made by the program, by a signature or by a flow."""

    operation: Literal["run", "run_many", "schedule", "push_event"]
    items: Sequence[EnqueueItem]
    source: Source = "direct"
    due_at: float | None = None
    """Epoch seconds at which the runs are due, when that is later than now."""
    is_durable_spawn: bool = False
    """Whether a durable task spawns these; the SDK's instrumentor injects no trace context then."""


@dataclass(slots=True, eq=False)
class Stagger:
    """The random delay of one attempt, from the draw to the end of the sleep."""

    attempt: Attempt
    window_seconds: float
    delay_seconds: float
    """As drawn; `slept_seconds` may be less when the extension was refused or the attempt was cancelled."""
    extension_failed: bool = False
    """Filled in."""
    slept_seconds: float = 0.0
    """Filled in."""


@dataclass(slots=True, eq=False)
class TimeoutExtension:
    """One request to the engine for more execution time."""

    attempt: Attempt
    reason: ExtensionReason
    requested_seconds: float
    granted_seconds: float = 0.0
    """Filled in; 0 when refused."""
    deadline: float | None = None
    """Filled in: epoch seconds, as the engine answered."""


ExtendTimeout = Callable[[Attempt, float, ExtensionReason], Awaitable[float]]
"""Asks the engine for more execution time, in seconds. Returns the seconds granted, 0 when refused."""
