"""The block under a lock: how it is entered and left, and how it is cancelled when its lease is lost.

This file owns the two context managers. `Acquirer` gets and releases the locks.
"""

import asyncio
from collections.abc import Generator, Sequence
from types import TracebackType

from mageflow.errors import ConfigurationError, LockLostError
from mageflow.interceptors import ResourceKey
from mageflow.locks import enclosing
from mageflow.locks.acquirer import Acquirer
from mageflow.locks.lease import Lease
from mageflow.locks.request import LockRequest

__all__ = ["LockBlock"]


class LockBlock:
    """Holds locks while its body runs: ``async with``, or ``with`` in a thread. For one use.

    Leaving it raises `LockLostError` if the lease was lost and the body raised nothing, unless ``on_lost`` is ``flag``.
    """

    def __init__(self, acquirer: Acquirer, request: LockRequest) -> None:
        self._acquirer = acquirer
        self._request = request
        self._lease: Lease | None = None
        self._is_used = False
        self._task: asyncio.Task[object] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancelling = 0
        self._was_cancelled = False

    def __await__(self) -> Generator[None, None, Lease]:
        """Refuse ``await resource.acquire()``: a lock that is not held by a block would not be released.

        Raises:
            ConfigurationError: Always, with the line to write.
        """
        name = self._request.resources[0].name
        raise ConfigurationError(
            f"a lock is held by a block: write async with resource.acquire(...) as lease, not await (resource {name!r})"
        )
        yield  # makes it a generator, which await needs

    @property
    def resources(self) -> Sequence[ResourceKey]:
        """The resources, in the order they are taken."""
        return self._request.resources

    # -- in a coroutine ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Lease:
        """Wait for the locks.

        Raises:
            LockTimeoutError: They were not granted in time.
            DeadlockError: This run is the victim of a deadlock.
            RedisNotConfiguredError: The client has no Redis.
            StoreError: Redis did not answer.
            ConfigurationError: The block was used before.
        """
        self._use()
        lease = await self._acquirer.enter(self._request)
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        if lease.grant is not None and self._request.on_lost == "cancel":
            lease.grant.on_lost.append(self._cancel)
        self._entered(lease)
        return lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the locks to the next in each queue.

        Raises:
            LockLostError: The lease was lost, and ``on_lost`` is ``cancel``.
        """
        lease = self._left()
        if lease.is_inherited:
            return
        if lease.grant is not None and self._cancel in lease.grant.on_lost:
            lease.grant.on_lost.remove(self._cancel)  # from here on LockLostError reports it
        task, self._task = self._task, None
        if self._was_cancelled and task is not None:
            if await self._absorb(task, lease, error):
                error = None
        else:
            await self._acquirer.leave(lease)
        self._raise_if_lost(lease, error)

    async def _absorb(self, task: "asyncio.Task[object]", lease: Lease, error: BaseException | None) -> bool:
        """Leave a block that was cancelled for its lost lease. Returns whether that cancellation ended the body.

        If the body ended without another ``await``, the cancellation is still to be delivered. It is delivered here, so
        that it does not hit the code after the block.
        """
        late: asyncio.CancelledError | None = None
        try:
            await self._acquirer.leave(lease)
            if not isinstance(error, asyncio.CancelledError):
                await asyncio.sleep(0)
        except asyncio.CancelledError as cancelled:
            late = cancelled
        if task.uncancel() <= self._cancelling:
            return isinstance(error, asyncio.CancelledError)
        if late is not None:
            raise late  # the task was also cancelled from elsewhere
        return False

    # -- in a thread ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Lease:
        """Like ``async with``, for synchronous code that runs in no event loop. Blocks only this thread.

        Raises:
            ConfigurationError: The thread runs an event loop, or the block was used before.
        """
        self._use()
        self._request.is_in_thread = True
        threads = self._acquirer.threads
        self._loop = threads.loop()
        lease = threads.run(self._acquirer.enter(self._request), self._loop, undo=self._acquirer.leave)
        self._entered(lease)
        return lease

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Like ``async with``. In a forked child nothing happens: the lock is the parent's."""
        lease = self._left()
        if lease.is_inherited:
            return
        # A loop that has stopped takes its session with it: the lease ends by itself.
        if self._loop is not None and self._loop.is_running():
            self._acquirer.threads.run(self._acquirer.leave(lease), self._loop)
        self._raise_if_lost(lease, error)

    # -- both ----------------------------------------------------------------------------------------------------

    def _use(self) -> None:
        if self._is_used:
            raise ConfigurationError("this block was used before: call acquire() again for each 'with'")
        self._is_used = True

    def _entered(self, lease: Lease) -> None:
        self._lease = lease
        enclosing.enter(lease)

    def _left(self) -> Lease:
        lease, self._lease = self._lease, None
        if lease is None:
            raise ConfigurationError("a lock's block was left that was never entered")
        enclosing.leave(lease)
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

    def _raise_if_lost(self, lease: Lease, error: BaseException | None) -> None:
        if error is None and self._request.on_lost == "cancel":
            try:
                lease.check()
            except LockLostError as lost:
                raise lost from None
