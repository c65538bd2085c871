"""The block under a lock: how it is entered, left, and told when its lease is lost.

This file owns the two context managers and the cancellation of a block. It refuses to know how a lock is got.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from mageflow.errors import ConfigurationError, LockLostError
from mageflow.interceptors import ResourceKey
from mageflow.locks.lease import Lease, leave, push
from mageflow.store import VictimPolicy

if TYPE_CHECKING:
    from mageflow.locks.service import LockService

__all__ = ["LockBlock", "OnLost", "Request"]

OnLost = Literal["cancel", "flag"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a block asks for."""

    resources: tuple[ResourceKey, ...]
    """Sorted, without repetition."""
    timeout_seconds: float | None
    extend_timeout: bool
    policy: VictimPolicy
    on_lost: OnLost


class LockBlock:
    """``async with`` (or, in a thread, ``with``) that holds locks while its body runs; for one use.

    Left with the lock lost, an otherwise successful block raises `LockLostError`, unless it was asked to only flag it.
    """

    def __init__(self, locks: "LockService", request: Request) -> None:
        self._locks = locks
        self._request = request
        self._surrounds_body = False
        self._lease: Lease | None = None
        self._is_used = False
        self._task: asyncio.Task[object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancelling = 0
        self._was_cancelled = False

    @property
    def resources(self) -> Sequence[ResourceKey]:
        """What is locked, in the order it is taken."""
        return self._request.resources

    def around_body(self) -> "LockBlock":
        """The same block, for a runner: what the body acquires in another thread counts as inside of it."""
        self._surrounds_body = True
        return self

    # -- in a coroutine ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Lease:
        """Wait for the locks; see `Resource.acquire` for what is raised."""
        self._use()
        lease = await self._locks.enter(self._request, self._locks.enclosing())
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        if lease.grant is not None and self._request.on_lost == "cancel":
            lease.grant.on_lost.append(self._cancel)
        self._entered(lease)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the locks to the next in line, and say so if they were lost."""
        lease = self._left()
        if lease.grant is not None and self._cancel in lease.grant.on_lost:
            lease.grant.on_lost.remove(self._cancel)  # from here on the error says it
        task, self._task = self._task, None
        if self._was_cancelled and task is not None:
            if await self._absorb(task, lease, error):
                error = None
        else:
            await self._locks.leave(lease)
        self._conclude(lease, error)

    async def _absorb(self, task: "asyncio.Task[object]", lease: Lease, error: BaseException | None) -> bool:
        """Leave a block that was cancelled for its lost lease; whether the cancellation is what ended it.

        It may not have been delivered yet, when the body ended without another ``await``: it must not meet whatever
        the task does after the block.
        """
        late: asyncio.CancelledError | None = None
        try:
            await self._locks.leave(lease)
            if not isinstance(error, asyncio.CancelledError):
                await asyncio.sleep(0)
        except asyncio.CancelledError as cancelled:
            late = cancelled
        if task.uncancel() <= self._cancelling:
            return isinstance(error, asyncio.CancelledError)
        if late is not None:
            raise late  # somebody else has cancelled the task as well
        return False

    # -- in a thread ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Lease:
        """As ``async with``, for synchronous code outside of event loops; blocks this thread alone."""
        self._use()
        leases, threads = self._locks.enclosing(), self._locks.threads
        self._loop = threads.loop()
        lease = threads.run(
            self._locks.enter(self._request, leases, is_thread=True), self._loop, undo=self._locks.leave
        )
        self._entered(lease)
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As ``async with``."""
        lease = self._left()
        # A loop that has stopped takes its session with it: the lease ends by itself.
        if self._loop is not None and self._loop.is_running():
            self._locks.threads.run(self._locks.leave(lease), self._loop)
        self._conclude(lease, error)

    # -- both ----------------------------------------------------------------------------------------------------

    def _use(self) -> None:
        if self._is_used:
            raise ConfigurationError("this block was used before: call acquire() again for each 'with'")
        self._is_used = True

    def _entered(self, lease: Lease) -> None:
        self._lease = lease
        push(lease)
        if self._surrounds_body:
            self._locks.surround(lease, is_entered=True)

    def _left(self) -> Lease:
        lease, self._lease = self._lease, None
        if lease is None:
            raise ConfigurationError("a lock's block was left that was never entered")
        leave(lease)
        if self._surrounds_body:
            self._locks.surround(lease, is_entered=False)
        return lease

    def _cancel(self) -> None:
        """Called on the session's loop when the lease is found to be lost."""
        task = self._task
        if task is None:
            return
        if (loop := task.get_loop()) is asyncio.get_running_loop():
            self._cancel_here()
        elif loop.is_running():
            loop.call_soon_threadsafe(self._cancel_here)

    def _cancel_here(self) -> None:
        if self._task is not None and not self._was_cancelled:
            self._was_cancelled = True
            self._task.cancel("the lease on a lock was lost")

    def _conclude(self, lease: Lease, error: BaseException | None) -> None:
        if error is None and self._request.on_lost == "cancel":
            try:
                lease.check()
            except LockLostError as lost:
                raise lost from None
