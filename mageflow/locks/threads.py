"""Calls from threads, and from other event loops, to the event loop that serves their locks.

Synchronous code sends its requests from the loop of the worker's tasks. Without a running worker they are sent from a
loop in a thread of its own, which starts at first use.

This file owns that loop and the calls to it. It does not know what a request is.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from typing import Any, Final, Generic, TypeVar

from mageflow.errors import ConfigurationError
from mageflow.forks import when_forked

__all__ = ["ThreadBridge", "run_on"]

T = TypeVar("T")

_LOOP_CHECK_SECONDS: Final = 5.0
_STOPPED: Final = "the event loop of the locks has stopped"


class ThreadBridge:
    """Runs coroutines for threads that run no event loop.

    Attributes:
        preferred_loop: The loop that serves threads while it is running: that of the worker's tasks. No other loop,
            which may end while a thread holds a lock.
    """

    def __init__(self) -> None:
        self.preferred_loop: asyncio.AbstractEventLoop | None = None
        self._own: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None
        self._mutex = threading.Lock()
        self._of_parents: list[object] = []
        when_forked(self._begin_in_child)

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves threads: the preferred one, or one in a thread of its own, started now."""
        preferred = self.preferred_loop
        if preferred is not None and preferred.is_running():
            return preferred
        return self.own_loop()

    def own_loop(self) -> asyncio.AbstractEventLoop:
        """The loop in a thread of its own, started now if it does not run. No task can block it."""
        with self._mutex:
            if self._own is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run_loop, args=(loop,), name="mageflow-locks", daemon=True)
                self._own = (loop, thread)
                thread.start()
            return self._own[0]

    def close(self, before_stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Stop the loop that was started here, if any.

        Args:
            before_stop: The last thing that loop runs. The loop also stops if this raises.
        """
        with self._mutex:
            own, self._own = self._own, None
        if own is None:
            return
        loop, thread = own
        try:
            asyncio.run_coroutine_threadsafe(before_stop(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _begin_in_child(self) -> None:
        self._of_parents.append((self.preferred_loop, self._own))
        self.preferred_loop = self._own = None
        self._mutex = threading.Lock()

    def run(
        self,
        work: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        undo: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Run a coroutine on the loop and wait for it in this thread. Context variables are copied.

        Args:
            work: The coroutine.
            loop: A loop from `loop`.
            undo: Called on the loop with the result if this thread is interrupted before it gets the result (a killed
                task, control-C). Without ``undo`` the coroutine still runs to its end.

        Raises:
            ConfigurationError: The thread runs an event loop, which this call would block; or the other loop has
                stopped.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            work.close()
            raise ConfigurationError("inside a coroutine write 'async with resource.acquire(...)', not 'with'")
        call = _start_call(work, loop, undo)
        try:
            while not wait({call.future}, _LOOP_CHECK_SECONDS).done:
                _require_running(loop)
            return call.future.result()
        except BaseException:
            if loop.is_running():
                loop.call_soon_threadsafe(call.abandon)
            raise


async def run_on(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, T],
    undo: Callable[[T], Awaitable[None]] | None = None,
) -> T:
    """Run a coroutine on this loop or on another one, and wait for it here.

    Args:
        loop: Where to run it.
        work: The coroutine.
        undo: Called on the other loop with the result if the caller is cancelled before it gets the result. Without
            ``undo`` the coroutine still runs to its end.

    Raises:
        ConfigurationError: The other loop has stopped.
    """
    if loop is asyncio.get_running_loop():
        return await work
    call = _start_call(work, loop, undo)
    result = asyncio.wrap_future(call.future)
    try:
        while not (await asyncio.wait({result}, timeout=_LOOP_CHECK_SECONDS))[0]:
            _require_running(loop)
        return result.result()
    except BaseException:
        result.cancel()
        if loop.is_running():
            loop.call_soon_threadsafe(call.abandon)
        raise


def _start_call(
    work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, undo: Callable[[T], Awaitable[None]] | None
) -> "CrossLoopCall[T]":
    call = CrossLoopCall(work, loop, undo)
    try:
        loop.call_soon_threadsafe(call.start)
    except RuntimeError:  # closed since the caller has looked
        work.close()
        raise ConfigurationError(_STOPPED) from None
    return call


class CrossLoopCall(Generic[T]):
    """One coroutine on a loop whose caller waits elsewhere. Everything but ``future`` belongs to the loop."""

    def __init__(
        self,
        work: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        undo: Callable[[T], Awaitable[None]] | None,
    ) -> None:
        self.future: Future[T] = Future()
        self.future.set_running_or_notify_cancel()  # only the loop ends it: a release must always be sent
        self._work = work
        self._loop = loop
        self._undo = undo
        self._task: asyncio.Task[T] | None = None
        self._undo_task: asyncio.Future[None] | None = None
        self._is_abandoned = False

    def start(self) -> None:
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._finished)

    def abandon(self) -> None:
        """The caller has gone: undo the result, even if it is ready."""
        if self._undo is None or self._task is None or self._is_abandoned:
            return
        self._is_abandoned = True
        if self._task.done():
            self._undo_result(self._task)
        else:
            self._task.cancel()

    def _finished(self, task: asyncio.Task[T]) -> None:
        if self._is_abandoned:
            self._undo_result(task)
        elif task.cancelled():
            self.future.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())

    def _undo_result(self, task: asyncio.Task[T]) -> None:
        if self._undo is not None and not task.cancelled() and task.exception() is None:
            self._undo_task = asyncio.ensure_future(self._undo(task.result()), loop=self._loop)


def _require_running(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_running():
        raise ConfigurationError(_STOPPED)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
