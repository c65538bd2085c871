"""The sessions of one client: one per event loop that uses its locks."""

import asyncio

from mageflow.forks import when_forked
from mageflow.interceptors import Interceptor
from mageflow.locks.session import LockSession
from mageflow.locks.threads import ThreadBridge, run_on
from mageflow.store import LockStore

__all__ = ["Sessions"]


class Sessions:
    """Makes a session for each event loop on first use.

    Args:
        store: Runs the scripts.
        interceptor: Gets the events of every session.
        lease_seconds: How long this process may be silent before its locks go to others.
        threads: Learns of each loop with a session: it may serve threads.
    """

    def __init__(self, store: LockStore, interceptor: Interceptor, lease_seconds: float, threads: ThreadBridge) -> None:
        self._store = store
        self._interceptor = interceptor
        self._lease_seconds = lease_seconds
        self._threads = threads
        self._by_loop: dict[asyncio.AbstractEventLoop, LockSession] = {}
        self._of_parents: list[object] = []
        when_forked(self._begin_in_child)

    def __len__(self) -> int:
        return len(self._by_loop)

    def current(self) -> LockSession:
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        session = self._by_loop.get(loop)
        if session is None:
            for closed in [each for each in self._by_loop if each.is_closed()]:
                del self._by_loop[closed]
            session = self._by_loop[loop] = LockSession(self._store, self._interceptor, self._lease_seconds)
            self._threads.offer(loop)
        return session

    def _begin_in_child(self) -> None:
        """Leave the sessions to the parent of this forked process, which renews and ends them."""
        self._of_parents.append(self._by_loop)
        self._by_loop = {}

    async def end_attempt(self, attempt_id: str) -> None:
        """Release what an attempt still holds and waits for, on whichever loop."""
        here = asyncio.get_running_loop()
        for loop, session in list(self._by_loop.items()):
            if session.has_any(attempt_id) and (loop is here or loop.is_running()):
                await run_on(loop, session.end_attempt(attempt_id))

    async def close_current(self) -> None:
        """End the session of the running loop, if there is one."""
        session = self._by_loop.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.aclose()
