"""The keywords of the SDK's declaration methods, as types.

They are passed on unchanged: a keyword that a newer SDK adds works at run time and only lacks a type here.
``tests/contract`` fails when these types and the SDK's signatures differ (written against 1.43.1).
"""

import inspect
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Concatenate, Generic, Protocol, TypedDict, TypeVar, cast, overload

from hatchet_sdk import Context
from hatchet_sdk.conditions import Condition, OrGroup
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.types import DefaultFilter, EmptyModel, R, TaskDefaults, TWorkflowInput
from hatchet_sdk.runnables.workflow import BaseWorkflow, Standalone
from hatchet_sdk.utils.timedelta_to_expression import Duration
from hatchet_sdk.utils.typing import CoroutineLike, JSONSerializableMapping

from mageflow.errors import ConfigurationError, DecorationError
from mageflow.hatchet.features import (
    BatchMemberId,
    EvictionPolicy,
    StatusBasedIdempotencyConfig,
    TTLBasedIdempotencyConfig,
)
from mageflow.hatchet.sdk_names import (
    ConcurrencyExpression,
    DesiredWorkerLabel,
    Priority,
    RateLimit,
    StickyStrategy,
)

__all__ = [
    "BatchOptions",
    "BatchStepOptions",
    "DurableOptions",
    "DurableStepOptions",
    "HookOptions",
    "InferringBatchDecorator",
    "InferringDecorator",
    "StepDecorator",
    "StepOptions",
    "TaskBatchDecorator",
    "TaskDecorator",
    "TaskOptions",
    "WorkflowOptions",
    "refuse_bare",
    "signed_as",
]

F = TypeVar("F", bound=Callable[..., Any])


def signed_as(theirs: Callable[..., Any]) -> Callable[[F], F]:
    """Show every keyword of the SDK's method to ``help``, to notebooks and to other tools that inspect at run time."""

    def sign(ours: F) -> F:
        ours.__signature__ = inspect.signature(theirs)  # type: ignore[attr-defined] - inspect reads it
        return ours

    return sign


def refuse_bare(decorator: str, bare: Sequence[object]) -> None:
    """Refuse what was given by position where only keywords are taken: the function below a decorator without ``()``.

    Raises:
        DecorationError: Something was given.
    """
    if bare:
        example = "batch_max_size=10" if decorator.endswith("batch_task") else ""
        name = str(getattr(bare[0], "__qualname__", None) or repr(bare[0]))
        written = f"@{decorator}({example})" if callable(bare[0]) else f"@{decorator}(name={bare[0]!r})"
        raise DecorationError(decorator.rpartition(".")[2], name, f"it takes keywords only: write {written}")


def refuse_no_tasks(workflows: object) -> None:
    """Refuse what a worker is given in place of tasks: a task alone, and functions that were not declared.

    Raises:
        ConfigurationError: The message has the line to write.
    """
    if isinstance(workflows, BaseWorkflow) or inspect.isroutine(workflows):
        raise ConfigurationError("workflows is a list: write workflows=[...]")
    for each in cast("Sequence[object]", workflows) if isinstance(workflows, Sequence) else ():
        if inspect.isroutine(each):
            raise ConfigurationError(
                f"{each.__qualname__} is a function and not a task: declare it with @client.task(name=...), and give "
                "what that returns"
            )


_Labels = dict[str, DesiredWorkerLabel] | list[DesiredWorkerLabel]
_Idempotency = TTLBasedIdempotencyConfig | StatusBasedIdempotencyConfig
_Concurrency = int | ConcurrencyExpression | Sequence[ConcurrencyExpression]


class _Execution(TypedDict, total=False):
    schedule_timeout: Duration
    execution_timeout: Duration
    rate_limits: list[RateLimit] | None
    backoff_factor: float | None
    backoff_max_seconds: int | None


class _Declaration(TypedDict, total=False):
    description: str | None
    on_events: list[str] | None
    on_crons: list[str] | None
    version: str | None
    sticky: StickyStrategy | None
    default_priority: int | Priority
    concurrency: _Concurrency | None
    default_filters: list[DefaultFilter] | None
    default_additional_metadata: JSONSerializableMapping | None
    idempotency: _Idempotency | None


class TaskOptions(_Declaration, _Execution, total=False):
    """Keywords of ``task``, without ``name``, ``input_validator`` and ``cron_input``."""

    retries: int
    desired_worker_labels: _Labels | None
    slot_cost: int | None


class DurableOptions(_Declaration, _Execution, total=False):
    """Keywords of ``durable_task``, without ``name``, ``input_validator`` and ``cron_input``."""

    retries: int
    desired_worker_labels: _Labels | None
    eviction_policy: EvictionPolicy | None


class WorkflowOptions(_Declaration, total=False):
    """Keywords of ``workflow``, without ``name``, ``input_validator`` and ``cron_input``."""

    task_defaults: TaskDefaults


class _Batching(_Execution, total=False):
    desired_worker_labels: dict[str, DesiredWorkerLabel] | None
    batch_max_size: int
    batch_max_interval: timedelta | None
    batch_group_key: str | None
    batch_group_max_runs: int | None
    broadcast_output: bool


class BatchOptions(_Batching, total=False):
    """Keywords of ``batch_task``, without ``name`` and ``input_validator``."""

    description: str | None
    version: str | None
    sticky: StickyStrategy | None
    default_priority: int
    default_filters: list[DefaultFilter] | None


class _Step(_Execution, total=False):
    parents: list[Task[Any, Any]] | None
    wait_for: list[Condition | OrGroup] | None
    skip_if: list[Condition | OrGroup] | None
    cancel_if: list[Condition | OrGroup] | None


class StepOptions(_Step, total=False):
    """Keywords of a workflow's ``task``, without ``name``."""

    retries: int
    desired_worker_labels: _Labels | None
    concurrency: int | Sequence[ConcurrencyExpression] | None
    slot_cost: int | None


class DurableStepOptions(_Step, total=False):
    """Keywords of a workflow's ``durable_task``, without ``name``."""

    retries: int
    desired_worker_labels: _Labels | None
    concurrency: int | Sequence[ConcurrencyExpression] | None
    eviction_policy: EvictionPolicy | None


class BatchStepOptions(_Batching, total=False):
    """Keywords of a workflow's ``batch_task``, without ``name``."""

    parents: list[Task[Any, Any]] | None


class HookOptions(_Execution, total=False):
    """Keywords of a workflow's ``on_failure_task`` and ``on_success_task``, without ``name``."""

    retries: int
    concurrency: int | Sequence[ConcurrencyExpression] | None


class InferringDecorator(Protocol):
    """Makes a stand-alone task whose input type is the function's own."""

    @overload
    def __call__(
        self, func: Callable[Concatenate[Context, ...], R | CoroutineLike[R]], /
    ) -> Standalone[EmptyModel, R]: ...
    @overload
    def __call__(
        self, func: Callable[Concatenate[TWorkflowInput, ...], R | CoroutineLike[R]], /
    ) -> Standalone[TWorkflowInput, R]: ...


class TaskDecorator(Protocol, Generic[TWorkflowInput]):
    """Makes a stand-alone task with the input type that was given."""

    def __call__(
        self,
        func: (
            Callable[Concatenate[TWorkflowInput, ...], R | CoroutineLike[R]]
            | Callable[Concatenate[Context, ...], R | CoroutineLike[R]]
        ),
        /,
    ) -> Standalone[TWorkflowInput, R]:
        """Declare the function as a task."""
        ...


class InferringBatchDecorator(Protocol):
    """Makes a batch task whose item type is the function's own."""

    @overload
    def __call__(
        self,
        func: Callable[
            Concatenate[dict[BatchMemberId, TWorkflowInput], ...],
            dict[BatchMemberId, R] | CoroutineLike[dict[BatchMemberId, R]],
        ],
        /,
    ) -> Standalone[TWorkflowInput, R]: ...
    @overload
    def __call__(
        self, func: Callable[Concatenate[dict[BatchMemberId, TWorkflowInput], ...], R | CoroutineLike[R]], /
    ) -> Standalone[TWorkflowInput, R]: ...


class TaskBatchDecorator(Protocol, Generic[TWorkflowInput]):
    """Makes a batch task with the item type that was given."""

    @overload
    def __call__(
        self,
        func: Callable[
            Concatenate[dict[BatchMemberId, TWorkflowInput], ...],
            dict[BatchMemberId, R] | CoroutineLike[dict[BatchMemberId, R]],
        ],
        /,
    ) -> Standalone[TWorkflowInput, R]: ...
    @overload
    def __call__(
        self, func: Callable[Concatenate[dict[BatchMemberId, TWorkflowInput], ...], R | CoroutineLike[R]], /
    ) -> Standalone[TWorkflowInput, R]: ...


class StepDecorator(Protocol, Generic[TWorkflowInput]):
    """Makes a task of a workflow."""

    def __call__(
        self,
        func: (
            Callable[Concatenate[TWorkflowInput, ...], R | CoroutineLike[R]]
            | Callable[Concatenate[Context, ...], R | CoroutineLike[R]]
        ),
        /,
    ) -> Task[TWorkflowInput, R]:
        """Declare the function as a task."""
        ...
