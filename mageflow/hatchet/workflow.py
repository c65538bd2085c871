"""Hatchet's `Workflow`, with mageflow around every task that is declared on it."""

from collections.abc import Callable
from typing import Any, cast

from hatchet_sdk.runnables.types import TWorkflowInput
from hatchet_sdk.runnables.workflow import Standalone, Workflow
from typing_extensions import Unpack

from mageflow.hatchet import declaration_compat
from mageflow.hatchet.declare import Declarations
from mageflow.hatchet.features import method_of, refuse_absent
from mageflow.hatchet.options import (
    BatchStepOptions,
    DurableStepOptions,
    HookOptions,
    StepDecorator,
    StepOptions,
    refuse_bare,
    signed_as,
)

__all__ = ["MageflowWorkflow"]


class MageflowWorkflow(Workflow[TWorkflowInput]):
    """A ``hatchet_sdk.Workflow``; only the decorators that declare tasks are extended. `Mageflow.workflow` makes it.

    They take functions with the arguments that the client passes (`AcceptParams`, ``with_ctx``, ``with_signature``) and
    functions written for the plain Hatchet client, ``(input, ctx)``. ``with_ctx``, ``with_signature``,
    ``stagger_execution`` and ``exclusive`` go below them. Every keyword of the SDK is accepted, also by position.

    Each decorator returns the SDK's ``Task``, for ``parents=[...]`` and ``ctx.task_output(...)``, and raises
    `DecorationError` if the decorated object is not a function or a parameter of it cannot be filled. In telemetry a
    task has the label ``workflow:task``; every attempt has a span ``process {task}``, ``mageflow_task_runs_total`` by
    outcome and ``mageflow_task_run_duration_seconds``.
    """

    def __init__(
        self, workflow: Workflow[TWorkflowInput], client: Any, declarations: Declarations, *, infers_input: bool
    ) -> None:
        super().__init__(declaration_compat.config_of(workflow), client)
        self._declarations = declarations
        self._infers_input = infers_input

    @signed_as(Workflow.task)
    def task(
        self, name: str | None = None, *positional: Any, **options: Unpack[StepOptions]
    ) -> StepDecorator[TWorkflowInput]:  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        """Declare a task of this workflow.

        Args:
            name: Its name in Hatchet; the function's name by default.
            positional: The options by position, in the order of the SDK's ``Workflow.task``.
            options: ``schedule_timeout`` (5 min) and ``execution_timeout`` (60 s) as timedelta or text; ``parents``
                (tasks that must end first, declared before); ``retries`` (0), ``backoff_factor``,
                ``backoff_max_seconds``; ``rate_limits``, ``desired_worker_labels``, ``concurrency``, ``slot_cost``;
                ``wait_for``, ``skip_if``, ``cancel_if``.
        """
        refuse_bare("workflow.task", [name] if callable(name) else [])
        refuse_absent(Workflow.task, StepOptions.__annotations__, options)
        declare = super().task(name, *positional, **cast("Any", options))
        return cast("Any", self._decorator(declare))

    @signed_as(Workflow.durable_task)
    def durable_task(  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        self, name: str | None = None, *positional: Any, **options: Unpack[DurableStepOptions]
    ) -> StepDecorator[TWorkflowInput]:
        """Declare a durable task of this workflow: it may wait without a slot, and its body is replayed to continue.

        Args:
            name: Its name in Hatchet; the function's name by default.
            positional: The options by position, in the order of the SDK's ``Workflow.durable_task``.
            options: The options of ``task`` without ``slot_cost``, and ``eviction_policy``.
        """
        refuse_bare("workflow.durable_task", [name] if callable(name) else [])
        refuse_absent(Workflow.durable_task, DurableStepOptions.__annotations__, options)
        declare = super().durable_task(name, *positional, **cast("Any", options))
        return cast("Any", self._decorator(declare))

    @signed_as(method_of(Workflow, "batch_task"))
    def batch_task(self, name: str | None = None, **options: Unpack[BatchStepOptions]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        """Declare a batch task of this workflow: one call for the messages of many runs, by task run id.

        Its function can have ``with_ctx``, but not ``with_signature``, ``stagger_execution`` or ``exclusive``.

        Args:
            name: Its name in Hatchet; the function's name by default.
            options: ``batch_max_size`` (required), ``batch_max_interval`` (timedelta), ``batch_group_key``,
                ``batch_group_max_runs``, ``broadcast_output``; ``schedule_timeout`` (5 min) and ``execution_timeout``
                (60 s) as timedelta or text; ``parents``, ``rate_limits``, ``desired_worker_labels``,
                ``backoff_factor``, ``backoff_max_seconds``.
        """
        refuse_bare("workflow.batch_task", [name] if callable(name) else [])
        declare = method_of(Workflow, "batch_task")(self, name, **options)
        return self._decorator(declare, is_batch=True)

    @signed_as(Workflow.on_failure_task)
    def on_failure_task(
        self, name: str | None = None, *positional: Any, **options: Unpack[HookOptions]
    ) -> StepDecorator[TWorkflowInput]:  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        """Declare the task that runs last, once, if any task of the run failed.

        Args:
            name: Its name in Hatchet; the function's name and ``-on-failure`` by default.
            positional: The options by position, in the order of the SDK's ``Workflow.on_failure_task``.
            options: ``schedule_timeout`` (5 min) and ``execution_timeout`` (60 s) as timedelta or text;
                ``retries`` (0), ``backoff_factor``, ``backoff_max_seconds``, ``rate_limits``, ``concurrency``.
        """
        refuse_bare("workflow.on_failure_task", [name] if callable(name) else [])
        refuse_absent(Workflow.on_failure_task, HookOptions.__annotations__, options)
        declare = super().on_failure_task(name, *positional, **cast("Any", options))
        return cast("Any", self._decorator(declare, is_hook=True))

    @signed_as(Workflow.on_success_task)
    def on_success_task(
        self, name: str | None = None, *positional: Any, **options: Unpack[HookOptions]
    ) -> StepDecorator[TWorkflowInput]:  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        """Declare the task that runs last, once, if every task of the run succeeded.

        Args:
            name: Its name in Hatchet; the function's name and ``-on-success`` by default.
            positional: The options by position, in the order of the SDK's ``Workflow.on_success_task``.
            options: ``schedule_timeout`` (5 min) and ``execution_timeout`` (60 s) as timedelta or text;
                ``retries`` (0), ``backoff_factor``, ``backoff_max_seconds``, ``rate_limits``, ``concurrency``.
        """
        refuse_bare("workflow.on_success_task", [name] if callable(name) else [])
        refuse_absent(Workflow.on_success_task, HookOptions.__annotations__, options)
        declare = super().on_success_task(name, *positional, **cast("Any", options))
        return cast("Any", self._decorator(declare, is_hook=True))

    def add_task(self, task: Standalone[TWorkflowInput, Any]) -> None:
        """Make a stand-alone task a task of this workflow too. In telemetry it keeps its own label.

        Args:
            task: What ``client.task`` returned.
        """
        super().add_task(task)
        self._declarations.added(task, self)

    def _decorator(
        self, declare: Any, *, is_batch: bool = False, is_hook: bool = False
    ) -> Callable[[Callable[..., Any]], Any]:
        def decorate(func: Callable[..., Any]) -> Any:
            bound = self._declarations.bind(func, is_batch=is_batch)
            infers_input = self._infers_input and not is_hook
            return self._declarations.step(declare, bound, self, infers_input=infers_input)

        return decorate
