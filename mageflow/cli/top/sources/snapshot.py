"""The typed snapshots that the live view draws. Facts at one instant; no text for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mageflow.locks import LocksReport

__all__ = [
    "BrokenDeadlock",
    "CycleEdge",
    "FlowNode",
    "MemberNode",
    "RunAttempt",
    "Sleeper",
    "Snapshot",
    "TaskRow",
    "WorkerRow",
]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One process that serves ``/metrics``."""

    url: str
    name: str
    """Empty for a process that only sends work."""
    slots: float
    slots_used: float
    is_local: bool
    """Whether it answered ``/debug/runs``, which has single runs. It does so on the same host only."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task, over all workers that were read."""

    task: str
    in_flight: Mapping[str, int]
    """Attempts that run now, by phase. A phase without any is absent."""
    outcomes: Mapping[str, int]
    """Ended attempts by outcome, since the workers started."""
    per_second: float | None
    """Ended attempts a second in the window; None before the second reading."""
    unsuccessful_per_second: float | None
    """Of these, failed, retried and timed-out ones."""
    duration_p95: float | None
    """Seconds without stagger. None if no attempt has ended."""
    queue_wait_p95: float | None
    """Seconds. None if no first attempt has started."""
    is_recent: bool
    """Whether the two percentiles are those of the window. False: of all attempts since the workers started."""
    waiting: int | None = None
    """Runs in Hatchet that no worker has started, over the whole tenant. None where it is not known."""
    oldest_waiting_s: float | None = None
    """Age of the oldest of them; 0 if none waits."""

    @property
    def ended(self) -> int:
        """Attempts that have ended, in any way."""
        return sum(self.outcomes.values())

    @property
    def running(self) -> int:
        """Attempts that have not ended, in any phase."""
        return sum(self.in_flight.values())


@dataclass(frozen=True, slots=True)
class Sleeper:
    """An attempt that sleeps in its stagger window."""

    task: str
    run_id: str
    window_s: float
    delay_s: float
    slept_s: float


@dataclass(frozen=True, slots=True)
class CycleEdge:
    """A run of a deadlock, and the lock it waited for."""

    task: str
    run_id: str
    lock: str
    resource: str


@dataclass(frozen=True, slots=True)
class BrokenDeadlock:
    """A deadlock that a worker found and broke."""

    at: float
    """Epoch seconds."""
    victim_task: str
    victim_run_id: str
    resolution: str
    policy: str
    cycle: tuple[CycleEdge, ...]


@dataclass(frozen=True, slots=True)
class RunAttempt:
    """One attempt that runs, or that ended lately."""

    task: str
    run_id: str
    task_run_id: str
    attempt: int
    max_attempts: int
    worker: str
    trace_id: str
    flow: str
    flow_kind: str
    flow_id: str
    flow_step: int
    queue_wait_s: float | None
    started_at: float
    elapsed_s: float
    stages: Mapping[str, float]
    phase: str
    """Of an attempt that runs; empty when it has ended."""
    outcome: str
    """Empty while it runs, and for a durable invocation that was suspended."""
    exception: str
    message: str
    will_retry: bool

    @property
    def ended_at(self) -> float:
        """Epoch seconds; the time of the reading for an attempt that runs."""
        return self.started_at + self.elapsed_s


@dataclass(frozen=True, slots=True)
class MemberNode:
    """A step, an item or a callback of a flow."""

    path: str
    role: str
    task: str
    """Empty for a nested flow."""
    status: str
    stage: str
    """The stored word, finer than the status; empty when it was not reached."""
    attempts: int
    run_id: str
    """Of its last run; empty before it."""
    changed_at: float | None
    """Epoch seconds."""
    error: str
    """Of its last failed attempt."""
    nested: "FlowNode | None"
    """The flow that the member is; None for a task, and below the depth that is read."""


@dataclass(frozen=True, slots=True)
class FlowNode:
    """A chain or a swarm."""

    key: str
    kind: str
    name: str
    status: str
    started_at: float | None
    """Epoch seconds."""
    seconds: float | None
    """From its start to its end, or until now."""
    done: int
    """Steps that succeeded; of a swarm, items that ended."""
    total: int
    error: str
    members: tuple[MemberNode, ...]
    """The first of them, each followed by its callbacks."""
    members_total: int
    """Steps or items, shown or not."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the live view shows, at one instant."""

    at: float
    """Epoch seconds."""
    window_s: float
    """How far back the rates look."""
    workers: tuple[WorkerRow, ...] = ()
    tasks: tuple[TaskRow, ...] = ()
    """By name."""
    sleepers: tuple[Sleeper, ...] = ()
    """The one that wakes next comes first."""
    stagger_windows: Mapping[str, float] = field(default_factory=dict[str, float])
    """Configured stagger window in seconds, by task."""
    locks: LocksReport | None = None
    """None without Redis."""
    deadlocks: tuple[BrokenDeadlock, ...] = ()
    """The latest first."""
    deadlocks_total: int = 0
    """Since the workers started."""
    attempts: tuple[RunAttempt, ...] = ()
    """Running ones and those that ended lately, by start."""
    flows: tuple[FlowNode, ...] = ()
    """Those that have not ended first."""
    problems: tuple[str, ...] = ()
    """What could not be read, one sentence each."""
