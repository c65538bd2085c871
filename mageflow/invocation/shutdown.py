"""The shutdown of a worker, for attempts that wait and whose functions have not begun.

A worker that is asked to stop waits for its attempts. One that sleeps for hours before its function begins would keep
the process until it is killed; it gives its run back instead.
"""

import asyncio
from weakref import WeakKeyDictionary

__all__ = ["GivenBackError", "Shutdown"]


class GivenBackError(asyncio.CancelledError):
    """The worker stops before the task's function began. Nothing is reported, so Hatchet hands the run to another."""


class Shutdown:
    """Whether the worker of a loop stops. Every method is called on that loop."""

    def __init__(self) -> None:
        self._events: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Event] = WeakKeyDictionary()

    def event(self) -> asyncio.Event:
        """Set when the worker begins to stop."""
        return self._events.setdefault(asyncio.get_running_loop(), asyncio.Event())

    def begin(self) -> None:
        """The worker stops."""
        self.event().set()

    def end(self) -> None:
        """The worker has stopped. Another one may run on the loop."""
        self._events.pop(asyncio.get_running_loop(), None)
