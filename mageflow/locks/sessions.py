"""The sessions of one client: one per event loop that uses its locks."""

import asyncio

from mageflow.errors import ConfigurationError
from mageflow.forks import when_forked
from mageflow.interceptors import Interceptor
from mageflow.locks.session import LockSession
from mageflow.locks.threads import run_on
from mageflow.store import LockStore

__all__ = ["Sessions"]


class Sessions:
    """Makes a session for each event loop on first use.

    Args:
        store: Runs the scripts.
        interceptor: Gets the events of every session.
        lease_seconds: How long this process may be silent before its locks go to others.
    """

    def __init__(self, store: LockStore, interceptor: Interceptor, lease_seconds: float) -> None:
        self._store = store
        self._interceptor = interceptor
        self._lease_seconds = lease_seconds
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
            # Loops of other threads come and go meanwhile.
            for closed in [each for each in list(self._by_loop) if each.is_closed()]:
                self._by_loop.pop(closed, None)
            session = self._by_loop[loop] = LockSession(self._store, self._interceptor, self._lease_seconds)
        return session

    def _begin_in_child(self) -> None:
        """Leave the sessions to the parent of this forked process, which renews and ends them."""
        self._of_parents.append(self._by_loop)
        self._by_loop = {}

    async def end_attempt(self, attempt_id: str) -> None:
        """Release what an attempt still holds and waits for, on each loop that does so for it.

        A loop of another thread that ends meanwhile takes its session with it, and raises nothing here.
        """
        here = asyncio.get_running_loop()
        for loop, session in list(self._by_loop.items()):
            if not session.has_any(attempt_id):
                continue
            if loop is here:
                await session.end_attempt(attempt_id)
            elif loop.is_running():
                try:
                    await run_on(loop, session.end_attempt(attempt_id))
                except ConfigurationError:
                    pass
                except asyncio.CancelledError:  # of the other loop's task, unless this one is cancelled
                    if (task := asyncio.current_task()) is None or task.cancelling():
                        raise

    async def close_current(self) -> None:
        """End the session of the running loop, if there is one."""
        session = self._by_loop.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.aclose()
