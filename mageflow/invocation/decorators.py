"""The decorators that go below ``@client.task``. Each one only records a mark on the function.

A direct call of a decorated function behaves like the function itself: mageflow injects and delays nothing before a
client declares it. Decorators work in any order, over synchronous and asynchronous functions. They do not change the
original function object.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

from mageflow._frozen import frozen
from mageflow.errors import DecorationError

__all__ = [
    "GENERATOR",
    "BodyLock",
    "Marks",
    "exclusive",
    "is_generator",
    "marks_of",
    "record",
    "stagger_execution",
    "with_ctx",
    "with_signature",
]

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__mageflow_marks__"
GENERATOR = "a generator has no result: return it, or send parts with ctx.aio_put_stream(...)"
"""What is wrong with a generator as a task."""


class BodyLock(Protocol):
    """The locks that ``@client.exclusive`` records. `mageflow.locks.ExclusiveMark` implements it."""

    def block(self, message: Any) -> AbstractAsyncContextManager[Any]:
        """The block around the body of a run with this message."""
        ...


@frozen
class Marks:
    """The marks that decorators recorded on one function."""

    ctx: bool = False
    signature: bool = False
    stagger_window: timedelta | None = None
    locks: tuple[BodyLock, ...] = ()
    """Held around the body, outermost first."""


def marks_of(func: object) -> Marks:
    """The marks of ``func``; empty ones for a plain function."""
    marks = getattr(func, _ATTRIBUTE, None)
    return marks if isinstance(marks, Marks) else Marks()


def with_ctx(func: F) -> F:
    """Pass the Hatchet context to the function, with any ``param_config`` of the client.

    The context goes to the parameter annotated ``Context`` or ``DurableContext``, else to the one named ``ctx``
    or ``context``, else to the next free positional parameter.

    Raises:
        DecorationError: ``func`` is not a function, for example because the decorator stands above ``@client.task``.
    """
    return record(func, "with_ctx", lambda marks: replace(marks, ctx=True))


def with_signature(func: F) -> F:
    """Pass the task's own `TaskSignature` to the function.

    It goes to the parameter annotated ``TaskSignature``, else to the one named ``signature``, else to the next
    free positional parameter. A run that was not started from a stored signature gets one made from the run itself
    (``task_name``, ``task_identifiers`` with the run ids, no callbacks), without Redis; it is never None.

    Raises:
        DecorationError: ``func`` is not a function, for example because the decorator stands above ``@client.task``.
    """
    return record(func, "with_signature", lambda marks: replace(marks, signature=True))


def stagger_execution(wait_delta: timedelta) -> Callable[[F], F]:
    """Delay each attempt by a random time between 0 and ``wait_delta``, uniformly, before the body starts.

    Before the sleep the execution timeout is extended by the delay, rounded up, so that the body keeps the whole of its
    own timeout. The sleep holds the worker's slot but no thread, and ends at once when the run is cancelled. Every
    attempt draws its own delay. If the engine refuses the extension, the attempt sleeps for at most a tenth of the time
    it has left.

    Telemetry: span ``stagger {task}``, ``mageflow_stagger_delay_seconds``, ``mageflow_staggers_total``,
    ``mageflow_timeout_extensions_total{reason="stagger"}``, log ``mageflow.stagger.started``.

    Args:
        wait_delta: The longest delay; more than zero. If the decorator is applied twice, the topmost wins.

    Raises:
        DecorationError: ``wait_delta`` is not a positive timedelta, or the decorated object is not a function.
    """
    target = getattr(wait_delta, "__qualname__", repr(wait_delta))
    if not isinstance(wait_delta, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] callers may not type-check
        raise DecorationError(
            "stagger_execution",
            target,
            "wait_delta must be a timedelta: write @client.stagger_execution(wait_delta=timedelta(seconds=10))",
        )
    if wait_delta <= timedelta(0):
        raise DecorationError(
            "stagger_execution", target, "wait_delta must be more than zero: write timedelta(seconds=10)"
        )

    def decorate(func: F) -> F:
        return record(func, "stagger_execution", lambda marks: replace(marks, stagger_window=wait_delta))

    return decorate


def exclusive(lock: BodyLock) -> Callable[[F], F]:
    """Hold a lock around the body: after the stagger, before the pool's thread. The topmost of several is outermost.

    Raises:
        DecorationError: The decorated object is not a function.
    """

    def decorate(func: F) -> F:
        return record(func, "exclusive", lambda marks: replace(marks, locks=(lock, *marks.locks)))

    return decorate


def is_generator(func: object) -> bool:
    """Whether a call of the function makes a generator, of any kind."""
    return inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func)


def record(func: F, decorator: str, change: Callable[[Marks], Marks]) -> F:
    """Return a function that behaves like ``func`` and has the changed marks.

    Raises:
        DecorationError: ``func`` is not a function.
    """
    if cast("object", func) is None:
        raise DecorationError(decorator, "nothing", f"write @client.{decorator} without parentheses")
    if not inspect.isroutine(func):
        raise DecorationError(
            decorator,
            getattr(func, "name", None) or type(func).__name__,
            "it marks a function, and this is a task already: write it below @client.task (or @workflow.task)",
        )
    if is_generator(func):
        raise DecorationError(decorator, func.__qualname__, GENERATOR)
    if isinstance(cast("object", func), staticmethod | classmethod):
        raise DecorationError(decorator, func.__qualname__, f"write @{type(func).__name__} above it, not below")
    # A new function has the mark: two clients may decorate the same function differently.
    if inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def marked_async(*args: Any, **kwargs: Any) -> Any:
            return await func(*args, **kwargs)

        marked: Callable[..., Any] = marked_async
    else:

        @functools.wraps(func)
        def marked_sync(*args: Any, **kwargs: Any) -> Any:
            return func(*args, **kwargs)

        marked = marked_sync
    setattr(marked, _ATTRIBUTE, change(marks_of(func)))
    return cast("F", marked)
