"""Releases that Redis has not answered yet, and calls that go on when their caller is cancelled.

Whatever a call to Redis may have done for a caller that has gone is undone by a release under the same request. It is
repeated until Redis answers, or until the session it belongs to has ended without it.

This file owns that list and the background tasks around it. It refuses to know why something is to be released.
"""

import asyncio
import contextvars
from collections.abc import Callable, Collection, Coroutine
from typing import Any

from mageflow.errors import StoreError
from mageflow.interceptors import ResourceKey
from mageflow.locks.notifier import EventPublisher
from mageflow.store import LockReply, LockStore

__all__ = ["PendingReleases"]


class PendingReleases:
    """What one session still has to give back.

    Args:
        store: Runs the scripts.
        events: Told what the replies say besides.
        lease_seconds: A release that is not answered for so long is not needed any more: the session has ended, or a
            renewal has found what was left of the request.
        monotonic: Measures that.
        on_owed: Called when something is added: `pay` must be called now and then until nothing is owed.
    """

    def __init__(
        self,
        store: LockStore,
        events: EventPublisher,
        lease_seconds: float,
        monotonic: Callable[[], float],
        on_owed: Callable[[], None],
    ) -> None:
        self._store = store
        self._events = events
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._on_owed = on_owed
        self._loop = asyncio.get_running_loop()
        self._owed: dict[str, tuple[tuple[ResourceKey, ...], float]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    @property
    def requests(self) -> Collection[str]:
        """Requests whose release is not answered yet."""
        return self._owed.keys()

    def owe(self, request: str, resources: tuple[ResourceKey, ...]) -> None:
        """Release a request in the background; safe for one that never reached Redis, or was released before."""
        if self._is_closed:
            return  # the session has ended in Redis, and its requests with it
        self._owed[request] = (resources, self._monotonic() + self._lease_seconds)
        self.spawn(self.pay())
        self._on_owed()

    async def pay(self) -> bool:
        """Send what is owed; whether Redis has answered all of it."""
        for request, (resources, until) in list(self._owed.items()):
            try:
                reply = await self._store.release(request, resources)
            except StoreError:
                if self._monotonic() < until:
                    return False
            else:
                self._events.reply(reply, 0.0)
            self._owed.pop(request, None)
        return True

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """In a context of its own: neither a run nor a span of whoever happened to need it first."""
        return self._keep(self._loop.create_task(work, context=contextvars.Context()))

    async def to_the_end(
        self,
        work: Coroutine[Any, Any, LockReply],
        request: str,
        resources: tuple[ResourceKey, ...],
        *,
        is_release: bool = False,
    ) -> LockReply:
        """Let a script call finish even when its caller is cancelled; then the request is released.

        Args:
            work: The call.
            request: The request it is about.
            resources: The request's resources.
            is_release: The call itself releases, so that only one that failed has to be repeated.
        """
        task = self._keep(self._loop.create_task(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:

            def finished(done: "asyncio.Task[LockReply]") -> None:
                is_answered = not done.cancelled() and done.exception() is None
                if is_answered:
                    self._events.reply(done.result(), 0.0)
                if not (is_release and is_answered):
                    self.owe(request, resources)

            task.add_done_callback(finished)
            raise

    async def close(self) -> None:
        """Wait for calls that are under way; what is still owed is left to the end of the session."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._is_closed = True
        self._owed.clear()

    def _keep(self, task: "asyncio.Task[Any]") -> "asyncio.Task[Any]":
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
