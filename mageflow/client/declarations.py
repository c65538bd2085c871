"""Declaring tasks: the decorators of mageflow, and every method of Hatchet's client that declares a task.

The decorators record a mark on the function (``mageflow.invocation``). The methods give the function to the SDK and put
mageflow around the task it makes (``mageflow.hatchet``).
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar, cast, overload

from hatchet_sdk import Hatchet
from hatchet_sdk.runnables.types import EmptyModel, TWorkflowInput
from hatchet_sdk.runnables.workflow import BaseWorkflow
from typing_extensions import Unpack

from mageflow import hatchet as sdk
from mageflow import invocation, locks, store
from mageflow.client.connected import ConnectedClient

__all__ = ["DeclaringClient"]

F = TypeVar("F", bound=Callable[..., Any])

_NO_FUNCTION: Any = None
"""The default of a decorator's function, so that a decorator with parentheses gets a message that helps."""


class DeclaringClient(ConnectedClient, Hatchet):
    """The part of `Mageflow` that declares tasks."""

    _declarations: sdk.Declarations
    _register: sdk.TaskRegister

    @property
    def declared_workflows(self) -> list[BaseWorkflow[Any]]:
        """Every task and workflow that this client has declared so far, for ``worker(workflows=...)``.

        In the order of declaration. Of two with the same name it has the later one. Workflows without a task and
        ``stubs`` are not in it.
        """
        return self._register.runnables()

    @property
    def repeated_names(self) -> list[str]:
        """Names that more than one task or workflow of this client has. A worker runs only one of them."""
        return self._register.repeated_names()

    # -- decorators ----------------------------------------------------------------------------------------------

    def with_ctx(self, func: F = _NO_FUNCTION) -> F:
        """Pass the Hatchet context to this task, with any ``param_config`` of the client.

        Write it between ``@client.task`` and the function, in any order with the other decorators. The context goes to
        the parameter annotated ``Context`` or ``DurableContext``, else to the one named ``ctx`` or ``context``, else to
        the next free positional parameter. A direct call of the function passes nothing extra.

        Args:
            func: The task's function, synchronous or asynchronous. It is not changed: a new function has the mark.

        Returns:
            A function that behaves like ``func``.

        Raises:
            DecorationError: ``func`` is not a function, for example because the decorator stands above
                ``@client.task``. ``@client.task`` raises it if the function has no parameter for the context.
        """
        return invocation.with_ctx(func)

    def with_signature(self, func: F = _NO_FUNCTION) -> F:
        """Pass its own `TaskSignature` to this task.

        Write it between ``@client.task`` and the function, in any order with the other decorators. The signature goes
        to the parameter annotated ``TaskSignature``, else to the one named ``signature``, else to the next free
        positional parameter. A run that was not started from a stored signature gets one made from the run itself:
        ``task_name``, ``task_identifiers`` with the ids of the run, no callbacks. It is never None, and a plain run
        needs no Redis.

        Telemetry: for a run of a stored signature span ``load signature``, ``mageflow_signature_loads_total`` and
        ``mageflow_signature_load_duration_seconds``.

        Args:
            func: The task's function, synchronous or asynchronous. It is not changed: a new function has the mark.

        Returns:
            A function that behaves like ``func``.

        Raises:
            DecorationError: ``func`` is not a function, for example because the decorator stands above
                ``@client.task``. ``@client.task`` raises it if the function has no parameter for the signature;
                ``@client.batch_task`` always does, because a batch carries many runs.
        """
        return invocation.with_signature(func)

    def stagger_execution(self, wait_delta: timedelta) -> Callable[[F], F]:
        """Delay each attempt by a random time between 0 and ``wait_delta``, uniformly, before the body starts.

        Write it between ``@client.task`` and the function, in any order with the other decorators. Before the sleep the
        task's execution timeout is extended by the delay, so that the body keeps the whole of its own timeout. The
        sleep holds the worker's slot but no thread. It ends at once when the run is cancelled. Every attempt draws its
        own delay; a resumed durable task does not sleep again. If the engine refuses the extension, the attempt sleeps
        for at most a tenth of the time it has left.

        Telemetry: span ``stagger {task}``, ``mageflow_stagger_delay_seconds``, ``mageflow_staggers_total``,
        ``mageflow_stagger_window_seconds``, ``mageflow_timeout_extensions_total{reason="stagger"}``, log event
        ``mageflow.stagger.started``.

        Args:
            wait_delta: The longest delay; more than zero. If the decorator is applied twice, the topmost wins.

        Returns:
            A decorator; the function it returns behaves like the given one, without a delay when called directly.

        Raises:
            DecorationError: ``wait_delta`` is not a positive timedelta, or the decorated object is not a function.
                ``@client.batch_task`` raises it for a staggered function.
        """
        return invocation.stagger_execution(wait_delta)

    def exclusive(
        self,
        *resources: "locks.Resource | str",
        key: Callable[[Any], str | int] | None = None,
        timeout: timedelta | None = None,
        extend_timeout: bool = True,
        policy: "store.VictimPolicy" = "requester",
        on_lost: "locks.OnLost" = "cancel",
    ) -> Callable[[F], F]:
        """Hold locks around the whole body of a task.

        Write it between ``@client.task`` and the function, in any order with the other decorators; the topmost of
        several is the outermost. The locks are acquired after the stagger, all or none, in one fixed order, and
        released at the end of the attempt with any outcome. A waiting attempt holds the worker's slot but no
        thread. One round trip to Redis to acquire and one to release if no other run wants them.

        An attempt that does not get its locks fails with `LockTimeoutError`, `DeadlockError` or `StoreError`, and is
        retried if the task has retries left.

        Telemetry: span ``acquire {lock}``; ``mageflow_lock_wait_seconds``, ``mageflow_lock_hold_seconds`` and the other
        ``mageflow_lock_*`` and ``mageflow_deadlock*`` metrics; log events ``mageflow.lock.*`` and
        ``mageflow.deadlock.*``.

        Args:
            resources: Resources of this client or their names; at least one.
            key: A function of the message that returns the instance to lock, for example ``lambda msg: msg.id``. By
                default the resource as a whole is locked.
            timeout: The longest wait; None has no limit, zero tries once.
            extend_timeout: Whether the execution timeout grows while the attempt waits (reason ``lock``), by at most
                ``timeout``.
            policy: The victim when a request closes a deadlock: its own run (``requester``), the ``youngest`` run of
                the cycle, or the run with the ``lowest_priority``.
            on_lost: What happens to the body when the lease is lost: ``cancel`` cancels it and fails the attempt with
                `LockLostError` (a synchronous body runs to its end first); ``flag`` only sets ``lease.is_lost``.

        Returns:
            A decorator; the function it returns behaves like the given one, without locks when called directly.

        Raises:
            DecorationError: No resource is named, ``key`` does not take one argument, or the decorated object is not a
                function. ``@client.batch_task`` raises it for an exclusive function.
            ConfigurationError: A name cannot name a resource, the timeout is negative or not a timedelta, or ``policy``
                or ``on_lost`` has another value.
        """
        mark = locks.exclusive_mark(
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
        self, *bare: Any, name: str | None = None, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a stand-alone task. Takes every keyword of the SDK's ``Hatchet.task`` and passes it on unchanged.

        The function may be synchronous (it runs in the worker's thread pool) or asynchronous. It gets what
        ``param_config`` and the decorators name: the message, the context, the signature; a function written for the
        plain client, ``(input, ctx)``, works unchanged. No connection is made and nothing runs until a worker has it.

        Telemetry: every attempt has a span ``process {task}``, ``mageflow_task_runs_total`` by outcome,
        ``mageflow_task_run_duration_seconds``, ``mageflow_task_queue_wait_seconds`` and the log event
        ``mageflow.task.finished`` (at level debug also ``mageflow.task.started``); every enqueue a span
        ``send {task}`` and ``mageflow_tasks_enqueued_total``.

        Args:
            bare: Nothing: as in the SDK, keywords only. The function, of a decorator without parentheses, is refused.
            name: The name in Hatchet and the label in telemetry; the function's name by default.
            input_validator: The input type. By default the SDK's ``EmptyModel`` for a function that the plain client
                runs as it stands, ``(input, ctx)`` without a decorator of mageflow. For any other function the
                annotation of the message, if it is a pydantic model, a dataclass, a TypedDict or a dict.
            options: ``execution_timeout`` (60 s) and ``schedule_timeout`` (5 min) as timedelta or text (``"90s"``);
                ``retries`` (0), ``backoff_factor``, ``backoff_max_seconds``; ``default_priority`` (1 low to 3 high),
                ``concurrency``, ``rate_limits``, ``slot_cost``, ``sticky``, ``desired_worker_labels``; ``on_events``,
                ``on_crons``, ``cron_input``, ``default_filters``; ``idempotency``, ``default_additional_metadata``,
                ``description``, ``version``.

        Returns:
            A decorator that makes a ``hatchet_sdk`` ``Standalone`` of the function: run it with ``aio_run`` or
            ``run``, sign it, register it on a worker.

        Raises:
            DecorationError: The decorated object is not a function, a parameter of it cannot be filled, or no message
                fits the type of its input. The message has the line to write.
            TypeError: There is no such option.
        """
        sdk.refuse_bare("client.task", bare)
        sdk.refuse_input_type("task", input_validator)
        sdk.refuse_absent(Hatchet.task, sdk.TaskOptions.__annotations__, options)

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
        self, *bare: Any, name: str | None = None, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a stand-alone durable task. Takes every keyword of the SDK's ``Hatchet.durable_task``, unchanged.

        A durable task may wait for hours without a slot: the engine evicts it while it waits and replays its body when
        it continues. One eviction is not the end of an attempt: telemetry counts the attempt once. A stagger delays the
        first invocation only. Locks of ``@client.exclusive`` are acquired again after an eviction.

        Telemetry is that of ``task``; the runs that it spawns are recorded as ``mageflow_tasks_enqueued_total``.

        Args:
            bare: Nothing: as in the SDK, keywords only. The function, of a decorator without parentheses, is refused.
            name: The name in Hatchet and the label in telemetry; the function's name by default.
            input_validator: The input type. By default the SDK's ``EmptyModel`` for a function that the plain client
                runs as it stands, ``(input, ctx)`` without a decorator of mageflow. For any other function the
                annotation of the message, if it is a pydantic model, a dataclass, a TypedDict or a dict.
            options: The options of ``task`` without ``slot_cost``, and ``eviction_policy``: when a waiting task may
                leave its slot (after 15 min, or when slots are short, by default).

        Returns:
            A decorator that makes a ``hatchet_sdk`` ``Standalone`` of the function.

        Raises:
            DecorationError: The decorated object is not a function, a parameter of it cannot be filled, or no message
                fits the type of its input. The message has the line to write.
            TypeError: There is no such option.
        """
        sdk.refuse_bare("client.durable_task", bare)
        sdk.refuse_input_type("durable_task", input_validator)
        sdk.refuse_absent(Hatchet.durable_task, sdk.DurableOptions.__annotations__, options)

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
    @sdk.signed_as(sdk.method_of(Hatchet, "batch_task"))
    def batch_task(  # pyright: ignore[reportIncompatibleMethodOverride] wider functions, same keywords
        self, *bare: Any, name: str | None = None, input_validator: Any = None, **options: Any
    ) -> Any:
        """Declare a stand-alone batch task. Takes every keyword of the SDK's ``Hatchet.batch_task``, unchanged.

        The engine collects runs until ``batch_max_size`` or ``batch_max_interval`` is reached, and calls the function
        once with a dictionary of their messages by task run id. The function returns a dictionary of outputs with the
        same keys, or one output for all with ``broadcast_output=True``.

        Telemetry is that of ``task``, with one attempt for each batch; the span attribute
        ``messaging.batch.message_count`` has its size.

        Args:
            bare: Nothing: as in the SDK, keywords only. The function, of a decorator without parentheses, is refused.
            name: The name in Hatchet and the label in telemetry; the function's name by default.
            input_validator: The type of one message. By default as in ``task``, from ``dict[BatchMemberId, Model]``.
            options: ``batch_max_size`` (1), ``batch_max_interval`` (timedelta), ``batch_group_key``,
                ``batch_group_max_runs``, ``broadcast_output``; ``execution_timeout`` (60 s) and ``schedule_timeout``
                (5 min) as timedelta or text; ``backoff_factor``, ``backoff_max_seconds``; ``default_priority``,
                ``rate_limits``, ``sticky``, ``desired_worker_labels``, ``default_filters``, ``description``,
                ``version``.

        Returns:
            A decorator that makes a ``hatchet_sdk`` ``Standalone`` of the function.

        Raises:
            DecorationError: The decorated object is not a function, a parameter of it cannot be filled, no message
                fits the type of its input, or it has a decorator that a batch cannot serve: ``with_signature``,
                ``stagger_execution`` or ``exclusive``.
        """
        sdk.refuse_bare("client.batch_task", bare)
        sdk.refuse_input_type("batch_task", input_validator)

        def decorate(func: Callable[..., Any]) -> Any:
            bound = self._declarations.bind(func, is_batch=True)
            validator = input_validator or bound.input_type
            declare = sdk.method_of(Hatchet, "batch_task")(self, name=name, input_validator=validator, **options)
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
        """Declare a workflow: tasks with parents and children. Takes every keyword of the SDK's ``Hatchet.workflow``.

        Declare its tasks with ``@workflow.task`` and the like; the decorators of the client go below them. Each task
        has the label ``workflow:task`` in telemetry and the signals of ``task``.

        Args:
            name: The name in Hatchet.
            input_validator: The input type of the run, which every task of the workflow gets as its message. By default
                the one type that its tasks name, by the rule of ``task``; else the SDK's ``EmptyModel``.
            options: ``task_defaults`` (``hatchet_sdk.TaskDefaults``: timeouts, retries and backoff for tasks that set
                none); ``default_priority`` (1 low to 3 high), ``concurrency``, ``sticky``; ``on_events``, ``on_crons``,
                ``cron_input``, ``default_filters``; ``idempotency``, ``default_additional_metadata``, ``description``,
                ``version``.

        Returns:
            A ``hatchet_sdk.Workflow`` whose decorators declare tasks of mageflow.

        Raises:
            DecorationError: No message fits ``input_validator``.
            TypeError: There is no such option.
        """
        sdk.refuse_input_type("workflow", input_validator)
        sdk.refuse_absent(Hatchet.workflow, sdk.WorkflowOptions.__annotations__, options)
        workflow = super().workflow(name=name, input_validator=input_validator, **options)
        infers = input_validator is None
        return sdk.MageflowWorkflow(cast("Any", workflow), self, self._declarations, infers_input=infers)
