"""One worker of all tells what the whole cluster holds; the others say that they do not.

Whoever holds a lease in Redis reads the counts the scripts keep (never a scan over keys), every few seconds. This
file owns the election and the reading; what becomes of the numbers is the interceptors' business.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from mageflow.errors import MageflowError
from mageflow.interceptors import ClusterView, Interceptor
from mageflow.store import Store

__all__ = ["ClusterObserver"]

_LEASE_SECONDS: Final = 15.0

_log = logging.getLogger("mageflow.flows")


class ClusterObserver:
    """Reads until it is cancelled.

    Args:
        store: Where the counts are.
        interceptor: Told of each reading (`Interceptor.view_cluster`).
        interval_seconds: Between readings; well below the lease of 15 s.
        others: Called after each reading with whether this process leads; for counts of other rooms.
    """

    def __init__(
        self,
        store: Store,
        interceptor: Interceptor,
        *,
        interval_seconds: float = 5.0,
        others: Sequence[Callable[[bool], Awaitable[None]]] = (),
    ) -> None:
        self._store = store
        self._interceptor = interceptor
        self._interval_seconds = interval_seconds
        self._others = tuple(others)
        self._owner = uuid.uuid4().hex

    async def run(self) -> None:
        """Read for ever; while Redis is away nobody leads."""
        while True:
            try:
                await self.observe()
            except MageflowError as error:
                _log.info("the cluster cannot be read: %s", error)
                self._tell(ClusterView(is_leader=False))
            await asyncio.sleep(self._interval_seconds)

    async def observe(self) -> ClusterView:
        """Read once: two round trips for the leader, one for the others.

        Raises:
            StoreError: Redis could not be asked.
        """
        if not await self._store.lead(self._owner, _LEASE_SECONDS):
            view = ClusterView(is_leader=False)
        else:
            census = await self._store.census()
            view = ClusterView(
                is_leader=True,
                signatures={_pair(each): count for each, count in census["signatures"].items()},
                active=census["active"],
                oldest_seconds=census["oldest_seconds"],
                items=census["items"],
            )
        self._tell(view)
        for each in self._others:
            await each(view.is_leader)
        return view

    def _tell(self, view: ClusterView) -> None:
        with self._interceptor.view_cluster(view):
            pass


def _pair(text: str) -> tuple[str, str]:
    kind, _, status = text.partition(":")
    return kind, status
