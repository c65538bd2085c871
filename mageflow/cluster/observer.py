"""One elected worker exports cluster-wide gauges; the others export ``mageflow_cluster_leader`` = 0.

The worker that holds a lease in Redis reads the counts that the scripts maintain, without a scan over keys, and a
snapshot of the locks, every few seconds. It publishes each reading as the event `ClusterView`.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Final

from mageflow.errors import MageflowError, StoreError, StoreUnavailableError
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
    """Reads until it is cancelled, then releases the lease.

    A reading is valid until the end of the lease under which it was made, by the clock of this process. So a leader
    that cannot reach Redis stops exporting before another worker leads, and no number is older than the lease.

    Args:
        store: Has the counts of records.
        locks: Has the locks; None leaves them out.
        interceptor: Gets the event `ClusterView` for each reading.
        interval_seconds: Between two readings; well below the lease. Twice that, and two thirds of the lease at most,
            while nothing is under way and a reading equals the one before.
        lease_seconds: After this time without a renewal another worker takes over.
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
        self._cannot_read_locks = False
        self._last_counts: object = None
        self._readings = 0

    @property
    def leads(self) -> bool:
        """Whether this process exports the cluster view now."""
        return time.monotonic() < self._leads_until

    async def run(self) -> None:
        """Read until cancelled. While Redis is unavailable, retry; each outage is logged once."""
        is_failing = False
        try:
            while True:
                left = self._interval_seconds / 2  # after a failure: a leader needs an answer before its lease ends
                try:
                    # A leader whose server does not answer must stop leading too.
                    async with asyncio.timeout(self._lease_seconds):
                        left = await self._observe()
                    is_failing = False
                except (MageflowError, TimeoutError) as error:
                    if not is_failing:
                        _log.info("the cluster cannot be read: %s", str(error) or "Redis does not answer")
                    is_failing = True
                except Exception:  # noqa: BLE001 - logged, and tried again
                    if not is_failing:
                        _log.exception("the cluster cannot be read")
                    is_failing = True
                if self._leads_until and time.monotonic() >= self._leads_until:
                    self._follow()
                await asyncio.sleep(left)
        finally:
            await self._resign()

    async def observe(self) -> bool:
        """Read once: three round trips for the leader, one for the others.

        Returns:
            Whether this process leads.

        Raises:
            StoreError: Redis did not answer.
        """
        await self._observe()
        return self.leads

    async def _observe(self) -> float:
        """Read once; returns the seconds until the next reading."""
        with suppressed():
            started_at = time.monotonic()
            left = await self._store.lead(self._owner, self._lease_seconds)
            if left > 0:
                self._follow()
                return min(self._interval_seconds, left)
            if self._leads_until and started_at >= self._leads_until:
                self._follow()  # the lease had ended: there was no leader in between
            leads_until = started_at + self._lease_seconds
            self._readings += 1
            census = await self._store.census(self._readings)
            locks = await self._read_locks()
        self._leads_until = leads_until
        view = ClusterView(
            is_leader=True,
            valid_until=leads_until,
            signatures=census.signatures,
            active=census.active,
            oldest_seconds=census.oldest_seconds,
            items=census.items,
            orphaned=_orphaned(locks, self._locks.lease_seconds) if locks and self._locks else {},
            wait_graph=_wait_graph(locks) if locks else {},
        )
        self._interceptor.event(view)
        return self._pause_seconds(view)

    def _pause_seconds(self, view: ClusterView) -> float:
        """Until the next reading: longer while the cluster is idle."""
        counts = (view.signatures, view.active, view.items, view.orphaned, view.wait_graph)
        is_idle = counts == self._last_counts and not any(view.active.values()) and not any(view.wait_graph.values())
        self._last_counts = counts
        interval = self._interval_seconds
        return max(interval, min(2 * interval, self._lease_seconds * 2 / 3)) if is_idle else interval

    async def _read_locks(self) -> LocksReport | None:
        """The locks; None if what is stored of them cannot be read. The other gauges do not depend on them."""
        if self._locks is None:
            return None
        try:
            report = await self._locks.snapshot(_LOCKS_LIMIT)
        except StoreUnavailableError:
            raise
        except StoreError as error:
            if not self._cannot_read_locks:
                _log.warning("the locks cannot be read, their gauges are left out: %s", error)
            self._cannot_read_locks = True
            return None
        self._cannot_read_locks = False
        return report

    def _follow(self) -> None:
        self._leads_until = 0.0
        self._interceptor.event(ClusterView(is_leader=False))

    async def _resign(self) -> None:
        """Release the lease so that another worker leads at once. If Redis does not answer, the lease expires."""
        if not self._leads_until:
            return
        self._follow()
        try:
            async with asyncio.timeout(_RESIGN_SECONDS):
                with suppressed():
                    await self._store.resign(self._owner)
        except (MageflowError, TimeoutError) as error:
            _log.info("the lease of the cluster view is left to expire: %s", str(error) or "Redis does not answer")


def _orphaned(report: LocksReport, lease_seconds: float) -> Mapping[str, float]:
    """By lock name, with 0 for a held lock without an orphan: its gauge is then 0, not absent."""
    return {**{each.lock: 0.0 for each in report.holders}, **report.orphaned(lease_seconds)}


def _wait_graph(report: LocksReport) -> Mapping[str, float]:
    return {
        "nodes": float(report.runs_total),
        "edges": float(report.waiters_total),
        "longest_path": float(report.longest_path),
    }
