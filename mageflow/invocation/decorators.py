"""The decorators that go below ``@client.task``: each records a mark on the function, and no more.

A decorated function can still be called directly with the arguments it declares: nothing is injected, delayed or
extended until a client registers it. Decorators compose in any order, over sync and async functions; the original
function object is left untouched.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

from mageflow.errors import DecorationError

__all__ = ["BodyLock", "Marks", "exclusive", "marks_of", "record", "stagger_execution", "with_ctx", "with_signature"]

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__mageflow_marks__"


class BodyLock(Protocol):
    """What ``@client.exclusive`` asks for; `mageflow.locks.ExclusiveMark` is one."""

    def block(self, message: Any) -> AbstractAsyncContextManager[Any]:
        """The block to be inside of while the body runs, for this message."""
        ...


@dataclass(frozen=True, slots=True)
class Marks:
    """What the decorators asked for, for one function."""

    ctx: bool = False
    signature: bool = False
    stagger_window: timedelta | None = None
    locks: tuple[BodyLock, ...] = ()
    """Held around the body, outermost first."""


def marks_of(func: object) -> Marks:
    """What was asked for by the decorators on ``func``; nothing for a plain function."""
    marks = getattr(func, _ATTRIBUTE, None)
    return marks if isinstance(marks, Marks) else Marks()


def with_ctx(func: F) -> F:
    """Ask for the Hatchet context, whatever the client's ``param_config``.

    The context is passed to the parameter annotated ``Context`` or ``DurableContext``, else to the one named ``ctx``
    or ``context``, else to the next free positional parameter.

    Raises:
        DecorationError: ``func`` is not a function, for example because the decorator stands above ``@client.task``.
    """
    return record(func, "with_ctx", lambda marks: replace(marks, ctx=True))


def with_signature(func: F) -> F:
    """Ask for the task's own `TaskSignature`.

    It is passed to the parameter annotated ``TaskSignature``, else to the one named ``signature``, else to the next
    free positional parameter. A run that was not started from a stored signature gets one made from the run itself
    (``task_name``, ``task_identifiers`` with the run ids, no callbacks), without touching Redis; it is never None.

    Raises:
        DecorationError: ``func`` is not a function, for example because the decorator stands above ``@client.task``.
    """
    return record(func, "with_signature", lambda marks: replace(marks, signature=True))


def stagger_execution(wait_delta: timedelta) -> Callable[[F], F]:
    """Delay each attempt by a random time between 0 and ``wait_delta``, uniformly, before the body starts.

    The engine is asked for as much more execution time before the sleep begins, rounded up, so that the body keeps
    the whole of its own timeout. The sleep holds the worker's slot but no thread, ends at once when the run is
    cancelled, and is drawn again on every attempt. When the engine refuses the extension the attempt still runs,
    after at most a tenth of the time it has left.

    Telemetry: span ``stagger {task}``, ``mageflow_stagger_delay_seconds``, ``mageflow_staggers_total``,
    ``mageflow_timeout_extensions_total{reason="stagger"}``, log ``mageflow.stagger.started``.

    Args:
        wait_delta: The longest delay; more than zero. Applied twice, the last applied (topmost) wins.

    Raises:
        DecorationError: ``wait_delta`` is not a positive timedelta, or what is decorated is not a function.
    """
    target = getattr(wait_delta, "__qualname__", repr(wait_delta))
    if not isinstance(wait_delta, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] callers may not type-check
        raise DecorationError(
            "stagger_execution",
            target,
            "wait_delta must be a timedelta: write @client.stagger_execution(wait_delta=timedelta(seconds=10))",
        )
    if wait_delta <= timedelta(0):
        raise DecorationError("stagger_execution", target, "wait_delta must be more than zero")

    def decorate(func: F) -> F:
        return record(func, "stagger_execution", lambda marks: replace(marks, stagger_window=wait_delta))

    return decorate


def exclusive(lock: BodyLock) -> Callable[[F], F]:
    """Hold a lock around the body: after the stagger, before the pooled thread; several nest, the topmost outermost.

    Raises:
        DecorationError: What is decorated is not a function.
    """

    def decorate(func: F) -> F:
        return record(func, "exclusive", lambda marks: replace(marks, locks=(lock, *marks.locks)))

    return decorate


def record(func: F, decorator: str, change: Callable[[Marks], Marks]) -> F:
    """Get a function that acts like ``func`` and carries the changed marks.

    Raises:
        DecorationError: ``func`` is not a function.
    """
    if not inspect.isroutine(func):
        raise DecorationError(
            decorator,
            getattr(func, "name", None) or type(func).__name__,
            "it marks the function itself, so it must stand below @client.task (or @workflow.task), not above it",
        )
    if isinstance(cast("object", func), staticmethod | classmethod):
        raise DecorationError(decorator, func.__qualname__, f"write @{type(func).__name__} above it, not below")
    # A fresh function carries the mark, so that one function given to two clients may be marked differently.
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
