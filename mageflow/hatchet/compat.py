"""The private names of the SDK around an attempt. More of them: the other files whose names end in ``compat.py``.

`SdkContext` is what the runner needs of one attempt.
``tests/contract/test_sdk_private_names.py`` fails when a new SDK version moves one of the names. Everything else in
mageflow uses the public API of the SDK.

Written against hatchet-sdk 1.43.1.
"""

import asyncio
import functools
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from contextvars import Context as Variables
from dataclasses import is_dataclass
from datetime import UTC
from typing import Any, cast

import grpc
from hatchet_sdk import Context, DurableContext
from hatchet_sdk.clients.admin import AdminClient
from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
from hatchet_sdk.connection import new_conn
from hatchet_sdk.contracts.dispatcher_pb2 import (
    RefreshTimeoutRequest,
    RefreshTimeoutResponse,
)
from hatchet_sdk.contracts.dispatcher_pb2_grpc import DispatcherStub
from hatchet_sdk.contracts.v1.workflows_pb2 import GetRunDetailsRequest, GetRunDetailsResponse
from hatchet_sdk.contracts.v1.workflows_pb2_grpc import AdminServiceStub
from hatchet_sdk.runnables.contextvars import (
    ctx_action_key,
    ctx_additional_metadata,
    ctx_step_run_id,
    ctx_workflow_run_id,
)
from hatchet_sdk.runnables.task import Depends, Task
from hatchet_sdk.runnables.types import EmptyModel, StepType
from hatchet_sdk.runnables.workflow import BaseWorkflow
from hatchet_sdk.serde import HATCHET_PYDANTIC_SENTINEL
from pydantic import BaseModel, TypeAdapter
from typing_extensions import override

from mageflow.errors import DispatchError, TimeoutExtensionError
from mageflow.hatchet import durations, outputs
from mageflow.hatchet.declaration_compat import config_of
from mageflow.hatchet.dependencies import InnerDependencies
from mageflow.hatchet.errors_map import describe
from mageflow.hatchet.sdk_names import (
    WorkflowRunTriggerConfig,
    create_authorization_header,
)
from mageflow.invocation import AttemptContext, AttemptState
from mageflow.signatures import unpack_result
from mageflow.types import WorkflowPart

# pyright: reportPrivateUsage=false

__all__ = [
    "HiddenFromLogForwarder",
    "SdkContext",
    "around_attempt",
    "around_batch",
    "dependency_type",
    "note_added",
    "outside_of_task",
    "run_details",
    "running_task_id",
]

AroundSpawns = Callable[[list[WorkflowRunTriggerConfig], Callable[..., Any]], Awaitable[Any]]
"""Spawns the children of a durable task: ``await around_spawns(configs, spawn)`` calls ``spawn``."""

dependency_type = Depends

_MOCK_ACTION_ID = "mock:action"
_DETAILS_TIMEOUT_SECONDS = 10.0
_EXTENSION_TIMEOUT_SECONDS = 5.0
"""The SDK waits 30 s. By then a task that needs more time has lost more than it can gain."""


class SdkContext(AttemptContext):
    """One attempt's context of the SDK, as `mageflow.invocation.AttemptContext`.

    Args:
        ctx: The SDK's context.
        task: The SDK's task.
        around_spawns: Spawns the children of a durable task.
    """

    def __init__(self, ctx: Context, task: Task[Any, Any], around_spawns: AroundSpawns) -> None:
        action = ctx._action
        self._ctx = ctx
        self._dispatcher = ctx._dispatcher_client
        self._task = task
        self._around_spawns = around_spawns
        self._part: WorkflowPart | None = None
        self.variables = Variables()
        self.workflow_run_id = ctx.workflow_run_id
        self.task_run_id = action.step_run_id
        self.worker_id = action.worker_id
        self.attempt_number = ctx.attempt_number
        self.max_attempts = ctx.max_attempts
        self.parent_task_id: str = action.parent_workflow_run_id or ""  # Hatchet sends the id of the task
        self.priority: int = ctx.priority or 1
        self.metadata: dict[str, Any] = dict(ctx.additional_metadata)
        self.member_ids = tuple(getattr(action, "batch_items", None) or ())  # since 1.37
        self.batch_size = len(self.member_ids) or 1
        # The public property warns about itself in 1.43.1.
        self.is_resumed = (action.durable_task_invocation_count or 1) > 1

    @property
    @override
    def workflow_part(self) -> WorkflowPart:
        # A signed attempt reads it four times.
        if self._part is None:
            self._part = _workflow_part(self._task, self._workflow())
        return self._part

    @property
    @override
    def workflow_name(self) -> str:
        return config_of(self._workflow()).name

    def _workflow(self) -> BaseWorkflow[Any]:
        return _workflow_of(self._ctx._action.action_id, self._task)

    @property
    @override
    def is_cancelled(self) -> bool:
        return self._ctx._exit_flag

    @override
    def cancel_flag(self) -> Callable[[], bool]:
        ctx = self._ctx
        return lambda: ctx._exit_flag

    @override
    def message(self) -> Any:
        return self._task._workflow._get_workflow_input(self._ctx)

    @override
    def input_json(self) -> str:
        return json.dumps(self._ctx._workflow_input)

    @override
    def observe(
        self, on_cancel: Callable[[], None], around_refresh: Callable[[float, Callable[[], None]], None]
    ) -> None:
        ctx = self._ctx
        _on_cancel(ctx, on_cancel)
        dispatcher = _ObservedDispatcher(ctx._dispatcher_client, around_refresh)
        ctx._dispatcher_client = cast("DispatcherClient", dispatcher)
        if isinstance(ctx, DurableContext):
            _around_spawns(ctx, self._around_spawns)

    @override
    def release(self) -> None:
        ctx = self._ctx
        for method in _OBSERVED:
            vars(ctx).pop(method, None)
        ctx._dispatcher_client = self._dispatcher

    @override
    async def extend_timeout(self, seconds: float) -> float:
        # Not `ctx.aio_refresh_timeout`: it takes a thread, and drops the engine's answer.
        dispatcher = self._ctx._dispatcher_client
        client = _aio_client(dispatcher)
        request = RefreshTimeoutRequest(
            task_run_external_id=self.task_run_id, increment_timeout_by=durations.milliseconds(seconds)
        )
        metadata = create_authorization_header(dispatcher.token)
        try:
            response: RefreshTimeoutResponse = await client.RefreshTimeout(
                request, timeout=_EXTENSION_TIMEOUT_SECONDS, metadata=metadata
            )
        except grpc.RpcError as error:
            raise TimeoutExtensionError(describe(error)) from error
        return response.timeout_at.ToDatetime(tzinfo=UTC).timestamp()

    @override
    def inherit_metadata(self, metadata: Mapping[str, Any]) -> None:
        ctx_additional_metadata.set(dict(metadata))

    @override
    async def cancel_run(self) -> None:
        try:
            await self._ctx.aio_cancel()
        except Exception as error:
            raise DispatchError(self._task.name, f"the run could not be cancelled: {error}") from error

    @override
    def sendable(self, output: object) -> object:
        # Without a return annotation the SDK serialises by its EmptyModel, which drops every field of a model.
        if self._task._validators.step_output._type is not EmptyModel or isinstance(output, EmptyModel):
            return output
        if isinstance(output, BaseModel) or (is_dataclass(output) and not isinstance(output, type)):
            adapter: TypeAdapter[Any] = TypeAdapter(type(output))
            fields = adapter.dump_python(output, mode="json", context=HATCHET_PYDANTIC_SENTINEL)
            return EmptyModel.model_validate(fields) if isinstance(fields, dict) else output
        return output if unpack_result(output) is output else EmptyModel.model_validate(output)

    @override
    def dump_output(self, output: object) -> str:
        dumped = outputs.serialize(self._task._validators.step_output, output) or "{}"
        limit_bytes = self._dispatcher.config.grpc_max_send_message_length
        outputs.refuse_too_large(self._ctx._action, limit_bytes, [dumped])
        return dumped

    @override
    def load_output(self, output_json: str) -> Any:
        return self._task._validators.step_output.validate_json(output_json, context=HATCHET_PYDANTIC_SENTINEL)


_OBSERVED = ("_set_cancellation_flag", "_spawn_children_no_wait")
"""Methods of the SDK's context that `SdkContext.observe` covers with attributes of the object."""

_ADDED_TO = "_mageflow_added_to"


def note_added(task: Task[Any, Any], workflow: BaseWorkflow[Any]) -> None:
    """Note that a stand-alone task is a task of this workflow too. The SDK's task knows only its own."""
    vars(task).setdefault(_ADDED_TO, []).append(workflow)


def _workflow_of(action_id: str, task: Task[Any, Any]) -> BaseWorkflow[Any]:
    """The workflow whose run calls for an action."""
    others: list[BaseWorkflow[Any]] | None = vars(task).get(_ADDED_TO)
    if not others:
        return task._workflow
    return next((each for each in others if each._create_action_name(task) == action_id), task._workflow)


def _workflow_part(task: Task[Any, Any], workflow: BaseWorkflow[Any]) -> WorkflowPart:
    if len(workflow.tasks) < 2:  # noqa: PLR2004 - several
        return ""
    return "task" if task.type is StepType.DEFAULT else "hook"


def around_attempt(
    task: Task[Any, Any],
    around: Callable[[AttemptContext], AbstractAsyncContextManager[object]],
    around_spawns: AroundSpawns,
    *,
    is_dependency: Callable[[object], bool],
) -> None:
    """Enter ``around(context)`` on the worker's event loop around everything the worker does for one attempt.

    What ``around`` yields reaches the task's function as the keyword `STATE_KEYWORD`, on the loop and in a thread.

    ``Runner.async_wrapped_action_func`` enters ``task._unpack_dependencies_with_cleanup(ctx)`` for coroutines and for
    functions that run in the thread pool, and hands its dictionary to the function as keywords. Batches do not pass
    there. For a function without ``Depends`` the dictionary is empty: then the SDK's method is not called, which reads
    the signature of the function and validates the input once more (20 µs).
    """
    # The SDK reads this signature too.
    parameters = inspect.signature(cast("Callable[..., Any]", task._fn)).parameters.values()
    has_dependencies = any(is_dependency(each.annotation) for each in parameters)
    unpack: Callable[[Context], AbstractAsyncContextManager[dict[str, Any]]] = task._unpack_dependencies_with_cleanup

    def unpack_within(ctx: Context) -> InnerDependencies:
        context = SdkContext(ctx, task, around_spawns)
        return InnerDependencies(context, around(context), unpack(ctx) if has_dependencies else None)

    task._unpack_dependencies_with_cleanup = cast("Any", unpack_within)


def around_batch(
    task: Task[Any, Any],
    on_loop: Callable[[AttemptContext], AbstractAsyncContextManager[AttemptState]],
    in_thread: Callable[[AttemptContext], AbstractContextManager[AttemptState]],
    around_spawns: AroundSpawns,
) -> None:
    """Enter ``on_loop(context)`` or ``in_thread(context)`` around the function of a batch task.

    ``Runner.handle_start_batch`` calls ``task._fn`` itself, a synchronous one in the thread pool. ``mock_run`` enters
    nothing.

    The worker examines the output after the function, and fails runs whose output it cannot report. Here it is examined
    by the same rules, so that the attempt ends as Hatchet sees it.
    """
    function = cast("Callable[..., Any]", task._fn)

    @functools.wraps(function)
    async def batch_on_loop(items: Any, ctx: Context, **dependencies: Any) -> Any:
        if _is_mock(ctx):
            return await function(items, ctx, **dependencies)
        async with on_loop(SdkContext(ctx, task, around_spawns)) as state:
            output = await function(items, ctx)
            state.member_errors = _batch_errors(task, ctx, output)
            return output

    @functools.wraps(function)
    def batch_in_thread(items: Any, ctx: Context, **dependencies: Any) -> Any:
        if _is_mock(ctx):
            return function(items, ctx, **dependencies)
        # The pooled thread has what the SDK left there for its last task.
        return Variables().run(call, items, ctx)

    def call(items: Any, ctx: Context) -> Any:
        with in_thread(SdkContext(ctx, task, around_spawns)) as state:
            output = function(items, ctx)
            state.member_errors = _batch_errors(task, ctx, output)
            return output

    task._fn = cast("Any", batch_on_loop if task._is_async_function else batch_in_thread)


def _aio_client(dispatcher: DispatcherClient) -> Any:
    make: Callable[[], Any] | None = getattr(dispatcher, "_get_or_create_aio_client", None)
    if make is not None:
        return make()
    # Up to 1.33 the SDK made it where it was used.
    if dispatcher.aio_client is None:
        dispatcher.aio_client = DispatcherStub(new_conn(dispatcher.config, aio=True))
    return dispatcher.aio_client


def _limit_bytes(ctx: Context) -> int:
    return ctx._dispatcher_client.config.grpc_max_send_message_length


def _batch_errors(task: Task[Any, Any], ctx: Context, output: Any) -> tuple[BaseException | None, ...]:
    return outputs.batch_errors(task, task._validators.step_output, ctx._action, _limit_bytes(ctx), output)


def _is_mock(ctx: Context) -> bool:
    """Whether the context was made by ``mock_run``."""
    return ctx._action.action_id == _MOCK_ACTION_ID


@contextmanager
def outside_of_task() -> Generator[None]:
    """Send runs inside this block without a parent, also when a task runs here.

    The SDK makes every run that is enqueued in a task its child. Two children of one task with the same index are the
    same run for the engine, and the indexes start again with each attempt. So the next step of a flow must be no child.
    """
    tokens = [(variable, variable.set(None)) for variable in (ctx_workflow_run_id, ctx_step_run_id, ctx_action_key)]
    metadata = ctx_additional_metadata.set(None)
    try:
        yield
    finally:
        ctx_additional_metadata.reset(metadata)
        for variable, token in tokens:
            cast("Any", variable).reset(token)


def running_task_id() -> str:
    """The id of the task that the SDK makes the parent of a run that is enqueued here; empty outside of tasks."""
    return ctx_step_run_id.get() or ""


class HiddenFromLogForwarder:
    """Inside this block Hatchet's log forwarder sees no run and forwards nothing (``LogForwardingHandler.emit``).

    Its queue of 1,000 lines is shared with the user's own lines, and one thread sends them with one call per line.

    Args:
        logger: The logger that the forwarder is a handler of while a worker runs (``ClientConfig.logger``).
    """

    __slots__ = ("_logger", "_token")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __enter__(self) -> None:
        """Hide the run."""
        for each in self._logger.handlers:
            # It would make the text of the record first, and then drop it.
            if type(each).__name__ == "LogForwardingHandler" and _is_of_run not in each.filters:
                each.addFilter(_is_of_run)
        self._token = ctx_step_run_id.set(None)

    def __exit__(self, *_: object) -> None:
        """Show it again."""
        ctx_step_run_id.reset(self._token)


def _is_of_run(_: logging.LogRecord) -> bool:
    return bool(ctx_step_run_id.get())


def _on_cancel(ctx: Context, callback: Callable[[], None]) -> None:
    """Call ``callback`` once on the running loop when the cancel flag is set, by the engine or by ``ctx.cancel()``."""
    loop = asyncio.get_running_loop()
    set_flag = ctx._set_cancellation_flag

    def set_flag_and_call() -> None:
        is_first = not ctx._exit_flag
        set_flag()
        if is_first:
            try:
                is_on_loop = asyncio.get_running_loop() is loop
            except RuntimeError:
                is_on_loop = False
            if is_on_loop:
                callback()
            else:
                loop.call_soon_threadsafe(callback)

    ctx._set_cancellation_flag = set_flag_and_call


def _around_spawns(ctx: DurableContext, around_spawns: AroundSpawns) -> None:
    """Have a durable context spawn its children through ``around_spawns``."""
    spawn = ctx._spawn_children_no_wait

    async def spawn_within(configs: list[WorkflowRunTriggerConfig]) -> Any:
        return await around_spawns(configs, spawn)

    ctx._spawn_children_no_wait = spawn_within


class _ObservedDispatcher:
    """A context's dispatcher whose ``refresh_timeout`` is observed; everything else is the original's."""

    def __init__(self, inner: DispatcherClient, around: Callable[[float, Callable[[], None]], None]) -> None:
        self._inner = inner
        self._around = around

    def refresh_timeout(self, step_run_id: str, increment_by: str) -> None:
        def request() -> None:
            self._inner.refresh_timeout(step_run_id, increment_by)

        try:
            seconds = durations.seconds(increment_by)
        except ValueError:
            request()  # the engine reports what is wrong with the duration
        else:
            self._around(seconds, request)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def run_details(admin: AdminClient, run_id: str) -> GetRunDetailsResponse | None:
    """The details of a run; None if the engine does not know it (``get_details`` waits for it to appear).

    Raises:
        grpc.RpcError: The engine could not be reached.
    """
    if admin.client is None:  # as the SDK does; up to 1.33 it has no method for it
        admin.client = AdminServiceStub(new_conn(admin.config, aio=False))
    try:
        response = cast("Any", admin.client).GetRunDetails(
            GetRunDetailsRequest(external_id=run_id),
            timeout=_DETAILS_TIMEOUT_SECONDS,
            metadata=create_authorization_header(admin.token),
        )
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    return cast("GetRunDetailsResponse", response)
