"""Calls about tasks: attempts, enqueues, staggers, timeout extensions. Facts only.

Also `current_attempt`, the context variable of the running attempt.
"""

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

from mageflow._frozen import frozen
from mageflow.interceptors.events import Event
from mageflow.types import ExtensionReason, Outcome, Phase, Pool, Source, Stage, UnservedReason

__all__ = [
    "Attempt",
    "EarlierAttempts",
    "Enqueue",
    "EnqueueItem",
    "ExtendTimeout",
    "OutcomeConfirmed",
    "RunUnserved",
    "Stagger",
    "TaskDeclared",
    "TaskInfo",
    "TimeoutExtension",
    "current_attempt",
]


@frozen
class TaskInfo:
    """A task, as it was declared."""

    name: str
    """The label in every signal: the declared name of a stand-alone task, ``workflow:task`` for a task of a workflow.
    Without Hatchet's namespace."""
    workflow_name: str
    """The workflow that is enqueued; the same as ``name`` for a stand-alone task."""
    execution_timeout_seconds: float
    retries: int
    """How many further attempts Hatchet makes after a failure."""
    pool: Pool = "default"
    """The slots it takes: ``durable`` for a durable task."""
    is_batch: bool = False
    is_async: bool = True
    """False for a synchronous function, which runs in a thread."""
    stagger_window_seconds: float | None = None
    """``wait_delta`` of ``stagger_execution``; None without it."""
    code_function_name: str = ""
    """Module and qualified name of the function."""
    default_priority: int = 1
    """Priority of a run that is given none."""


@frozen
class TaskDeclared(Event):
    """A task was declared, when its module is imported. A task that is declared again replaces the first one."""

    task: TaskInfo


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt of one run of a task, or of one batch, from its arrival on the worker until its outcome is stored.

    Live: `phase`, `elapsed_seconds` and `extended_seconds` are current and may be read from another thread.
    """

    task: TaskInfo
    workflow_run_id: str
    task_run_id: str
    worker_id: str
    attempt_number: int
    """From 1; one more than Hatchet's retry count."""
    max_attempts: int
    """One more than the task's retries. For a run of a signature, attempts that were lost with their worker are added:
    they have a number, but Hatchet does not count them as retries."""
    metadata: MutableMapping[str, object]
    """A copy of the run's additional metadata, as received. `mageflow.metadata` defines mageflow's own keys."""
    is_cancelled: Callable[[], bool]
    batch_size: int = 1
    """How many runs a batch has; 1 for anything else."""
    member_ids: tuple[str, ...] = ()
    """The task run ids of a batch; empty for anything else."""
    monotonic: Callable[[], float] = time.monotonic
    """Seconds of the clock that measures the attempt."""
    priority: int = 1
    """Hatchet's priority of the run: 1 low, 2 medium, 3 high."""

    traceparent: str = ""
    """An interceptor may set it on entry, as W3C text: the span of this attempt. The next step of its flow links to
    it."""
    signature_key: str = ""
    """Redis key of the signature that the run was started from; empty for a plain run."""
    signature_id: str = ""
    """Id of that signature, or of the flow it is a member of: the id within ``signature_key``."""
    has_copied_metadata: bool = False
    """Whether mageflow's keys in ``metadata`` were written for another run: then this is a plain run."""
    flow_kind: Literal["", "chain", "swarm"] = ""
    """Empty for a run outside of flows; then the other ``flow_`` fields are empty too."""
    flow_id: str = ""
    flow_name: str = ""
    """From the run's metadata; filled in by the signature load if an older release sent the run."""
    flow_step: int = 0
    """Number of the step or item, from 0."""
    flow_steps: int = 0
    """How many steps or items the flow has. Filled in by the signature load."""

    phase: Phase = "running"
    stage: Stage = "body"
    """The stage that the current second of the attempt counts for."""
    stage_seconds: dict[Stage, float] = field(default_factory=dict[Stage, float])
    """Seconds spent in each stage that has ended."""
    extended_seconds: float = 0.0
    """Seconds that Hatchet has granted on top of the execution timeout."""
    refused_extensions: int = 0
    """How many requests for more time Hatchet has not granted."""
    outcome: Outcome | None = None
    """Filled in; None for an invocation that is ``evicted``. For a batch: ``succeeded`` if all its runs did."""
    member_outcomes: tuple[Outcome, ...] = ()
    """Filled in for a batch: how each of its runs ended, in the order of `member_ids`."""
    member_errors: tuple[BaseException | None, ...] = ()
    """Filled in for a batch: why each of its runs failed, in the order of `member_ids`."""
    is_unconfirmed: bool = False
    """Filled in: ``outcome`` is what the worker expects. Hatchet is asked, and an `OutcomeConfirmed` follows."""
    asks_whether_first: bool = False
    """An interceptor may set it on entry of an attempt after the first: an `EarlierAttempts` follows."""
    corrections: list[tuple[Outcome, Outcome]] = field(default_factory=list[tuple[Outcome, Outcome]])
    """Filled in: what the worker expected and what Hatchet answered, for each run where the two differ."""
    exception: BaseException | None = None
    """Filled in for failed, retried and timed-out attempts, even where the wrap is left without an exception."""
    will_retry: bool = False
    """Filled in: whether Hatchet is expected to start another attempt."""
    skip_reason: str = ""
    """Filled in for ``skipped``: the status of the signature that did not admit the run."""
    creations: dict[str, int] = field(default_factory=dict[str, int])
    """How many signatures and flows of each content this attempt has created: gives a retry the same ids."""
    evicted: bool = False
    """Filled in: a durable invocation was suspended to wait and will be resumed. The attempt has not ended."""
    thread_running: bool = False
    """Whether a synchronous function still runs in its thread. True after the end: the thread is an orphan."""
    is_resumed: bool = False
    """Whether this is the resumption of a durable invocation: its queue wait has been recorded before."""
    started_at: float = 0.0
    """A reading of ``monotonic``."""
    _stage_since: float = 0.0
    _ended_at: float | None = None

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started_at = self._stage_since = self.monotonic()

    def enter(self, phase: Phase, stage: Stage) -> None:
        """Change phase and stage. The time since the last change is charged to the stage that is left."""
        self.charge()
        self.phase, self.stage = phase, stage

    def end(self) -> None:
        """Charge the last stage and stop the clock. Once."""
        if self._ended_at is None:
            self.charge()
            self._ended_at = self._stage_since

    def charge(self) -> None:
        """Charge the time since the last change to the current stage."""
        now = self.monotonic()
        self.stage_seconds[self.stage] = self.stage_seconds.get(self.stage, 0.0) + (now - self._stage_since)
        self._stage_since = now

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the attempt arrived on the worker, until it ended."""
        return (self.monotonic() if self._ended_at is None else self._ended_at) - self.started_at

    @property
    def timeout_seconds(self) -> float:
        """The execution timeout, with every extension granted so far."""
        return self.task.execution_timeout_seconds + self.extended_seconds

    @property
    def remaining_seconds(self) -> float:
        """What is left of the timeout; may be negative."""
        return self.timeout_seconds - self.elapsed_seconds


@frozen
class OutcomeConfirmed(Event):
    """The outcome of an attempt that was left with `Attempt.is_unconfirmed` is final now.

    Sent in the context of the attempt, within ten seconds of its end.
    """

    attempt: Attempt
    """Its ``outcome`` is Hatchet's. It is the worker's where Hatchet did not answer."""


@frozen
class EarlierAttempts(Event):
    """Whether an earlier attempt of a run has begun is known. Sent for attempts with `Attempt.asks_whether_first`.

    Workers can die between the assignment of a run and its start. Sent in the context of the attempt, within ten
    seconds of its arrival. The attempt may have ended.
    """

    attempt: Attempt
    have_begun: bool
    """False if Hatchet knows of no start. True as well where Hatchet did not answer, or a user has replayed the run."""


current_attempt: ContextVar[Attempt | None] = ContextVar("mageflow_current_attempt", default=None)
"""The attempt that this code runs in. Set for coroutines of the task, and in the thread of a synchronous task."""


@dataclass(slots=True, eq=False)
class EnqueueItem:
    """One run about to be handed to Hatchet."""

    task: str
    """Name of the task, of the workflow, or of the pushed event; with Hatchet's namespace where the SDK adds it."""
    metadata: dict[str, object]
    """A copy of the additional metadata; this is what is sent. The keys of `mageflow.metadata` are written, except
    trace context. An interceptor may add keys."""
    run_id: str = ""
    """Filled in, except for pushed events and schedules."""
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
    """Why the runs are sent."""
    due_at: float | None = None
    """Epoch seconds at which the runs are due, if that is later than now."""
    is_durable_spawn: bool = False
    """Whether a durable task spawns the runs. The SDK's instrumentor writes no trace context for them."""


@frozen
class RunUnserved(Event):
    """A run that this process sent has not started, and will not without a change. Published once per task."""

    task: str
    """Its task, as in `EnqueueItem.task`."""
    reason: UnservedReason
    advice: str
    """What is wrong and what to do, one sentence."""
    run_id: str = ""
    """The run that waits; empty if it was not sent."""


@dataclass(slots=True, eq=False)
class Stagger:
    """The random delay of one attempt, from the draw to the end of the sleep."""

    attempt: Attempt
    window_seconds: float
    """The longest possible delay."""
    delay_seconds: float
    """As drawn. `slept_seconds` is less if the extension was refused or the attempt was cancelled."""
    extension_failed: bool = False
    """Filled in."""
    slept_seconds: float = 0.0
    """Filled in."""


@dataclass(slots=True, eq=False)
class TimeoutExtension:
    """One request to Hatchet for more execution time."""

    attempt: Attempt
    reason: ExtensionReason
    requested_seconds: float
    granted_seconds: float = 0.0
    """Filled in; 0 if refused."""
    deadline: float | None = None
    """Filled in: epoch seconds of the new timeout; None where Hatchet's answer is not seen."""


ExtendTimeout = Callable[[Attempt, float, ExtensionReason], Awaitable[float]]
"""Asks Hatchet for more execution time, in seconds. Returns the seconds granted, 0 if refused."""
