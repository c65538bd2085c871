"""Runs one attempt: admit, delay, bind, call, settle; and tells the interceptors what it does.

The SDK gives two places to stand. `TaskRunner.attempt` goes around the whole attempt on the event loop, for
coroutines and for functions that run in the thread pool alike, so that a delay holds no thread and settling never
blocks. `TaskRunner.function` replaces the user's function and only binds arguments. ``mock_run`` meets the second
alone: it needs no engine, no Redis and emits nothing.

A plain run touches no Redis. The order around a signed run's body is fixed: admission before, settlement after, each
one round trip; the user's own exception is never replaced by what goes wrong while settling.
"""

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from mageflow.errors import StoreError
from mageflow.interceptors import Attempt, Interceptor, TaskInfo, TimeoutExtension, current_attempt
from mageflow.invocation.binding import Binding
from mageflow.invocation.decorators import BodyLock
from mageflow.invocation.extension import TimeoutExtender
from mageflow.invocation.host import Host, TaskContext
from mageflow.invocation.outcome import classify
from mageflow.invocation.signed import Replay, SignedRuns, Skip
from mageflow.invocation.stagger import stagger
from mageflow.signatures import RunIdentity, TaskSignature
from mageflow.telemetry.names.traces import KEY_FLOW, KEY_SIGNATURE, OWN_KEYS
from mageflow.types import RandomSource

__all__ = ["InThread", "RunHooks", "RunnerServices", "TaskRunner"]


F = TypeVar("F", bound=Callable[..., Any])

_EVICTION_SECONDS = 0.5

_UNLOCKED: AbstractAsyncContextManager[None] = nullcontext()
"""Instead of a generator for each attempt of the many tasks that hold no lock."""


class InThread(Protocol):
    """Carries context (structlog's, OpenTelemetry's) into a pooled thread, and takes it out again."""

    def __call__(self, attempt: Attempt, /) -> AbstractContextManager[None]:
        """Enter in the thread, around the body."""
        ...


class RunHooks(Protocol):
    """Work to be done when an attempt ends, however it ends (locks are released here)."""

    async def __call__(self, attempt: Attempt, /) -> None:
        """Do it; must not raise."""
        ...


@dataclass(frozen=True, slots=True)
class RunnerServices:
    """What every task of one client shares."""

    host: Host
    interceptor: Interceptor
    random: RandomSource
    in_thread: InThread
    signed: SignedRuns
    extend: TimeoutExtender
    on_end: tuple[RunHooks, ...] = ()


@dataclass(slots=True)
class _Scope:
    """One attempt in flight."""

    attempt: Attempt
    ctx: Any
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled_after: float | None = None
    signature: TaskSignature | None = None
    replay_json: str | None = None
    result_json: str | None = None
    """The body's result, once there is one."""
    inherited: dict[str, Any] = field(default_factory=dict[str, Any])


class TaskRunner:
    """Everything mageflow does around one task's function."""

    def __init__(
        self,
        function: Callable[..., Any],
        binding: Binding,
        services: RunnerServices,
        *,
        locks: tuple[BodyLock, ...] = (),
        is_batch: bool = False,
    ) -> None:
        self._user_function = function
        self._binding = binding
        self._services = services
        self._locks = locks
        self._is_batch = is_batch
        self._scopes: dict[int, _Scope] = {}

    def attach(self, info: TaskInfo, sdk_task: Any) -> None:
        """Tell the runner what the SDK made of its function; called once, before the first attempt.

        Args:
            info: What the declaration came to.
            sdk_task: The SDK's task: results are serialised as it would.
        """
        self.info = info
        self._sdk_task = sdk_task

    # -- the function the SDK calls ------------------------------------------------------------------------------

    def function(self) -> Callable[..., Any]:
        """What to give the SDK in place of the user's function: same kind, name, signature and annotations."""
        user_function, binding, is_batch = self._user_function, self._binding, self._is_batch
        if inspect.iscoroutinefunction(user_function):

            @functools.wraps(user_function)
            async def call_async(message: Any, ctx: Any, /, **dependencies: Any) -> Any:
                scope = self._scopes.get(id(ctx))
                if is_batch and scope is None and not self._services.host.is_mock(ctx):
                    async with self.attempt(ctx):
                        return await call_async(message, ctx, **dependencies)
                if scope is not None and scope.replay_json is not None:
                    return self._services.host.load_output(self._sdk_task, scope.replay_json)
                signature = self._signature(ctx, scope) if binding.wants_signature else None
                positional, keywords = binding.arguments(message, ctx, signature, dependencies)
                result = await user_function(*positional, **keywords)
                self._keep(scope, result)
                return result

            return _with_evaluated_signature(call_async)

        @functools.wraps(user_function)
        def call_sync(message: Any, ctx: Any, /, **dependencies: Any) -> Any:
            if is_batch and not self._services.host.is_mock(ctx):
                with self._attempt_in_thread(ctx):
                    return self._call_sync(message, ctx, dependencies)
            return self._call_sync(message, ctx, dependencies)

        return _with_evaluated_signature(call_sync)

    def _call_sync(self, message: Any, ctx: Any, dependencies: Mapping[str, Any]) -> Any:
        scope = self._scopes.get(id(ctx))
        if scope is not None and scope.replay_json is not None:
            return self._services.host.load_output(self._sdk_task, scope.replay_json)
        positional, keywords = self._binding.arguments(
            message, ctx, self._signature(ctx, scope) if self._binding.wants_signature else None, dependencies
        )
        if scope is None:
            return self._user_function(*positional, **keywords)
        # In the pool's thread: the SDK copied a fixed list of its own variables here and no others.
        token = current_attempt.set(scope.attempt)
        scope.attempt.thread_running = True
        try:
            self._services.host.inherit_metadata(scope.inherited)
            with self._services.in_thread(scope.attempt):
                result = self._user_function(*positional, **keywords)
        finally:
            scope.attempt.thread_running = False
            current_attempt.reset(token)
        self._keep(scope, result)
        return result

    def _keep(self, scope: _Scope | None, result: Any) -> None:
        """Serialise the result as the worker will: one that cannot be sent fails the attempt here, and is counted."""
        if scope is not None and not self._is_batch:
            scope.result_json = self._services.host.dump_output(self._sdk_task, result)

    def _signature(self, ctx: TaskContext, scope: _Scope | None) -> TaskSignature:
        if scope is not None and scope.signature is not None:
            return scope.signature
        return TaskSignature.from_run(
            self.info.name,
            RunIdentity(ctx.workflow_run_id, ctx.task_run_id, ctx.worker_id, ctx.attempt_number),
        )

    # -- around the attempt --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def attempt(self, ctx: Any) -> AsyncGenerator[Attempt]:
        """Around everything Hatchet does for one attempt, from assignment on the event loop to its result."""
        scope = self._open(ctx)
        attempt = scope.attempt
        with self._services.interceptor.attempt(attempt), self._services.extend.serving(attempt, ctx):
            token = current_attempt.set(attempt)
            self._scopes[id(ctx)] = scope
            try:
                try:
                    await self._prepare(scope)
                    async with self._locked(scope) if self._locks else _UNLOCKED:
                        with self._services.interceptor.execute(attempt):
                            attempt.enter("running", "body")
                            yield attempt
                    if scope.cancelled_after is None:
                        await self._settle_success(scope)
                        self._conclude(scope, None)
                    else:
                        await self._settle_discarded(scope)
                except Skip as skip:
                    await self._turn_away(scope, skip)
                except BaseException as error:
                    self._conclude(scope, error)
                    await self._settle_failure(scope, error)
                    raise
            finally:
                del self._scopes[id(ctx)]
                attempt.charge()
                for hook in self._services.on_end:
                    await hook(attempt)
                current_attempt.reset(token)

    @contextmanager
    def _attempt_in_thread(self, ctx: Any) -> Generator[Attempt]:
        """Around a batch whose function is synchronous: the SDK goes to the thread pool before we are asked.

        A batch has no signature, no stagger and no lock of its own, so nothing here needs the event loop.
        """
        attempt = self._new_attempt(ctx)
        scope = _Scope(attempt, ctx)
        with self._services.interceptor.attempt(attempt):
            token = current_attempt.set(attempt)
            try:
                with self._services.interceptor.execute(attempt):
                    attempt.enter("running", "body")
                    yield attempt
            except BaseException as error:
                self._conclude(scope, error)
                raise
            else:
                scope.cancelled_after = attempt.elapsed_seconds if ctx.is_cancelled else None
                self._conclude(scope, None)
            finally:
                attempt.charge()
                current_attempt.reset(token)

    def _new_attempt(self, ctx: Any) -> Attempt:
        host = self._services.host
        metadata = dict(ctx.additional_metadata)
        attempt = Attempt(
            task=self.info,
            workflow_run_id=ctx.workflow_run_id,
            task_run_id=ctx.task_run_id,
            worker_id=ctx.worker_id,
            attempt_number=ctx.attempt_number,
            max_attempts=ctx.max_attempts,
            metadata=metadata,
            is_cancelled=lambda: bool(ctx.is_cancelled),
            batch_size=host.batch_size(ctx),
            signature_id=str(metadata.get(KEY_SIGNATURE) or ""),
            is_resumed=not host.is_first_invocation(ctx),
            priority=ctx.priority or 1,
        )
        _read_flow(attempt)
        return attempt

    def _open(self, ctx: Any) -> _Scope:
        host = self._services.host
        attempt = self._new_attempt(ctx)
        scope = _Scope(attempt, ctx)
        # Runs spawned from here must not inherit what was said about this run alone. Blank, not absent: the engine too
        # merges a parent's metadata into its children's.
        scope.inherited = {**attempt.metadata, **dict.fromkeys(OWN_KEYS, "")}
        host.inherit_metadata(scope.inherited)

        def cancelled() -> None:
            scope.cancelled_after = attempt.elapsed_seconds
            attempt.phase = "cancelling"
            scope.cancelled.set()

        host.on_cancel(ctx, cancelled)
        host.observe_refresh(ctx, functools.partial(self._user_extension, attempt))
        if self.info.pool == "durable":
            host.observe_durable_spawns(ctx)
        return scope

    async def _prepare(self, scope: _Scope) -> None:
        attempt = scope.attempt
        if attempt.signature_id:
            attempt.enter("loading", "signature_load")
            admitted = await self._services.signed.admit(attempt, self._services.host.message_json(scope.ctx))
            if isinstance(admitted, Replay):
                scope.replay_json = admitted.result_json
                return
            scope.signature = admitted
        if self.info.stagger_window_seconds is not None and not attempt.is_resumed:
            await stagger(
                attempt,
                window_seconds=self.info.stagger_window_seconds,
                random=self._services.random,
                extend=self._services.extend,
                interceptor=self._services.interceptor,
                cancelled=scope.cancelled,
            )

    @asynccontextmanager
    async def _locked(self, scope: _Scope) -> AsyncGenerator[None]:
        """Hold the locks the task's decorators ask for; on the loop, so that a waiting function holds no thread."""
        if scope.replay_json is not None:
            yield
            return
        message = self._services.host.message(self._sdk_task, scope.ctx)
        async with AsyncExitStack() as stack:
            for lock in self._locks:
                await stack.enter_async_context(lock.block(message))
            yield

    def _user_extension(self, attempt: Attempt, seconds: float, request: Callable[[], None]) -> None:
        call = TimeoutExtension(attempt, "user", seconds)
        with self._services.interceptor.extend_timeout(call):
            request()
            call.granted_seconds = seconds
            attempt.extended_seconds += seconds

    def _conclude(self, scope: _Scope, error: BaseException | None) -> None:
        attempt = scope.attempt
        attempt.exception = error
        attempt.evicted = self._is_eviction(scope, error)
        attempt.outcome = classify(
            attempt,
            error,
            cancelled_after=scope.cancelled_after,
            is_non_retryable=self._services.host.is_non_retryable,
        )
        attempt.will_retry = (
            attempt.outcome in ("retried", "timed_out") and attempt.attempt_number < attempt.max_attempts
        )

    def _is_eviction(self, scope: _Scope, error: BaseException | None) -> bool:
        """Whether a durable invocation was only put aside while it waits.

        The SDK cancels an evicted invocation in the moment it sets the cancel flag, and a cancelled one a second
        later (1.43.1, ``Runner._eviction_cancel_callback`` and ``Runner.handle_cancel_action``).
        """
        if self.info.pool != "durable" or scope.cancelled_after is None or scope.attempt.stage != "body":
            return False
        # A body may swallow the cancellation; asked on the loop, where alone a durable task runs.
        task = asyncio.current_task() if error is None else None
        was_cancelled = isinstance(error, asyncio.CancelledError) or (task is not None and task.cancelling() > 0)
        return was_cancelled and scope.attempt.elapsed_seconds - scope.cancelled_after < _EVICTION_SECONDS

    async def _turn_away(self, scope: _Scope, skip: Skip) -> None:
        scope.attempt.outcome = "skipped"
        scope.attempt.skip_reason = skip.status
        await self._services.host.cancel_run(scope.ctx)
        raise asyncio.CancelledError(f"not admitted: the signature is {skip.status}")

    async def _settle_success(self, scope: _Scope) -> None:
        attempt = scope.attempt
        if scope.signature is not None and scope.result_json is not None:
            attempt.enter("running", "callbacks")
            await self._services.signed.succeed(attempt, scope.result_json)

    async def _settle_discarded(self, scope: _Scope) -> None:
        """A body that saw the cancel signal and returned: the worker throws its result away, and so must a flow."""
        self._conclude(scope, None)
        await self._settle_failure(scope, asyncio.CancelledError("the run was cancelled before its body returned"))

    async def _settle_failure(self, scope: _Scope, error: BaseException) -> None:
        attempt = scope.attempt
        if scope.signature is None or attempt.evicted:
            return
        if scope.result_json is not None and isinstance(error, StoreError):
            return  # the body succeeded and could not be settled: not a failure of the task, the next attempt settles
        attempt.enter("running", "callbacks")
        await self._services.signed.fail(attempt, error, self._services.host.message_json(scope.ctx))


def _with_evaluated_signature(function: F) -> F:
    """Let the SDK see ``Depends`` in annotations that ``from __future__ import annotations`` has made text of."""
    with suppress(NameError):
        function.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return function


def _read_flow(attempt: Attempt) -> None:
    """Read ``<kind>:<id>:<step>`` from the run's metadata; anything else is somebody else's and ignored."""
    kind, _, rest = str(attempt.metadata.get(KEY_FLOW) or "").partition(":")
    flow_id, _, step = rest.rpartition(":")
    if kind in ("chain", "swarm") and flow_id and step.isdecimal():
        attempt.flow_kind = "chain" if kind == "chain" else "swarm"
        attempt.flow_id = flow_id
        attempt.flow_step = int(step)
