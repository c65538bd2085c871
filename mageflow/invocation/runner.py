"""Runs one attempt of a task: admit, delay, bind arguments, call the function, settle.

The SDK gives two places. `TaskRunner.around_attempt` runs around the whole attempt on the event loop, for coroutines
and for functions in the thread pool alike, so that a delay holds no thread and settling never blocks.
`TaskRunner.function` replaces the user's function: it binds arguments and calls it. The first makes one
`AttemptState`; the second receives it as a keyword. Without a state the function only binds: ``mock_run`` needs no
engine, no Redis and emits nothing, and a batch has neither a signature nor one result.

A plain run does not use Redis. For a signed run, admission comes before the body and settlement after it, each one
round trip. An error while settling never replaces the user's own exception.
"""

import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

from pydantic import BaseModel

from mageflow.interceptors import TaskInfo
from mageflow.invocation.around import AroundAttempt, RunnerServices, around_batch_in_thread
from mageflow.invocation.attempt_state import AttemptState
from mageflow.invocation.binding import Binding
from mageflow.invocation.context import STATE_KEYWORD, AttemptContext
from mageflow.invocation.decorators import BodyLock
from mageflow.signatures import RunIdentity, TaskSignature, pack_result, unpack_result

__all__ = ["TaskRunner"]


F = TypeVar("F", bound=Callable[..., Any])


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
        self._wants_signature = binding.wants_signature

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
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        signature = self._signature(ctx, state) if self._wants_signature else None
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

    def around_attempt(self, context: AttemptContext) -> AroundAttempt:
        """Around everything Hatchet does for one attempt, from assignment on the event loop to its result."""
        return AroundAttempt(self._services, self.info, self._locks, context, wants_signature=self._wants_signature)

    def around_batch_in_thread(self, context: AttemptContext) -> AbstractContextManager[AttemptState]:
        """Around a batch whose function is synchronous: the SDK enters the thread pool before it calls mageflow."""
        return around_batch_in_thread(self._services, self.info, context)


def _is_object(result: object) -> bool:
    return isinstance(result, Mapping | BaseModel) or dataclasses.is_dataclass(result)


def _replayed(context: AttemptContext, result_json: str) -> Any:
    """A stored result as the object from which the SDK makes the same output again."""
    result = json.loads(result_json)
    return context.load_output(result_json) if isinstance(result, dict) else context.sendable(pack_result(result))


def _with_evaluated_signature(function: F) -> F:
    """Show the SDK the ``Depends`` in annotations that are text because of ``from __future__ import annotations``."""
    with suppress(NameError):
        function.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined] - inspect reads it
    return function
