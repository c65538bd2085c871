"""The way from threads, and from other event loops, to the event loop that serves their locks.

Synchronous code hands its requests to the loop the worker's tasks run on, or, where none is running, to one in a thread
of its own, started at first use. A run keeps all its locks in the session of one loop, whichever loop it asks from:
what it waits for in one session would not be seen to keep it from releasing what it holds in another.

This file owns that loop and the call to it and back. It refuses to know what a request is.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future, wait
from typing import Any, Final, Generic, TypeVar

from mageflow.errors import ConfigurationError

__all__ = ["ThreadBridge", "run_on"]

T = TypeVar("T")

_LOOP_CHECK_SECONDS: Final = 5.0


class ThreadBridge:
    """Runs coroutines of threads that run no event loop.

    Attributes:
        home: The loop threads are to use, if it is running.
    """

    def __init__(self) -> None:
        self.home: asyncio.AbstractEventLoop | None = None
        self._own: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None
        self._guard = threading.Lock()

    def offer(self, loop: asyncio.AbstractEventLoop) -> None:
        """A loop that uses locks may serve threads, unless there is one already."""
        is_own = self._own is not None and self._own[0] is loop
        if not is_own and (self.home is None or not self.home.is_running()):
            self.home = loop

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves threads: the worker's, or one in a thread of its own, started now."""
        home = self.home
        if home is not None and home.is_running():
            return home
        with self._guard:
            if self._own is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_run_loop, args=(loop,), name="mageflow-locks", daemon=True)
                self._own = (loop, thread)
                thread.start()
            return self._own[0]

    def close(self, farewell: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End the loop that was started here, if any; ``farewell`` is what it does last."""
        with self._guard:
            own, self._own = self._own, None
        if own is None:
            return
        loop, thread = own
        asyncio.run_coroutine_threadsafe(farewell(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def run(
        self,
        work: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        undo: Callable[[T], Awaitable[None]] | None = None,
    ) -> T:
        """Run something on the loop and wait for it in this thread; context variables are carried over.

        Args:
            work: What to run.
            loop: From `loop`.
            undo: Called on the loop with the result when this thread has been interrupted meanwhile (a task that was
                killed, control-C) and nobody is left to have it. Without it the work is done to its end.

        Raises:
            ConfigurationError: The thread does run a loop, which this would block; or the other loop has stopped.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            work.close()
            raise ConfigurationError("inside a coroutine write 'async with resource.acquire(...)', not 'with'")
        call = _cross(work, loop, undo)
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
    """Run something on this loop or on another one, and wait for it here; see `ThreadBridge.run`."""
    if loop is asyncio.get_running_loop():
        return await work
    call = _cross(work, loop, undo)
    try:
        return await asyncio.wrap_future(call.future)
    except BaseException:
        if loop.is_running():
            loop.call_soon_threadsafe(call.abandon)
        raise


def _cross(
    work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, undo: Callable[[T], Awaitable[None]] | None
) -> "CrossLoopCall[T]":
    call = CrossLoopCall(work, loop, undo)
    loop.call_soon_threadsafe(call.start)
    return call


class CrossLoopCall(Generic[T]):
    """One piece of work on the loop, for somebody elsewhere who waits. All but ``future`` belongs to the loop."""

    def __init__(
        self,
        work: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        undo: Callable[[T], Awaitable[None]] | None,
    ) -> None:
        self.future: Future[T] = Future()
        self.future.set_running_or_notify_cancel()  # only the loop ends it: a release must not be given up unbegun
        self._work = work
        self._loop = loop
        self._undo = undo
        self._task: asyncio.Task[T] | None = None
        self._undoing: asyncio.Future[None] | None = None
        self._is_abandoned = False

    def start(self) -> None:
        self._task = self._loop.create_task(self._work)
        self._task.add_done_callback(self._finished)

    def abandon(self) -> None:
        """The thread has gone; whatever it would have got is undone, also when it is ready for it already."""
        if self._undo is None or self._task is None or self._is_abandoned:
            return
        self._is_abandoned = True
        if self._task.done():
            self._take_back(self._task)
        else:
            self._task.cancel()

    def _finished(self, task: asyncio.Task[T]) -> None:
        if self._is_abandoned:
            self._take_back(task)
        elif task.cancelled():
            self.future.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())

    def _take_back(self, task: asyncio.Task[T]) -> None:
        if self._undo is not None and not task.cancelled() and task.exception() is None:
            self._undoing = asyncio.ensure_future(self._undo(task.result()), loop=self._loop)


def _require_running(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_running():
        raise ConfigurationError("the event loop of the locks has stopped")


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
