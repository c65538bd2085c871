"""The shutdown of a worker, for attempts that wait and whose functions have not begun.

A worker that is asked to stop waits for its attempts. One that sleeps for hours before its function begins, or waits
for a lock or for Redis, would keep the process until it is killed; it gives its run back instead.
"""

import asyncio
from types import TracebackType
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ["WAITED_OUT_SECONDS", "GivenBackError", "Shutdown"]

WAITED_OUT_SECONDS: Final = 5.0
"""A worker that stops waits this much out: Hatchet takes longer to notice that the worker has gone."""


class GivenBackError(asyncio.CancelledError):
    """The worker stops before the task's function began. Nothing is reported, so Hatchet hands the run to another."""


class Shutdown:
    """Whether the worker of a loop stops. Every method is called on that loop."""

    def __init__(self) -> None:
        self._events: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Event] = WeakKeyDictionary()
        self._waits: set[_Wait] = set()

    def event(self) -> asyncio.Event:
        """Set when the worker begins to stop."""
        loop = asyncio.get_running_loop()
        return self._events.get(loop) or self._events.setdefault(loop, asyncio.Event())

    def begin(self) -> None:
        """The worker stops."""
        self.event().set()
        loop = asyncio.get_running_loop()
        for wait in tuple(self._waits):  # workers of other threads add to them meanwhile
            if wait.loop is loop:
                wait.limit()

    def end(self) -> None:
        """The worker has stopped. Another one may run on the loop."""
        self._events.pop(asyncio.get_running_loop(), None)

    def giving_back(self, what: str) -> "_Wait":
        """A block that waits before the task's function begins: it ends 5 s after the worker begins to stop.

        The block ends by a cancellation. Leaving it then raises `GivenBackError`, unless the run was cancelled as well
        or the block failed in another way.

        Args:
            what: What the run waits for, for the text of the error.
        """
        return _Wait(self._waits, what, is_stopping=self.event().is_set())


class _Wait:
    """One block of `Shutdown.giving_back`. For one use."""

    def __init__(self, waits: "set[_Wait]", what: str, *, is_stopping: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self._waits = waits
        self._what = what
        self._is_stopping = is_stopping
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._is_over = False

    def limit(self) -> None:
        """The worker begins to stop: the block has 5 s left."""
        self._timer = self._timer or self.loop.call_later(WAITED_OUT_SECONDS, self._interrupt)

    async def __aenter__(self) -> None:
        """Begin to wait."""
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._waits.add(self)
        if self._is_stopping:
            self.limit()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the wait.

        Raises:
            GivenBackError: The wait took too long for a worker that stops.
        """
        self._waits.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_over or self._task is None:
            return
        is_only_ours = self._task.uncancel() <= self._cancelling
        if is_only_ours and (error is None or isinstance(error, asyncio.CancelledError)):
            raise GivenBackError(f"the worker stops while the run waits for {self._what}")

    def _interrupt(self) -> None:
        if self._task is not None:
            self._is_over = True
            self._task.cancel(f"the worker stops, and the run waits for {self._what}")
