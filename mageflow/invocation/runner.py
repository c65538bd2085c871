"""Runs one attempt of a task: admit, delay, bind arguments, call the function, settle.

The SDK gives two places. `TaskRunner.around_attempt` runs around the whole attempt on the event loop, for coroutines
and for functions in the thread pool alike, so that a delay holds no thread and settling never blocks.
`TaskRunner.function` replaces the user's function: it binds arguments and calls it. The first makes one
`AttemptState`; the second receives it as a keyword. Without a state the function only binds: ``mock_run`` needs no
engine, no Redis and emits nothing, and a batch has neither a signature nor one result.

A plain run does not use Redis. For a signed run, admission comes before the body and settlement after it, each one
round trip. An error while settling never replaces the user's own exception.
"""

import asyncio
import dataclasses
import functools
import inspect
import json
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from mageflow.errors import StoreError
from mageflow.interceptors import Attempt, Interceptor, TaskInfo, TimeoutExtension, current_attempt
from mageflow.invocation.attempt_state import AttemptState
from mageflow.invocation.binding import Binding
from mageflow.invocation.confirmation import OutcomeConfirmations
from mageflow.invocation.context import STATE_KEYWORD, AttemptContext
from mageflow.invocation.decorators import BodyLock
from mageflow.invocation.extension import TimeoutExtender
from mageflow.invocation.outcome import classify, failure, worst
from mageflow.invocation.shutdown import GivenBackError, Shutdown
from mageflow.invocation.signed import Replay, SignedRuns, Skip
from mageflow.invocation.stagger import stagger
from mageflow.signatures import RunIdentity, TaskSignature, pack_result, unpack_result
from mageflow.types import RandomSource

__all__ = ["RunHooks", "RunnerServices", "TaskRunner"]


F = TypeVar("F", bound=Callable[..., Any])

_EVICTION_SECONDS = 0.5

_UNLOCKED: AbstractAsyncContextManager[None] = nullcontext()
"""For tasks without locks: it saves a generator for each attempt."""


class RunHooks(Protocol):
    """Work at the end of every attempt, with any outcome (locks are released here)."""

    async def __call__(self, attempt: Attempt, /) -> None:
        """Do the work. Must not raise."""
        ...


@dataclass(frozen=True, slots=True)
class RunnerServices:
    """The parts that all tasks of one client share."""

    interceptor: Interceptor
    random: RandomSource
    signed: SignedRuns
    extend: TimeoutExtender
    confirmations: OutcomeConfirmations
    is_non_retryable: Callable[[BaseException], bool]
    """Whether the engine makes no further attempt after an error."""
    shutdown: Shutdown
    """Whether a worker stops: attempts that sleep give their runs back."""
    on_end: tuple[RunHooks, ...] = ()


class TaskRunner:
    """Everything mageflow does around the function of one task.

    Args:
        function: The user's function.
        binding: Which arguments it gets.
        services: What the tasks of one client share.
        locks: Locks to hold around the body, outermost first.
    """

    info: TaskInfo
    """The task as the SDK declared it. Set after the declaration and before the first attempt."""

    def __init__(
        self,
        function: Callable[..., Any],
        binding: Binding,
        services: RunnerServices,
        *,
        locks: tuple[BodyLock, ...] = (),
    ) -> None:
        self._user_function = function
        self._binding = binding
        self._services = services
        self._locks = locks

    # -- the function the SDK calls ------------------------------------------------------------------------------

    def function(self) -> Callable[..., Any]:
        """The function for the SDK, with the kind, name, signature and annotations of the user's function."""
        user_function = self._user_function
        if inspect.iscoroutinefunction(user_function):

            @functools.wraps(user_function)
            async def call_async(message: Any, ctx: Any, /, **dependencies: Any) -> Any:
                state: AttemptState | None = dependencies.pop(STATE_KEYWORD, None)
                if state is None:
                    positional, keywords = self._arguments(message, ctx, None, dependencies)
                    return await user_function(*positional, **keywords)
                if state.replay_json is not None:
                    return _replayed(state.context, state.replay_json)
                positional, keywords = self._arguments(message, ctx, state, dependencies)
                return self._keep(state, await user_function(*positional, **keywords))

            return _with_evaluated_signature(call_async)

        @functools.wraps(user_function)
        def call_sync(message: Any, ctx: Any, /, **dependencies: Any) -> Any:
            state: AttemptState | None = dependencies.pop(STATE_KEYWORD, None)
            if state is None:
                positional, keywords = self._arguments(message, ctx, None, dependencies)
                return user_function(*positional, **keywords)
            if state.replay_json is not None:
                return _replayed(state.context, state.replay_json)
            # Otherwise the variables of interceptors and loggers would not arrive, and what this body sets would be
            # there for the next task of the pooled thread.
            return state.context.variables.run(call_in_thread, state, message, ctx, dependencies)

        def call_in_thread(state: AttemptState, message: Any, ctx: Any, dependencies: Mapping[str, Any]) -> Any:
            positional, keywords = self._arguments(message, ctx, state, dependencies)
            with self._in_thread(state):
                result = user_function(*positional, **keywords)
            return self._keep(state, result)

        return _with_evaluated_signature(call_sync)

    def _arguments(
        self, message: Any, ctx: Any, state: AttemptState | None, dependencies: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        signature = self._signature(ctx, state) if self._binding.wants_signature else None
        return self._binding.arguments(message, ctx, signature, dependencies)

    @contextmanager
    def _in_thread(self, state: AttemptState) -> Generator[None]:
        attempt = state.attempt
        attempt.thread_running = True
        try:
            with self._services.interceptor.execute_in_thread(attempt):
                yield
        finally:
            attempt.thread_running = False

    def _keep(self, state: AttemptState, result: Any) -> Any:
        """Serialise the result as the worker does. One that cannot be sent fails the attempt here, and is counted.

        Returns what Hatchet gets. Hatchet takes objects only, so another result of a signed run is packed into one.
        """
        if not state.is_settled_here or result is None or _is_object(result):
            output = state.context.sendable(result)
            state.result_json = state.context.dump_output(output)
            return output
        packed = state.context.sendable(pack_result(result))
        state.result_json = json.dumps(unpack_result(json.loads(state.context.dump_output(packed))))
        return packed

    def _signature(self, ctx: Any, state: AttemptState | None) -> TaskSignature:
        if state is not None and state.signature is not None:
            return state.signature
        # ``ctx`` is the SDK's context: also ``mock_run`` has one with ids.
        return TaskSignature.from_run(
            self.info.name,
            RunIdentity(ctx.workflow_run_id, ctx.task_run_id, ctx.worker_id, ctx.attempt_number),
        )

    # -- around the attempt --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def around_attempt(self, context: AttemptContext) -> AsyncGenerator[AttemptState]:
        """Around everything Hatchet does for one attempt, from assignment on the event loop to its result."""
        state = self._open(context)
        attempt, services = state.attempt, self._services
        with (
            services.confirmations.following(attempt),
            services.interceptor.attempt(attempt),
            services.extend.serving(attempt, context),
        ):
            token = current_attempt.set(attempt)
            try:
                try:
                    await self._prepare(state)
                    async with self._locked(state) if self._locks else _UNLOCKED:
                        with self._services.interceptor.execute(attempt):
                            attempt.enter("running", "body")
                            yield state
                    if state.cancelled_after is None:
                        await self._settle_success(state)
                        self._conclude(state, None)
                    else:
                        await self._settle_discarded(state)
                except Skip as skip:
                    await self._turn_away(state, skip)
                except BaseException as error:
                    self._conclude(state, error)
                    await self._settle_failure(state, error)
                    raise
            finally:
                for hook in services.on_end:
                    await hook(attempt)
                attempt.end()
                if state.signature is not None and not state.is_settled_here and not attempt.evicted:
                    services.signed.task_ended(attempt)
                if not state.is_answered:
                    services.confirmations.examine(attempt, state.cancelled_after)
                current_attempt.reset(token)

    @contextmanager
    def around_batch_in_thread(self, context: AttemptContext) -> Generator[AttemptState]:
        """Around a batch whose function is synchronous: the SDK enters the thread pool before it calls mageflow.

        A batch has no signature, no stagger and no lock of its own, so nothing here needs the event loop, and its
        function needs no state.
        """
        state = AttemptState.open(self.info, context)
        attempt, services = state.attempt, self._services
        with services.confirmations.following(attempt), services.interceptor.attempt(attempt):
            token = current_attempt.set(attempt)
            try:
                with services.interceptor.execute(attempt):
                    attempt.enter("running", "body")
                    yield state
            except BaseException as error:
                self._conclude(state, error)
                raise
            else:
                state.cancelled_after = attempt.elapsed_seconds if context.is_cancelled else None
                self._conclude(state, None)
            finally:
                attempt.end()
                services.confirmations.examine(attempt, state.cancelled_after)
                current_attempt.reset(token)

    def _open(self, context: AttemptContext) -> AttemptState:
        state = AttemptState.open(self.info, context)
        attempt = state.attempt
        context.inherit_metadata(state.inherited)

        def cancelled() -> None:
            state.cancelled_after = attempt.elapsed_seconds
            attempt.phase = "cancelling"
            state.cancelled.set()

        context.observe(cancelled, functools.partial(self._user_extension, attempt))
        return state

    async def _prepare(self, state: AttemptState) -> None:
        attempt = state.attempt
        if attempt.signature_key:
            attempt.enter("loading", "signature_load")
            admitted = await self._services.signed.admit(
                attempt,
                state.context.input_json(),
                workflow=state.context.workflow_part,
                workflow_name=state.context.workflow_name,
            )
            if isinstance(admitted, Replay):
                state.replay_json = admitted.result_json
                return
            state.signature = admitted
        if self.info.stagger_window_seconds is not None and not attempt.is_resumed:
            await stagger(
                attempt,
                window_seconds=self.info.stagger_window_seconds,
                random=self._services.random,
                extend=self._services.extend,
                interceptor=self._services.interceptor,
                cancelled=state.cancelled,
                stopping=self._services.shutdown.event(),
            )

    @asynccontextmanager
    async def _locked(self, state: AttemptState) -> AsyncGenerator[None]:
        """Hold the locks of the task's decorators. On the event loop, so that a waiting function holds no thread."""
        if state.replay_json is not None:
            yield
            return
        message = state.context.message()
        async with AsyncExitStack() as stack:
            async with self._services.shutdown.giving_back("a lock"):
                for lock in self._locks:
                    await stack.enter_async_context(lock.block(message))
            yield

    def _user_extension(self, attempt: Attempt, seconds: float, request: Callable[[], None]) -> None:
        call = TimeoutExtension(attempt, "user", seconds)
        with self._services.interceptor.extend_timeout(call):
            try:
                request()
            except BaseException:
                attempt.refused_extensions += 1
                raise
            call.granted_seconds = seconds
            attempt.extended_seconds += seconds

    def _conclude(self, state: AttemptState, error: BaseException | None) -> None:
        attempt = state.attempt
        attempt.exception = error
        attempt.evicted = self._is_eviction(state, error)
        attempt.outcome = classify(
            attempt,
            error,
            cancelled_after=state.cancelled_after,
            is_non_retryable=self._services.is_non_retryable,
        )
        if attempt.member_ids:
            self._conclude_members(state)
        attempt.will_retry = (
            attempt.outcome in ("retried", "timed_out") and attempt.attempt_number < attempt.max_attempts
        )

    def _conclude_members(self, state: AttemptState) -> None:
        attempt = state.attempt
        if attempt.outcome is None:
            return
        if attempt.outcome != "succeeded" or not any(state.member_errors):
            attempt.member_outcomes = (attempt.outcome,) * len(attempt.member_ids)
            attempt.member_errors = (attempt.exception,) * len(attempt.member_ids)
            return
        # Not the rule for the whole batch: the SDK lets Hatchet retry a run of a batch that it cannot report.
        errors = attempt.member_errors = state.member_errors
        attempt.member_outcomes = tuple("succeeded" if each is None else failure(attempt) for each in errors)
        attempt.outcome = worst(attempt.member_outcomes)
        attempt.exception = next(each for each in state.member_errors if each is not None)

    def _is_eviction(self, state: AttemptState, error: BaseException | None) -> bool:
        """Whether a durable invocation was evicted: it waits, and continues later.

        The SDK cancels an evicted invocation at the moment it sets the cancel flag, and a cancelled one a second later
        (1.43.1, ``Runner._eviction_cancel_callback`` and ``Runner.handle_cancel_action``).

        A run that a stopping worker gives back is treated alike: another worker continues.
        """
        if isinstance(error, GivenBackError):
            return True
        if self.info.pool != "durable" or state.cancelled_after is None or state.attempt.stage != "body":
            return False
        # A body may swallow the cancellation, so the asyncio task is examined: a durable task runs on the event loop.
        task = asyncio.current_task() if error is None else None
        was_cancelled = isinstance(error, asyncio.CancelledError) or (task is not None and task.cancelling() > 0)
        return was_cancelled and state.attempt.elapsed_seconds - state.cancelled_after < _EVICTION_SECONDS

    async def _turn_away(self, state: AttemptState, skip: Skip) -> None:
        state.attempt.outcome = "skipped"
        state.attempt.skip_reason = skip.status
        await state.context.cancel_run()
        raise asyncio.CancelledError(f"not admitted: the signature is {skip.status}")

    async def _settle_success(self, state: AttemptState) -> None:
        attempt = state.attempt
        if state.is_settled_here and state.result_json is not None:
            attempt.enter("running", "callbacks")
            await self._services.signed.succeed(attempt, state.result_json)

    async def _settle_discarded(self, state: AttemptState) -> None:
        """Settle a body that saw the cancel signal and returned: the worker discards its result, and so does a flow."""
        self._conclude(state, None)
        await self._settle_failure(state, asyncio.CancelledError("the run was cancelled before its body returned"))

    async def _settle_failure(self, state: AttemptState, error: BaseException) -> None:
        attempt = state.attempt
        if not state.is_settled_here or attempt.evicted:
            return
        if state.result_json is not None and isinstance(error, StoreError):
            return  # the body succeeded, only its settlement failed: the next attempt settles
        attempt.enter("running", "callbacks")
        state.is_answered = await self._services.signed.fail(attempt, error, state.context.input_json())


def _is_object(result: object) -> bool:
    return isinstance(result, Mapping | BaseModel) or dataclasses.is_dataclass(result)


def _replayed(context: AttemptContext, result_json: str) -> Any:
    """A stored result as the object from which the SDK makes the same output again."""
    result = json.loads(result_json)
    return context.load_output(result_json) if isinstance(result, dict) else context.sendable(pack_result(result))


def _with_evaluated_signature(function: F) -> F:
    """Show the SDK the ``Depends`` in annotations that are text because of ``from __future__ import annotations``."""
    with suppress(NameError):
        function.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return function
