"""The only file that touches names the SDK keeps private.

Each function does one thing and names what it leans on; ``tests/contract/test_sdk_private_names.py`` fails when a new
SDK version moves one of them. Everything else in mageflow uses the SDK's public face.

Written against hatchet-sdk 1.43.1.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, Protocol, cast

import grpc
from hatchet_sdk import Context, Hatchet
from hatchet_sdk.clients.admin import AdminClient
from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
from hatchet_sdk.contracts.dispatcher_pb2 import RefreshTimeoutRequest, RefreshTimeoutResponse
from hatchet_sdk.contracts.v1.workflows_pb2 import GetRunDetailsRequest, GetRunDetailsResponse
from hatchet_sdk.runnables.contextvars import (
    ctx_action_key,
    ctx_additional_metadata,
    ctx_step_run_id,
    ctx_workflow_run_id,
)
from hatchet_sdk.runnables.task import Depends, Task
from hatchet_sdk.runnables.types import WorkflowConfig
from hatchet_sdk.runnables.workflow import BaseWorkflow, Standalone
from hatchet_sdk.serde import HATCHET_PYDANTIC_SENTINEL
from hatchet_sdk.types.trigger import WorkflowRunTriggerConfig
from hatchet_sdk.utils.api_auth import create_authorization_header
from hatchet_sdk.worker.runner.runner import Runner
from hatchet_sdk.worker.worker import LifespanFn, Worker

# pyright: reportPrivateUsage=false

__all__ = [
    "HiddenFromLogForwarder",
    "aio_refresh_timeout",
    "around_attempt",
    "batch_size",
    "config_of",
    "debug_of",
    "dependency_type",
    "dump_output",
    "invocation_count",
    "is_mock",
    "is_stub",
    "load_output",
    "message",
    "message_json",
    "observe_refresh",
    "observe_spawns",
    "on_cancel",
    "outside_of_task",
    "pool_of",
    "run_details",
    "set_inherited_metadata",
    "set_lifespan",
    "slots_of",
    "task_of",
    "tasks_of_worker",
]

dependency_type = Depends

_MOCK_ACTION_ID = "mock:action"
_DETAILS_TIMEOUT_SECONDS = 10.0
_STUBS_MODULE = "hatchet_sdk.features.stubs"


class _Around(Protocol):
    def __call__(self, ctx: Any, /) -> AbstractAsyncContextManager[Any]: ...


def around_attempt(task: Task[Any, Any], around: _Around) -> None:
    """Have the worker enter ``around(ctx)`` on its event loop around everything it does for one attempt.

    ``Runner.async_wrapped_action_func`` enters ``task._unpack_dependencies_with_cleanup(ctx)`` for coroutines and for
    functions that go to the thread pool alike; batches do not pass there.
    """
    unpack = task._unpack_dependencies_with_cleanup

    @asynccontextmanager
    async def unpack_within(ctx: Any) -> AsyncGenerator[dict[str, Any]]:
        async with around(ctx), unpack(ctx) as dependencies:
            yield dependencies

    task._unpack_dependencies_with_cleanup = unpack_within


def debug_of(hatchet: Hatchet) -> bool:
    """Whether a client was made with ``debug``, which its ``config`` need not say."""
    return hatchet._client.debug


def task_of(standalone: Standalone[Any, Any]) -> Task[Any, Any]:
    """The task inside a stand-alone task."""
    return standalone._task


def config_of(workflow: BaseWorkflow[Any]) -> WorkflowConfig:
    """A workflow's configuration, as declared (its ``name`` is not namespaced)."""
    return workflow._config


def pool_of(task: Task[Any, Any]) -> str:
    """Which slots the task takes: ``durable`` or ``default``."""
    return "durable" if task._is_durable else "default"


def is_stub(func: Callable[..., Any]) -> bool:
    """Whether the function is the placeholder of ``hatchet.stubs.task``: never called, only a name to trigger."""
    return getattr(func, "__module__", "") == _STUBS_MODULE


def is_mock(ctx: Context) -> bool:
    """Whether the context was made by ``mock_run``."""
    return ctx._action.action_id == _MOCK_ACTION_ID


def batch_size(ctx: Context) -> int:
    """How many items the attempt carries; 1 for what is no batch."""
    return len(ctx._action.batch_items or ()) or 1


def invocation_count(ctx: Context) -> int:
    """From 1; more when a durable task was resumed (the public property warns about itself in 1.43.1)."""
    return ctx._action.durable_task_invocation_count or 1


def message(task: Task[Any, Any], ctx: Context) -> Any:
    """The run's input, validated as the SDK does."""
    return task._workflow._get_workflow_input(ctx)


def message_json(ctx: Context) -> str:
    """The run's input as JSON text."""
    return json.dumps(ctx._workflow_input)


@contextmanager
def outside_of_task() -> Generator[None]:
    """Hand over runs that are nobody's children, though a task may be running here.

    The SDK makes every run enqueued in a task its child, and the engine takes two children of one task with the same
    index for the same one. The indexes start again on each attempt, so a flow's next step must not be among them.
    """
    tokens = [(variable, variable.set(None)) for variable in (ctx_workflow_run_id, ctx_step_run_id, ctx_action_key)]
    metadata = ctx_additional_metadata.set(None)
    try:
        yield
    finally:
        ctx_additional_metadata.reset(metadata)
        for variable, token in tokens:
            cast("Any", variable).reset(token)


class HiddenFromLogForwarder:
    """Inside of this block Hatchet's log forwarder sees no run, and forwards nothing (``LogForwardingHandler.emit``).

    Its queue of 1,000 is shared with the user's own lines and emptied by one thread with one call per line.
    """

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        """Hide the run."""
        self._token = ctx_step_run_id.set(None)

    def __exit__(self, *_: object) -> None:
        """Show it again."""
        ctx_step_run_id.reset(self._token)


def on_cancel(ctx: Context, callback: Callable[[], None]) -> None:
    """Call ``callback`` once on the running loop when the cancel flag is set, by the engine or by ``ctx.cancel()``."""
    loop = asyncio.get_running_loop()
    set_flag = ctx._set_cancellation_flag

    def set_flag_and_tell() -> None:
        is_first = not ctx.is_cancelled
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

    ctx._set_cancellation_flag = set_flag_and_tell


class _ObservedDispatcher:
    """A context's dispatcher whose ``refresh_timeout`` is observed; everything else is the original's."""

    def __init__(self, inner: DispatcherClient, around: Callable[[str, Callable[[], None]], None]) -> None:
        self._inner = inner
        self._around = around

    def refresh_timeout(self, step_run_id: str, increment_by: str) -> None:
        self._around(increment_by, lambda: self._inner.refresh_timeout(step_run_id, increment_by))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def observe_refresh(ctx: Context, around: Callable[[str, Callable[[], None]], None]) -> None:
    """Have ``ctx.refresh_timeout`` make its request inside ``around(duration, request)``."""
    ctx._dispatcher_client = cast("DispatcherClient", _ObservedDispatcher(ctx._dispatcher_client, around))


async def aio_refresh_timeout(ctx: Context, increment_by: str, *, timeout_seconds: float) -> RefreshTimeoutResponse:
    """Ask the engine for more time without a thread, and get its answer (``ctx.refresh_timeout`` drops it).

    Raises:
        grpc.RpcError: The engine refused or could not be reached.
    """
    dispatcher = ctx._dispatcher_client
    response = await cast("Any", dispatcher._get_or_create_aio_client()).RefreshTimeout(
        RefreshTimeoutRequest(task_run_external_id=ctx.task_run_id, increment_timeout_by=increment_by),
        timeout=timeout_seconds,
        metadata=create_authorization_header(dispatcher.token),
    )
    return cast("RefreshTimeoutResponse", response)


def run_details(admin: AdminClient, run_id: str) -> GetRunDetailsResponse | None:
    """What the engine says of a run; None when it does not know it (``get_details`` waits for it to appear).

    Raises:
        grpc.RpcError: The engine could not be reached.
    """
    try:
        response = cast("Any", admin._get_or_create_v1_client()).GetRunDetails(
            GetRunDetailsRequest(external_id=run_id),
            timeout=_DETAILS_TIMEOUT_SECONDS,
            metadata=create_authorization_header(admin.token),
        )
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    return cast("GetRunDetailsResponse", response)


def observe_spawns(ctx: Any, around: Callable[[list[WorkflowRunTriggerConfig], Callable[..., Any]], Any]) -> None:
    """Have a durable context spawn its children through ``around(configs, spawn)``, a coroutine function."""
    spawn = ctx._spawn_children_no_wait

    async def spawn_within(configs: list[WorkflowRunTriggerConfig]) -> Any:
        return await around(configs, spawn)

    ctx._spawn_children_no_wait = spawn_within


def set_inherited_metadata(metadata: Mapping[str, Any]) -> None:
    """Set what the SDK merges into the metadata of every run spawned from this context."""
    ctx_additional_metadata.set(dict(metadata))


def dump_output(task: Task[Any, Any], output: object) -> str:
    """The JSON text the worker would send for ``output``; ``{}`` for an empty one.

    Raises:
        hatchet_sdk.exceptions.IllegalTaskOutputError: As the worker would.
    """
    # Runner.serialize_output looks at its arguments only; calling it keeps one rule for what may be sent.
    return Runner.serialize_output(cast("Runner", None), task._validators.step_output, output) or "{}"


def load_output(task: Task[Any, Any], output_json: str) -> Any:
    """The object that ``output_json`` was made from."""
    return task._validators.step_output.validate_json(output_json, context=HATCHET_PYDANTIC_SENTINEL)


def slots_of(worker: Worker) -> dict[str, int]:
    """A worker's slots by pool."""
    return dict(worker._slot_config)


def tasks_of_worker(worker: Worker) -> list[Task[Any, Any]]:
    """The tasks registered on a worker so far."""
    return list(worker._action_registry.values())


def set_lifespan(worker: Worker, lifespan: LifespanFn) -> LifespanFn | None:
    """Replace the worker's lifespan and get the one it had; before the worker starts."""
    previous = worker._lifespan
    worker._lifespan = lifespan
    return previous
