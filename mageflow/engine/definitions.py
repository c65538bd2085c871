"""Workflow definitions as records: a workflow, its versions, and the tasks that a version declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from mageflow.engine.contracts import condition_pb2, trigger_pb2, v1_workflows_pb2


@dataclass(slots=True, kw_only=True, eq=False)
class BatchConfig:
    """How the items of a batch task are collected.

    Attributes:
        max_size: items per batch.
        interval: seconds after the first item until the batch is sent although it is not full.
        group_key: CEL expression; items with the same value are collected together.
        max_runs: batches per group that run at the same time.
    """

    max_size: int
    interval: float
    group_key: str
    max_runs: int
    broadcast_output: bool


@dataclass(slots=True, kw_only=True, eq=False)
class TaskDefinition:
    """One task of a workflow version, as a worker declared it.

    Attributes:
        name: unique within the workflow.
        action: what workers register for, ``<workflow>:<task>`` in lower case.
        timeout: seconds one attempt may run.
        timeout_text: the same as the worker wrote it.
        schedule_timeout: seconds a task may wait for a worker.
        parents: names of the tasks that must end first.
        retries: attempts after the first that a failure may cost.
        backoff_factor: base of the exponential wait before a retry; None retries at once.
        backoff_max: longest wait before a retry, in seconds.
        slots: units by slot type that one attempt occupies on its worker.
        labels: desired labels of the worker.
        is_on_failure: whether the task runs only after another task of the run failed.
    """

    id: str
    name: str
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
    """One registered definition of a workflow. A run keeps the version it started with.

    Attributes:
        fingerprint: the registration request in its deterministic binary form; equal requests share a version.
        tasks: definitions by name, the on_failure task last.
        sticky: ``SOFT``, ``HARD`` or None.
        default_priority: priority of runs that name none, 1 to 3.
        input_schema: JSON Schema of the input, as bytes of JSON.
    """

    id: str
    workflow: Workflow
    fingerprint: bytes
    created_at: datetime
    tasks: dict[str, TaskDefinition]
    concurrency: list[v1_workflows_pb2.Concurrency]
    sticky: str | None
    idempotency: v1_workflows_pb2.IdempotencyConfig | None
    default_priority: int
    input_schema: bytes

    @property
    def is_dag(self) -> bool:
        """Whether a run has an id of its own. A run of one task has the id of its task."""
        return len(self.tasks) > 1


@dataclass(slots=True, kw_only=True, eq=False)
class Pause:
    """What happens to the runs of a paused workflow.

    Attributes:
        queue_crons: whether crons still start runs, which then wait.
        queue_schedules: whether scheduled runs still start, and then wait.
        ttl: seconds after which a waiting task is cancelled.
    """

    queue_crons: bool
    queue_schedules: bool
    ttl: float


@dataclass(slots=True, kw_only=True, eq=False)
class Workflow:
    """A workflow name with a stable id.

    Attributes:
        versions: the newest 20, oldest first.
        event_triggers: event keys that start runs; ``*`` stands for any text.
        pause: set while the workflow is paused.
    """

    id: str
    name: str
    created_at: datetime
    versions: list[WorkflowVersion] = field(default_factory=list[WorkflowVersion])
    event_triggers: tuple[str, ...] = ()
    pause: Pause | None = None

    @property
    def current(self) -> WorkflowVersion:
        """The version that new runs start with."""
        return self.versions[-1]
