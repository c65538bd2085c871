"""Runs, tasks, batches, workers and user events, as plain mutable records.

Only ``lifecycle.py`` changes the status of a task. What a part needs to know about a task for its own work (its place
in a queue, its open conditions, its durable log) stays in that part.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from mageflow.engine.contracts import dispatcher_pb2
from mageflow.engine.definitions import BatchConfig, TaskDefinition, Workflow, WorkflowVersion
from mageflow.engine.trigger import Parent, Trigger
from mageflow.engine.values import Json, JsonObject


class TaskStatus(StrEnum):
    """The status of a task. Only durable tasks are ever ``EVICTED``."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    EVICTED = "EVICTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended. A replay opens it again."""
        return self in _TERMINAL

    @property
    def public(self) -> str:
        """The word for this status in REST and gRPC, which have five."""
        if self is TaskStatus.PENDING:
            return "QUEUED"
        if self is TaskStatus.EVICTED:
            return "RUNNING"
        return self.value


_TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A registered worker process.

    Attributes:
        slots: total units by slot type.
        used: occupied units by slot type.
        outbox: actions to send. It belongs to the worker, not to its stream, so actions survive a reconnect.
        outbox_ready: set when ``outbox`` or ``stream`` changed.
        stream: identity of the open action stream; None while none is open.
        is_lost: whether its heartbeats stopped.
        last_assigned: number of the last assignment to it, for the round-robin.
        tasks: what it runs now.
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
    outbox: deque[dispatcher_pb2.AssignedAction] = field(default_factory=deque[dispatcher_pb2.AssignedAction])
    outbox_ready: asyncio.Event = field(default_factory=asyncio.Event)
    stream: object | None = None
    had_stream: bool = False
    is_paused: bool = False
    is_lost: bool = False
    last_assigned: int = 0
    tasks: set[Task] = field(default_factory=set["Task"])

    @property
    def is_live(self) -> bool:
        """Whether the worker can be sent an action now."""
        return self.stream is not None and not self.is_lost

    def can_take(self, slots: Mapping[str, int]) -> bool:
        """Whether the worker is live, not paused, and has enough free units of every requested slot type."""
        return (
            self.is_live
            and not self.is_paused
            and all(self.slots.get(kind, 0) - self.used.get(kind, 0) >= units for kind, units in slots.items())
        )

    def send(self, action: dispatcher_pb2.AssignedAction) -> None:
        """Add an action to the outbox."""
        self.outbox.append(action)
        self.outbox_ready.set()


@dataclass(slots=True, kw_only=True, eq=False)
class TaskEvent:
    """One line of a task's history, as REST shows it.

    Attributes:
        error: text of the failure of a FAILED line. The text of a timeout is the ``message``, as in Hatchet.
        output: the output of a FINISHED line as the worker sent it.
    """

    id: int
    type: str
    timestamp: datetime
    message: str
    retry_count: int
    error: str | None
    worker_id: str | None
    output: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class LogLine:
    """One log line that a task sent."""

    created_at: datetime
    message: str
    level: str
    retry_count: int


@dataclass(frozen=True, slots=True)
class RateLimitNeed:
    """Units of one rate limit that a task takes when it is assigned."""

    key: str
    units: int


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """One task of a run, through all its attempts.

    Attributes:
        number: unique integer, the numeric id in REST.
        inserted_at: when the task was created: its parents had ended.
        created: whether the task is listed. A waiting on_failure task is not.
        retry_count: number of the current attempt, from 0. Workers send it back with every report.
        failures: attempts that failed by the task's own fault; ``definition.retries`` limits them.
        reassignments: attempts that ended because their worker was lost.
        invocation: number of the current run of a durable task's function, from 1.
        holds_slots: whether the task occupies slots of ``worker``.
        acknowledged: whether the worker reported the current attempt as started.
        deadline: when the attempt times out, in seconds of the clock's ``monotonic``.
        queued_at: when the task was last queued; None for one that never was, and after a replay until it is.
        output_text: the output as the worker sent it; empty for None.
        expired: whether the task ended by its schedule timeout.
        condition_data: data of the conditions that let the task start, by readable key.
        timers: running timers by purpose.
        children: run ids of child runs by child key or index.
    """

    id: str
    number: int
    run: Run
    definition: TaskDefinition
    priority: int
    inserted_at: datetime
    status: TaskStatus = TaskStatus.PENDING
    created: bool = False
    retry_count: int = 0
    failures: int = 0
    reassignments: int = 0
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
    condition_data: JsonObject = field(default_factory=dict[str, Any])
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict[str, asyncio.TimerHandle])
    rate_limit_needs: tuple[RateLimitNeed, ...] = ()
    batch: Batch | None = None
    children: dict[str, str] = field(default_factory=dict[str, str])
    events: list[TaskEvent] = field(default_factory=list[TaskEvent])
    logs: list[LogLine] = field(default_factory=list[LogLine])

    @property
    def name(self) -> str:
        """The task's name within its workflow."""
        return self.definition.name

    @property
    def display_name(self) -> str:
        """The name in REST: ``<task>-<milliseconds>``."""
        return f"{self.name}-{int(self.inserted_at.timestamp() * 1000)}"

    @property
    def listed_status(self) -> TaskStatus:
        """The status in REST. After a schedule timeout it is FAILED there and CANCELLED in gRPC, as in Hatchet."""
        return TaskStatus.FAILED if self.expired else self.status

    def cancel_timer(self, purpose: str) -> None:
        """Stop one timer, if it runs."""
        timer = self.timers.pop(purpose, None)
        if timer is not None:
            timer.cancel()

    def cancel_timers(self) -> None:
        """Stop all timers of this task."""
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()


@dataclass(slots=True, kw_only=True, eq=False)
class Batch:
    """Items of a batch task: collected first, then flushed, then running on a worker.

    Attributes:
        key: workflow id, task name and the value of the group key expression.
        items: tasks by id.
        payloads: the items as JSON, until the batch is sent.
        size_bytes: total length of ``payloads``.
        reason: why the batch was flushed: ``batch_size``, ``interval`` or ``payload_size``.
    """

    id: str
    key: tuple[str, str, str]
    definition: TaskDefinition
    config: BatchConfig
    items: dict[str, Task] = field(default_factory=dict[str, Task])
    payloads: dict[str, str] = field(default_factory=dict[str, str])
    size_bytes: int = 0
    reason: str = ""
    flushed_at: datetime | None = None
    worker: Worker | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One run of a workflow version.

    Attributes:
        metadata: what the trigger gave, and what the engine added.
        done: whether every task has ended and the run's end was processed.
        sticky_worker_id: the worker of the run's first assigned task.
    """

    id: str
    version: WorkflowVersion
    trigger: Trigger
    metadata: JsonObject
    priority: int
    created_at: datetime
    tasks: dict[str, Task] = field(default_factory=dict[str, Task])
    parent: Parent | None = None
    sticky_worker_id: str | None = None
    idempotency_key: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    done: bool = False

    @property
    def input(self) -> JsonObject:
        """The input of the run."""
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
    def first_task(self) -> Task:
        """The task that was declared first. Unless the run is a DAG, it is the only one."""
        return next(iter(self.tasks.values()))

    @property
    def status(self) -> TaskStatus:
        """The status of all tasks together. One failure makes it FAILED at once; ``done`` says if the rest ended."""
        return _combined({task.status for task in self._counted()})

    @property
    def listed_status(self) -> TaskStatus:
        """The ``listed_status`` of all tasks together, which REST shows."""
        return _combined({task.listed_status for task in self._counted()})

    @property
    def error(self) -> str | None:
        """The text of the first failure."""
        return next((task.error for task in self.tasks.values() if task.error), None)

    @property
    def output(self) -> JsonObject:
        """The output of the only task, or the outputs by task name for a DAG."""
        if not self.is_dag:
            output = self.first_task.output
            return output if isinstance(output, dict) else {}
        return {
            name: task.output
            for name, task in self.tasks.items()
            if task.status is TaskStatus.COMPLETED and task.created
        }

    def _counted(self) -> list[Task]:
        return [task for task in self.tasks.values() if not (task.definition.is_on_failure and task.skipped)]


def _combined(statuses: set[TaskStatus]) -> TaskStatus:
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


@dataclass(slots=True, kw_only=True, eq=False)
class TriggeredRun:
    """A run that an event started, and the filter that let it through."""

    run: Run
    filter_id: str | None


@dataclass(slots=True, kw_only=True, eq=False)
class UserEvent:
    """One pushed event, and the runs it started.

    Attributes:
        webhook_name: the webhook that received it; None for an event that a client pushed.
    """

    id: str
    key: str
    payload: JsonObject
    metadata: JsonObject
    scope: str | None
    occurred_at: datetime
    webhook_name: str | None = None
    triggered: list[TriggeredRun] = field(default_factory=list[TriggeredRun])
