"""Hatchet's `Workflow`, with mageflow around every task that is declared on it."""

from collections.abc import Callable
from typing import Any, cast

from hatchet_sdk.runnables.types import TWorkflowInput
from hatchet_sdk.runnables.workflow import Workflow
from typing_extensions import Unpack

from mageflow.hatchet import compat
from mageflow.hatchet.declare import Declarations
from mageflow.hatchet.options import (
    BatchStepOptions,
    DurableStepOptions,
    HookOptions,
    StepDecorator,
    StepOptions,
    signed_as,
)

__all__ = ["MageflowWorkflow"]


class MageflowWorkflow(Workflow[TWorkflowInput]):
    """A `hatchet_sdk.Workflow`; only the decorators that declare tasks are extended.

    They take functions with the arguments the client hands out (`AcceptParams`, ``with_ctx``, ``with_signature``)
    as well as functions written for the plain Hatchet client.
    """

    def __init__(self, workflow: Workflow[TWorkflowInput], client: Any, declarations: Declarations) -> None:
        super().__init__(compat.config_of(workflow), client)
        self._declarations = declarations

    @signed_as(Workflow.task)
    def task(
        self, name: str | None = None, *positional: Any, **options: Unpack[StepOptions]
    ) -> StepDecorator[TWorkflowInput]:  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        """Declare a task of this workflow; see `hatchet_sdk.Workflow.task` for every keyword."""
        declare = super().task(name, *positional, **cast("Any", options))
        return cast("Any", self._decorator(declare))

    @signed_as(Workflow.durable_task)
    def durable_task(  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        self, name: str | None = None, *positional: Any, **options: Unpack[DurableStepOptions]
    ) -> StepDecorator[TWorkflowInput]:
        """Declare a durable task of this workflow; see `hatchet_sdk.Workflow.durable_task` for every keyword."""
        declare = super().durable_task(name, *positional, **cast("Any", options))
        return cast("Any", self._decorator(declare))

    @signed_as(Workflow.batch_task)
    def batch_task(self, name: str | None = None, **options: Unpack[BatchStepOptions]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        """Declare a batch task of this workflow; see `hatchet_sdk.Workflow.batch_task` for every keyword."""
        declare = cast("Any", super()).batch_task(name, **options)
        return self._decorator(declare, is_batch=True)

    @signed_as(Workflow.on_failure_task)
    def on_failure_task(
        self, name: str | None = None, *positional: Any, **options: Unpack[HookOptions]
    ) -> StepDecorator[TWorkflowInput]:  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        """Declare the task that runs when another fails; see `hatchet_sdk.Workflow.on_failure_task`."""
        declare = super().on_failure_task(name, *positional, **cast("Any", options))
        return cast("Any", self._decorator(declare))

    @signed_as(Workflow.on_success_task)
    def on_success_task(
        self, name: str | None = None, *positional: Any, **options: Unpack[HookOptions]
    ) -> StepDecorator[TWorkflowInput]:  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        """Declare the task that runs when all others succeeded; see `hatchet_sdk.Workflow.on_success_task`."""
        declare = super().on_success_task(name, *positional, **cast("Any", options))
        return cast("Any", self._decorator(declare))

    def _decorator(self, declare: Any, *, is_batch: bool = False) -> Callable[[Callable[..., Any]], Any]:
        def decorate(func: Callable[..., Any]) -> Any:
            return self._declarations.step(declare, self._declarations.bind(func, is_batch=is_batch), self)

        return decorate
