"""What the engine remembers: workflows, runs, tasks, workers, as plain mutable records.

Owns the data and the questions a record can answer about itself. Refuses transitions: the only code that changes a
task's status is ``lifecycle.py``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

if TYPE_CHECKING:
    from mageflow.engine.batches import Batch
    from mageflow.engine.concurrency import Hold
    from mageflow.engine.contracts import condition_pb2, dispatcher_pb2, trigger_pb2, v1_workflows_pb2
    from mageflow.engine.durable.log import DurableLog
    from mageflow.engine.matches import Match
    from mageflow.engine.rate_limits import Need
    from mageflow.engine.trigger import Parent, Trigger

Json: TypeAlias = Any
JsonObject: TypeAlias = dict[str, Any]


def new_id() -> str:
    """Return a fresh UUID as text: the form of every id on the wire."""
    return str(uuid4())


class TaskStatus(StrEnum):
    """Where a task is; ``EVICTED`` exists for durable tasks only and is shown as RUNNING."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    EVICTED = "EVICTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended (a replay may re-open it)."""
        return self in _TERMINAL

    @property
    def public(self) -> str:
        """The five-word vocabulary of REST and gRPC."""
        if self is TaskStatus.PENDING:
            return "QUEUED"
        if self is TaskStatus.EVICTED:
            return "RUNNING"
        return self.value


_TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


@dataclass(slots=True, kw_only=True, eq=False)
class BatchConfig:
    """How a batch task is collected; the interval is in seconds."""

    max_size: int
    interval: float
    group_key: str
    max_runs: int
    broadcast_output: bool


@dataclass(slots=True, kw_only=True, eq=False)
class Step:
    """One task of a workflow version, as declared by PutWorkflow. Durations are seconds."""

    id: str
    readable_id: str
    action: str
    timeout: float
    timeout_text: str
    schedule_timeout: float
    parents: tuple[str, ...]
    retries: int
    backoff_factor: float | None
    backoff_max: float | None
    slots: dict[str, int]
    labels: Mapping[str, trigger_pb2.DesiredWorkerLabels]
    rate_limits: list[v1_workflows_pb2.CreateTaskRateLimit]
    concurrency: list[v1_workflows_pb2.Concurrency]
    conditions: condition_pb2.TaskConditions | None
    is_durable: bool
    is_on_failure: bool
    batch: BatchConfig | None


@dataclass(slots=True, kw_only=True, eq=False)
class WorkflowVersion:
    """One registered shape of a workflow; runs keep the version they started with."""

    id: str
    workflow: Workflow
    fingerprint: bytes
    created_at: datetime
    steps: dict[str, Step]
    concurrency: list[v1_workflows_pb2.Concurrency]
    sticky: str | None
    idempotency: v1_workflows_pb2.IdempotencyConfig | None
    default_priority: int
    input_schema: bytes

    @property
    def is_dag(self) -> bool:
        """Whether runs have an id of their own instead of sharing it with their only task."""
        return len(self.steps) > 1


@dataclass(slots=True, kw_only=True, eq=False)
class Pause:
    """What happens to a paused workflow's runs; the time to live is in seconds."""

    queue_crons: bool
    queue_schedules: bool
    ttl: float


@dataclass(slots=True, kw_only=True, eq=False)
class Workflow:
    """A name with a stable id and its versions, newest last."""

    id: str
    name: str
    created_at: datetime
    versions: list[WorkflowVersion] = field(default_factory=list["WorkflowVersion"])
    event_triggers: tuple[str, ...] = ()
    pause: Pause | None = None

    @property
    def current(self) -> WorkflowVersion:
        """The version new runs start with."""
        return self.versions[-1]


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A registered worker process.

    Actions wait in ``outbox``, which belongs to the worker and not to its stream, so they survive a reconnect.
    """

    id: str
    name: str
    actions: frozenset[str]
    slots: dict[str, int]
    labels: dict[str, str | int]
    runtime: dispatcher_pb2.RuntimeInfo | None
    created_at: datetime
    last_heartbeat: datetime
    used: dict[str, int] = field(default_factory=dict[str, int])
    outbox: deque[dispatcher_pb2.AssignedAction] = field(default_factory=deque["dispatcher_pb2.AssignedAction"])
    outbox_ready: asyncio.Event = field(default_factory=asyncio.Event)
    stream: object | None = None
    had_stream: bool = False
    paused: bool = False
    lost: bool = False
    last_assigned: int = 0
    tasks: set[Task] = field(default_factory=set["Task"])

    @property
    def is_live(self) -> bool:
        """Whether the worker can be given an action now."""
        return self.stream is not None and not self.lost

    def has_room(self, slots: Mapping[str, int]) -> bool:
        """Whether every requested slot type has enough free units."""
        return all(self.slots.get(kind, 0) - self.used.get(kind, 0) >= units for kind, units in slots.items())

    def take(self, slots: Mapping[str, int]) -> None:
        """Occupy slots."""
        for kind, units in slots.items():
            self.used[kind] = self.used.get(kind, 0) + units

    def give_back(self, slots: Mapping[str, int]) -> None:
        """Free slots."""
        for kind, units in slots.items():
            self.used[kind] = self.used.get(kind, 0) - units

    def send(self, action: dispatcher_pb2.AssignedAction) -> None:
        """Queue an action for the worker's stream."""
        self.outbox.append(action)
        self.outbox_ready.set()


@dataclass(slots=True, kw_only=True, eq=False)
class TaskEvent:
    """One line of a task's history, as REST shows it."""

    id: int
    type: str
    timestamp: datetime
    message: str
    retry_count: int
    error: str | None
    worker_id: str | None


@dataclass(slots=True, kw_only=True, eq=False)
class LogLine:
    """One captured log line."""

    created_at: datetime
    message: str
    level: str
    retry_count: int


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """One task of a run, through all its attempts."""

    id: str
    number: int
    run: Run
    step: Step
    priority: int
    inserted_at: datetime
    status: TaskStatus = TaskStatus.PENDING
    created: bool = False
    retry_count: int = 0
    app_retries: int = 0
    lost_count: int = 0
    invocation: int = 0
    worker: Worker | None = None
    holds_slots: bool = False
    acknowledged: bool = False
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline: float | None = None
    output_text: str = ""
    output: Json = None
    error: str | None = None
    skipped: bool = False
    expired: bool = False
    match: Match | None = None
    match_data: JsonObject = field(default_factory=dict[str, Any])
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict[str, "asyncio.TimerHandle"])
    queue_entry: object | None = None
    holds: list[Hold] = field(default_factory=list["Hold"])
    rate_needs: list[Need] = field(default_factory=list["Need"])
    batch: Batch | None = None
    children: dict[str, str] = field(default_factory=dict[str, str])
    durable: DurableLog | None = None
    events: list[TaskEvent] = field(default_factory=list["TaskEvent"])
    logs: list[LogLine] = field(default_factory=list["LogLine"])

    @property
    def display_name(self) -> str:
        """``<step>-<milliseconds>``, the name REST shows."""
        return f"{self.step.readable_id}-{int(self.inserted_at.timestamp() * 1000)}"

    @property
    def listed_status(self) -> TaskStatus:
        """The status REST shows: Hatchet lists as FAILED what gRPC calls CANCELLED after a schedule timeout."""
        return TaskStatus.FAILED if self.expired else self.status

    @property
    def metadata(self) -> JsonObject:
        """The run's additional metadata: tasks have none of their own."""
        return self.run.metadata

    def cancel_timer(self, name: str) -> None:
        """Stop one timer, if it runs."""
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def cancel_timers(self) -> None:
        """Stop all timers of this task."""
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One run of a workflow version; ``metadata`` is what was asked for and what the engine added."""

    id: str
    version: WorkflowVersion
    trigger: Trigger
    metadata: JsonObject
    priority: int
    created_at: datetime
    tasks: dict[str, Task] = field(default_factory=dict[str, "Task"])
    parent: Parent | None = None
    sticky_worker_id: str | None = None
    idempotency_key: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    done: bool = False
    holds: list[Hold] = field(default_factory=list["Hold"])
    admitted: bool = False
    waiting_for_admission: list[Task] = field(default_factory=list["Task"])

    @property
    def input(self) -> JsonObject:
        """What the run was started with."""
        return self.trigger.input

    @property
    def workflow(self) -> Workflow:
        """The workflow this run belongs to."""
        return self.version.workflow

    @property
    def is_dag(self) -> bool:
        """Whether the run has an id of its own."""
        return self.version.is_dag

    @property
    def status(self) -> TaskStatus:
        """The aggregate of all tasks: any failure shows at once, ``done`` tells whether the rest has ended."""
        return self._aggregate({task: task.status for task in self._counted()})

    @property
    def listed_status(self) -> TaskStatus:
        """The status REST shows, see ``Task.listed_status``."""
        return self._aggregate({task: task.listed_status for task in self._counted()})

    def _counted(self) -> list[Task]:
        return [task for task in self.tasks.values() if not (task.step.is_on_failure and task.skipped)]

    @staticmethod
    def _aggregate(by_task: Mapping[Task, TaskStatus]) -> TaskStatus:
        statuses = set(by_task.values())
        if statuses <= {TaskStatus.PENDING, TaskStatus.QUEUED}:
            return TaskStatus.QUEUED
        if len(statuses) == 1:
            return next(iter(statuses))
        if TaskStatus.FAILED in statuses:
            return TaskStatus.FAILED
        if not all(status.is_terminal for status in statuses):
            return TaskStatus.RUNNING
        if TaskStatus.CANCELLED in statuses:
            return TaskStatus.CANCELLED
        return TaskStatus.COMPLETED

    @property
    def error(self) -> str | None:
        """The first failure's text."""
        return next((task.error for task in self.tasks.values() if task.error), None)

    @property
    def output(self) -> JsonObject:
        """The only task's output, or outputs by task name for a DAG."""
        if not self.is_dag:
            only = next(iter(self.tasks.values()))
            return only.output if isinstance(only.output, dict) else {}
        return {
            name: task.output
            for name, task in self.tasks.items()
            if task.status is TaskStatus.COMPLETED and task.created
        }
