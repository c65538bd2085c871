"""The way around one attempt: admit, delay, lock, call, conclude, settle, record."""

import asyncio
import functools
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from contextvars import Token
from types import TracebackType
from typing import Protocol

from mageflow._frozen import frozen
from mageflow.errors import StoreError
from mageflow.interceptors import Attempt, Interceptor, TaskInfo, TimeoutExtension, current_attempt
from mageflow.invocation.attempt_state import AttemptState
from mageflow.invocation.confirmation import OutcomeConfirmations
from mageflow.invocation.context import AttemptContext
from mageflow.invocation.decorators import BodyLock
from mageflow.invocation.extension import TimeoutExtender
from mageflow.invocation.outcome import classify, failure, worst
from mageflow.invocation.shutdown import GivenBackError, Shutdown
from mageflow.invocation.signed import Replay, SignedRuns, Skip
from mageflow.invocation.stagger import stagger
from mageflow.types import RandomSource

__all__ = ["AroundAttempt", "RunHooks", "RunnerServices", "around_batch_in_thread"]

_EVICTION_SECONDS = 0.5


class RunHooks(Protocol):
    """Work at the end of every attempt, with any outcome (locks are released here)."""

    async def __call__(self, attempt: Attempt, /) -> None:
        """Do the work. Must not raise."""
        ...


@frozen
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


class AroundAttempt:
    """Around everything Hatchet does for one attempt. Entering gives its `AttemptState`.

    A class with slots, because it runs around every attempt: an asynchronous generator, and a generator for each of the
    contexts that it enters, take four microseconds more.

    Args:
        services: What the tasks of one client share.
        info: The task.
        locks: Locks to hold around the body, outermost first.
        context: The attempt's context of the SDK.
        wants_signature: Whether the task function takes its signature.
    """

    __slots__ = (
        "_context",
        "_execution",
        "_held",
        "_info",
        "_locks",
        "_recording",
        "_services",
        "_state",
        "_token",
        "_wants_signature",
    )

    def __init__(
        self,
        services: RunnerServices,
        info: TaskInfo,
        locks: tuple[BodyLock, ...],
        context: AttemptContext,
        *,
        wants_signature: bool,
    ) -> None:
        self._services = services
        self._info = info
        self._locks = locks
        self._context = context
        self._wants_signature = wants_signature
        self._state: AttemptState
        self._token: Token[Attempt | None]
        self._recording: AbstractContextManager[object]
        """What the interceptors do around the attempt."""
        self._execution: AbstractContextManager[object] | None = None
        """What they do around the body; None if it was not entered, and if `_held` has it."""
        self._held: AsyncExitStack | None = None
        """The locks."""

    # -- entry ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> AttemptState:
        services, state = self._services, self._open()
        attempt = state.attempt
        self._recording = services.interceptor.attempt(attempt)
        self._recording.__enter__()
        services.confirmations.look_back(attempt)
        services.extend.begin(attempt, self._context)
        self._token = current_attempt.set(attempt)
        try:
            if attempt.signature_key or self._info.stagger_window_seconds is not None:
                await self._prepare(state)
            if self._locks and state.replay_json is None:
                await self._lock()
            execution = services.interceptor.execute(attempt)
            if self._held is None:
                execution.__enter__()
                self._execution = execution
            else:
                self._held.enter_context(execution)
            attempt.enter("running", "body")
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return state

    def _open(self) -> AttemptState:
        context = self._context
        state = self._state = AttemptState.open(self._info, context)
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
            async with self._services.shutdown.giving_back("Redis"):
                admitted = await self._services.signed.admit(
                    attempt,
                    state.context.input_json(),
                    workflow=state.context.workflow_part,
                    workflow_name=state.context.workflow_name,
                    wants_signature=self._wants_signature,
                )
            if isinstance(admitted, Replay):
                state.replay_json = admitted.result_json
                return
            if admitted is not None:
                state.is_admitted, state.signature = True, admitted.signature
        if self._info.stagger_window_seconds is not None and not attempt.is_resumed:
            await stagger(
                attempt,
                window_seconds=self._info.stagger_window_seconds,
                random=self._services.random,
                extend=self._services.extend,
                interceptor=self._services.interceptor,
                cancelled=state.cancelled,
                stopping=self._services.shutdown.event(),
            )

    async def _lock(self) -> None:
        """Take the locks of the task's decorators. On the event loop, so that a waiting function holds no thread."""
        message = self._context.message()
        async with AsyncExitStack() as stack:
            async with self._services.shutdown.giving_back("a lock"):
                for lock in self._locks:
                    await stack.enter_async_context(lock.block(message))
            self._held = stack.pop_all()

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

    # -- exit ----------------------------------------------------------------------------------------------------

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            try:
                await self._finish(kind, error, traceback)
            finally:
                await self._close()
        except BaseException as another:
            self._leave(type(another), another, another.__traceback__)
            if another is not error:
                raise
        else:
            self._leave(kind, error, traceback)

    async def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Conclude and settle. Raises what takes the place of the error with which the body was left."""
        try:
            if self._execution is not None:
                self._execution.__exit__(kind, error, traceback)
            if self._held is not None:
                await self._held.__aexit__(kind, error, traceback)
            if error is None:
                if self._state.cancelled_after is None and not self._state.is_admitted:
                    self._conclude(None)
                else:
                    await self._succeed()
        except BaseException as another:
            await self._fail(another)
            raise
        if error is not None:
            await self._fail(error)

    async def _succeed(self) -> None:
        state = self._state
        if state.cancelled_after is None:
            await self._settle_success(state)
            self._conclude(None)
        else:
            await self._settle_discarded(state)

    async def _fail(self, error: BaseException) -> None:
        if isinstance(error, Skip):
            await self._turn_away(self._state, error)
        else:
            self._conclude(error)
            await self._settle_failure(self._state, error)

    async def _close(self) -> None:
        services, state = self._services, self._state
        attempt = state.attempt
        for hook in services.on_end:
            await hook(attempt)
        attempt.end()
        if state.is_admitted and not state.is_settled_here and not attempt.evicted:
            services.signed.task_ended(attempt)
        if not state.is_answered:
            services.confirmations.examine(attempt, state.cancelled_after)

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        services, attempt = self._services, self._state.attempt
        current_attempt.reset(self._token)
        services.extend.end(attempt)
        try:
            self._recording.__exit__(kind, error, traceback)
        finally:
            services.confirmations.follow(attempt)
            if not attempt.thread_running:  # an orphan may use the context yet
                self._context.release()

    def _conclude(self, error: BaseException | None) -> None:
        _conclude(self._services, self._state, error)

    async def _turn_away(self, state: AttemptState, skip: Skip) -> None:
        state.attempt.outcome = "skipped"
        state.attempt.skip_reason = skip.status
        if not skip.is_overtaken:  # the run goes on in another attempt, and Hatchet does not wait for this one
            await state.context.cancel_run()
        raise asyncio.CancelledError(f"not admitted: the signature is {skip.status}")

    async def _settle_success(self, state: AttemptState) -> None:
        attempt = state.attempt
        if state.is_settled_here and state.result_json is not None:
            attempt.enter("running", "callbacks")
            await self._services.signed.succeed(attempt, state.result_json)

    async def _settle_discarded(self, state: AttemptState) -> None:
        """Settle a body that saw the cancel signal and returned: the worker discards its result, and so does a flow."""
        self._conclude(None)
        await self._settle_failure(state, asyncio.CancelledError("the run was cancelled before its body returned"))

    async def _settle_failure(self, state: AttemptState, error: BaseException) -> None:
        attempt = state.attempt
        if not state.is_settled_here or attempt.evicted:
            return
        if state.result_json is not None and isinstance(error, StoreError):
            return  # the body succeeded, only its settlement failed: the next attempt settles
        attempt.enter("running", "callbacks")
        state.is_answered = await self._services.signed.fail(attempt, error, state.context.input_json())


@contextmanager
def around_batch_in_thread(
    services: RunnerServices, info: TaskInfo, context: AttemptContext
) -> Generator[AttemptState]:
    """Around a batch whose function is synchronous: the SDK enters the thread pool before it calls mageflow.

    A batch has no signature, no stagger and no lock of its own, so nothing here needs the event loop, and its
    function needs no state.
    """
    state = AttemptState.open(info, context)
    attempt = state.attempt
    try:
        with services.interceptor.attempt(attempt):
            token = current_attempt.set(attempt)
            try:
                with services.interceptor.execute(attempt):
                    attempt.enter("running", "body")
                    yield state
            except BaseException as error:
                _conclude(services, state, error)
                raise
            else:
                state.cancelled_after = attempt.elapsed_seconds if context.is_cancelled else None
                _conclude(services, state, None)
            finally:
                attempt.end()
                services.confirmations.examine(attempt, state.cancelled_after)
                current_attempt.reset(token)
    finally:
        services.confirmations.follow(attempt)


def _conclude(services: RunnerServices, state: AttemptState, error: BaseException | None) -> None:
    attempt = state.attempt
    attempt.exception = error
    attempt.evicted = _is_eviction(state, error)
    attempt.outcome = classify(
        attempt,
        error,
        cancelled_after=state.cancelled_after,
        is_non_retryable=services.is_non_retryable,
    )
    if attempt.member_ids:
        _conclude_members(state)
    attempt.will_retry = attempt.outcome in ("retried", "timed_out") and attempt.attempt_number < attempt.max_attempts


def _conclude_members(state: AttemptState) -> None:
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


def _is_eviction(state: AttemptState, error: BaseException | None) -> bool:
    """Whether a durable invocation was evicted: it waits, and continues later.

    The SDK cancels an evicted invocation at the moment it sets the cancel flag, and a cancelled one a second later
    (1.43.1, ``Runner._eviction_cancel_callback`` and ``Runner.handle_cancel_action``).

    A run that a stopping worker gives back is treated alike: another worker continues.
    """
    if isinstance(error, GivenBackError):
        return True
    if state.attempt.task.pool != "durable" or state.cancelled_after is None or state.attempt.stage != "body":
        return False
    # A body may swallow the cancellation, so the asyncio task is examined: a durable task runs on the event loop.
    task = asyncio.current_task() if error is None else None
    was_cancelled = isinstance(error, asyncio.CancelledError) or (task is not None and task.cancelling() > 0)
    return was_cancelled and state.attempt.elapsed_seconds - state.cancelled_after < _EVICTION_SECONDS
