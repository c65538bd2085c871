"""One worker of all tells what the whole cluster holds; the others say that they do not.

Whoever holds a lease in Redis reads the counts the scripts keep (never a scan over keys) and the picture of the locks,
every few seconds. What becomes of the numbers is the interceptors' business.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Final

from mageflow.errors import MageflowError
from mageflow.interceptors import ClusterView, Interceptor
from mageflow.locks import LockService, LocksReport
from mageflow.store import Store
from mageflow.telemetry import suppressed

__all__ = ["ClusterObserver"]

LEASE_SECONDS: Final = 15.0
_RESIGN_SECONDS: Final = 2.0
_LOCKS_LIMIT: Final = 1000

_log = logging.getLogger("mageflow.cluster")


class ClusterObserver:
    """Reads until it is cancelled, and then gives the lease back.

    A reading is believed until the lease ends under which it was made, by the clock of this process, so that a leader
    that cannot reach Redis falls silent before another one speaks, and no number is older than the lease.

    Args:
        store: Where the counts are.
        locks: Where the locks are; without it nothing is told of them.
        interceptor: Told of each reading (`Interceptor.view_cluster`).
        interval_seconds: Between readings; well below the lease.
        lease_seconds: How long a leader may be silent before another worker takes over.
    """

    def __init__(
        self,
        store: Store,
        locks: LockService | None,
        interceptor: Interceptor,
        *,
        interval_seconds: float = 5.0,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._locks = locks
        self._interceptor = interceptor
        self._interval_seconds = interval_seconds
        self._lease_seconds = lease_seconds
        self._owner = uuid.uuid4().hex
        self._leads_until = 0.0

    async def run(self) -> None:
        """Read for ever. Redis being away is logged once per outage and waited out."""
        is_away = False
        try:
            while True:
                left = self._interval_seconds
                try:
                    # A server that does not answer at all must not keep a leader in office either.
                    async with asyncio.timeout(self._lease_seconds):
                        left = await self._observe()
                    is_away = False
                except (MageflowError, TimeoutError) as error:
                    if not is_away:
                        _log.info("the cluster cannot be read: %s", str(error) or "Redis does not answer")
                    is_away = True
                except Exception:  # noqa: BLE001 - an interceptor of the program's: told, and asked again
                    if not is_away:
                        _log.exception("a reading of the cluster could not be told")
                    is_away = True
                if self._leads_until and time.monotonic() >= self._leads_until:
                    self._follow()
                await asyncio.sleep(left)
        finally:
            await self._resign()

    async def observe(self) -> bool:
        """Read once: three round trips for the leader, one for the others. Returns whether this process leads.

        Raises:
            StoreError: Redis could not be asked.
        """
        await self._observe()
        return time.monotonic() < self._leads_until

    async def _observe(self) -> float:
        """Read once; returns after how many seconds to read again."""
        with suppressed():
            asked_at = time.monotonic()
            left = await self._store.lead(self._owner, self._lease_seconds)
            if left > 0:
                self._follow()
                return min(self._interval_seconds, left)
            if self._leads_until and asked_at >= self._leads_until:
                self._follow()  # nobody led in between
            leads_until = asked_at + self._lease_seconds
            census = await self._store.census()
            locks = await self._locks.snapshot(_LOCKS_LIMIT) if self._locks is not None else None
        self._leads_until = leads_until
        self._tell(
            ClusterView(
                is_leader=True,
                believed_until=leads_until,
                signatures=census.signatures,
                active=census.active,
                oldest_seconds=census.oldest_seconds,
                items=census.items,
                orphaned=_orphaned(locks, self._locks.lease_seconds) if locks and self._locks else {},
                wait_graph=_wait_graph(locks) if locks else {},
            )
        )
        return self._interval_seconds

    def _follow(self) -> None:
        self._leads_until = 0.0
        self._tell(ClusterView(is_leader=False))

    async def _resign(self) -> None:
        """Let the next one take over at once. If it cannot be told, the lease ends by itself."""
        if not self._leads_until:
            return
        self._follow()
        try:
            async with asyncio.timeout(_RESIGN_SECONDS):
                with suppressed():
                    await self._store.resign(self._owner)
        except (MageflowError, TimeoutError) as error:
            _log.info("the lease of the cluster view is left to end: %s", str(error) or "Redis does not answer")

    def _tell(self, view: ClusterView) -> None:
        self._interceptor.event(view)


def _orphaned(report: LocksReport, lease_seconds: float) -> Mapping[str, float]:
    """By the name of every lock that is held, so that none reads as 0 rather than as nothing."""
    return {**{each.lock: 0.0 for each in report.holders}, **report.orphaned(lease_seconds)}


def _wait_graph(report: LocksReport) -> Mapping[str, float]:
    return {
        "nodes": float(report.runs_total),
        "edges": float(report.waiters_total),
        "longest_path": float(report.longest_path),
    }
