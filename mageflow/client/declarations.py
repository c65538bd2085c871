"""Declaring tasks: the decorators, and every method of Hatchet's client that makes a task.

The decorators record a mark (``mageflow.invocation``); the methods hand the function on to the SDK and put mageflow
around what it makes (``mageflow.hatchet``).
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast, overload

from hatchet_sdk import Hatchet
from hatchet_sdk.runnables.types import EmptyModel, TWorkflowInput
from typing_extensions import Unpack

from mageflow import hatchet as sdk
from mageflow import invocation
from mageflow.locks import LockService, OnLost, Resource, exclusive_mark
from mageflow.store import VictimPolicy

__all__ = ["DeclaringClient"]

F = TypeVar("F", bound=Callable[..., Any])


class DeclaringClient(Hatchet):
    """The part of `Mageflow` that declares tasks."""

    _declarations: sdk.Declarations
    _locks: LockService

    # -- decorators ----------------------------------------------------------------------------------------------

    def with_ctx(self, func: F) -> F:
        """Hand this task the Hatchet context, whatever the client's ``param_config``.

        See `mageflow.invocation.with_ctx`; goes below ``@client.task``.
        """
        return invocation.with_ctx(func)

    def with_signature(self, func: F) -> F:
        """Hand this task its own `TaskSignature`; see `mageflow.invocation.with_signature`."""
        return invocation.with_signature(func)

    def stagger_execution(self, wait_delta: timedelta) -> Callable[[F], F]:
        """Delay each attempt by a random time up to ``wait_delta``; see `mageflow.invocation.stagger_execution`."""
        return invocation.stagger_execution(wait_delta)

    def exclusive(
        self,
        *resources: Resource | str,
        key: Callable[[Any], str | int] | None = None,
        timeout: timedelta | None = None,
        extend_timeout: bool = True,
        policy: VictimPolicy = "requester",
        on_lost: OnLost = "cancel",
    ) -> Callable[[F], F]:
        """Hold resources around the whole body of a task; goes below ``@client.task``, in any order with the others.

        They are taken after the stagger, all or none, and given back however the attempt ends. See `Resource.acquire`
        for the arguments, and `mageflow.locks.exclusive_mark` for ``key``, a function of the message.

        Raises:
            DecorationError: No resource is named, or ``key`` takes no message.
        """
        mark = exclusive_mark(
            self._locks,
            *resources,
            key=key,
            timeout=timeout,
            extend_timeout=extend_timeout,
            policy=policy,
            on_lost=on_lost,
        )
        return invocation.exclusive(mark)

    # -- declarations --------------------------------------------------------------------------------------------

    @overload
    def task(
        self,
        *,
        name: str | None = None,
        input_validator: None = None,
        cron_input: None = None,
        **options: Unpack[sdk.TaskOptions],
    ) -> sdk.InferringDecorator: ...
    @overload
    def task(
        self,
        *,
        name: str | None = None,
        input_validator: type[TWorkflowInput],
        cron_input: TWorkflowInput | None = None,
        **options: Unpack[sdk.TaskOptions],
    ) -> sdk.TaskDecorator[TWorkflowInput]: ...
    @sdk.signed_as(Hatchet.task)
    def task(  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        self, *, name: str | None = None, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a stand-alone task; see `hatchet_sdk.Hatchet.task` for every keyword.

        Without an ``input_validator`` the message's own annotation is the input type, where it is a pydantic model, a
        dataclass or a dict.

        Raises:
            DecorationError: The function's parameters or decorators ask for what cannot be.
        """

        def decorate(func: Callable[..., Any]) -> Any:
            bound = self._declarations.bind(func)
            validator = input_validator or bound.input_type
            declare = super(DeclaringClient, self).task(name=name, input_validator=validator, **options)
            return self._declarations.standalone(cast("Any", declare), bound)

        return decorate

    @overload
    def durable_task(
        self,
        *,
        name: str | None = None,
        input_validator: None = None,
        cron_input: None = None,
        **options: Unpack[sdk.DurableOptions],
    ) -> sdk.InferringDecorator: ...
    @overload
    def durable_task(
        self,
        *,
        name: str | None = None,
        input_validator: type[TWorkflowInput],
        cron_input: TWorkflowInput | None = None,
        **options: Unpack[sdk.DurableOptions],
    ) -> sdk.TaskDecorator[TWorkflowInput]: ...
    @sdk.signed_as(Hatchet.durable_task)
    def durable_task(  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        self, *, name: str | None = None, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a stand-alone durable task; see `hatchet_sdk.Hatchet.durable_task` for every keyword.

        A stagger delays the first invocation only, not what is replayed after an eviction.

        Raises:
            DecorationError: The function's parameters or decorators ask for what cannot be.
        """

        def decorate(func: Callable[..., Any]) -> Any:
            bound = self._declarations.bind(func)
            validator = input_validator or bound.input_type
            declare = super(DeclaringClient, self).durable_task(name=name, input_validator=validator, **options)
            return self._declarations.standalone(cast("Any", declare), bound)

        return decorate

    @overload
    def batch_task(
        self, *, name: str | None = None, input_validator: None = None, **options: Unpack[sdk.BatchOptions]
    ) -> sdk.InferringBatchDecorator: ...
    @overload
    def batch_task(
        self, *, name: str | None = None, input_validator: type[TWorkflowInput], **options: Unpack[sdk.BatchOptions]
    ) -> sdk.TaskBatchDecorator[TWorkflowInput]: ...
    @sdk.signed_as(Hatchet.batch_task)
    def batch_task(  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        self, *, name: str | None = None, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a stand-alone batch task; see `hatchet_sdk.Hatchet.batch_task` for every keyword.

        Raises:
            DecorationError: It is staggered or asks for a signature, which a batch of many runs cannot have.
        """

        def decorate(func: Callable[..., Any]) -> Any:
            bound = self._declarations.bind(func, is_batch=True)
            validator = input_validator or bound.input_type
            declare = cast("Any", super(DeclaringClient, self)).batch_task(
                name=name, input_validator=validator, **options
            )
            return self._declarations.standalone(declare, bound)

        return decorate

    @overload
    def workflow(
        self,
        *,
        name: str,
        input_validator: None = None,
        cron_input: None = None,
        **options: Unpack[sdk.WorkflowOptions],
    ) -> sdk.MageflowWorkflow[EmptyModel]: ...
    @overload
    def workflow(
        self,
        *,
        name: str,
        input_validator: type[TWorkflowInput],
        cron_input: TWorkflowInput | None = None,
        **options: Unpack[sdk.WorkflowOptions],
    ) -> sdk.MageflowWorkflow[TWorkflowInput]: ...
    @sdk.signed_as(Hatchet.workflow)
    def workflow(  # pyright: ignore[reportIncompatibleMethodOverride] a subclass, same keywords
        self, *, name: str, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a workflow; see `hatchet_sdk.Hatchet.workflow` for every keyword."""
        workflow = super().workflow(name=name, input_validator=input_validator, **options)
        return sdk.MageflowWorkflow(cast("Any", workflow), self, self._declarations)
