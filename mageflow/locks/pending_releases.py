"""Retries unacknowledged lock releases, and releases the requests of callers that were cancelled.

A call to Redis whose caller has gone may still take effect, so it is followed by a release of the same request. The
release is repeated until Redis answers, or until the session of the request has ended without it.

This file owns the pending releases and the background tasks around them.
"""

import asyncio
import contextvars
from collections.abc import Collection, Coroutine
from contextlib import suppress
from typing import Any

from mageflow.background import restarted
from mageflow.errors import StoreError
from mageflow.interceptors import ResourceKey
from mageflow.locks.notifier import EventPublisher
from mageflow.locks.request import LockRequest
from mageflow.locks.session_lease import SessionLease
from mageflow.store import LockReply, LockStore

__all__ = ["PendingReleases"]


class PendingReleases:
    """The releases of one session that Redis has not answered yet.

    Args:
        store: Runs the scripts.
        events: Publishes what the replies report.
        session_lease: A release without an answer for a whole lease is dropped: by then the session has ended, or a
            renewal has found what was left of the request.
    """

    def __init__(self, store: LockStore, events: EventPublisher, session_lease: SessionLease) -> None:
        self._store = store
        self._events = events
        self._session_lease = session_lease
        self._loop = asyncio.get_running_loop()
        self._releases: dict[str, tuple[tuple[ResourceKey, ...], bool, float]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._flusher: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._calls_in_flight = 0
        self._closed: asyncio.Event | None = None
        """Set when the last call in flight is answered; None before the session closes."""

    @property
    def request_ids(self) -> Collection[str]:
        """Requests whose release is not answered yet."""
        return self._releases.keys()

    def add(self, request_id: str, resources: tuple[ResourceKey, ...], *, is_answered: bool = False) -> None:
        """Release a request in the background. Safe if it never reached Redis or was released before."""
        if not self._closing.is_set():  # else the session ends in Redis, and its requests with it
            self._add(request_id, resources, is_answered=is_answered)

    def _add(self, request_id: str, resources: tuple[ResourceKey, ...], *, is_answered: bool) -> None:
        drop_at = self._session_lease.monotonic() + self._session_lease.lease_seconds
        self._releases[request_id] = (resources, is_answered, drop_at)
        if self._flusher is None or self._flusher.done():
            self._flusher = self.spawn(restarted(self._flush_until_answered, "releases of locks", until=self._closing))

    def add_request(self, request: LockRequest) -> None:
        """Release a request in the background."""
        self.add(request.request_id, request.call.resources, is_answered=request.is_answered)

    async def _flush_until_answered(self) -> None:
        while self._releases:
            if not await self._flush():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._session_lease.retry_seconds):
                        await self._closing.wait()
                        return

    async def _flush(self) -> bool:
        """Send the pending releases. Returns whether Redis has answered all of them."""
        for request_id, (resources, is_answered, drop_at) in list(self._releases.items()):
            try:
                reply = await self._store.release(request_id, resources, is_answered=is_answered)
            except StoreError:
                if self._session_lease.monotonic() < drop_at:
                    return False
            else:
                self._events.reply(reply, 0.0)
            self._releases.pop(request_id, None)
        return True

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run work in the background, in an empty context: it belongs to no attempt and no span."""
        # Not by `background.start`: it belongs to the loop of the session, and the caller may wait for a result.
        return self._keep(self._loop.create_task(work, context=contextvars.Context()))

    async def until_answered(self, call: Coroutine[Any, Any, LockReply], request: LockRequest) -> LockReply:
        """Send a script about a request. If the caller is cancelled before Redis answers, the request is released.

        The script may still be on its way then, on a connection that nothing reads, and arrive after the release. A
        release that finds nothing of its request therefore marks it as withdrawn, and Redis grants it no more. So no
        call needs a task of its own, which would cost a tenth of a free lock.
        """
        self._calls_in_flight += 1
        try:
            return await call
        except asyncio.CancelledError:
            self._add(request.request_id, request.call.resources, is_answered=request.is_answered)
            raise
        finally:
            self._calls_in_flight -= 1
            if self._closed is not None and not self._calls_in_flight:
                self._closed.set()

    async def close(self) -> None:
        """Wait for calls in flight. Releases that are still pending are left to the end of the session."""
        self._closing.set()
        while self._tasks or self._calls_in_flight:
            if self._calls_in_flight:
                self._closed = asyncio.Event()
                await self._closed.wait()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._releases.clear()

    def _keep(self, task: "asyncio.Task[Any]") -> "asyncio.Task[Any]":
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
