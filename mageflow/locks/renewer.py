"""The background work of one session: renew its lease, and read verdicts on queued requests.

One script call renews every lock of the session. Verdicts arrive on one list per process, and one blocking call reads
it. A verdict that is lost on the way is reported again by the next renewal. A renewal also finds requests that this
process does not know, such as one that Redis executed late, after its release.
"""

import asyncio
from typing import Final

from mageflow.background import restarted
from mageflow.errors import StoreError
from mageflow.locks.local_state import LocalState
from mageflow.locks.notifier import EventPublisher
from mageflow.locks.pending_releases import PendingReleases
from mageflow.locks.session_lease import SessionLease
from mageflow.store import LockStore
from mageflow.telemetry import suppressed

__all__ = ["Renewer"]

_BLOCK_SECONDS: Final = 2.0
"""How long one blocking read lasts; less than redis-py's default socket timeout of five seconds."""
_BLOCK_MIN_SECONDS: Final = 0.05


class Renewer:
    """Runs while the session holds or waits for anything.

    Args:
        store: Runs the scripts.
        session_lease: Renewed here.
        state: What the session believes; renewals correct it.
        pending_releases: Releases requests that only Redis knows.
        events: Publishes renewals and what their replies report.
    """

    def __init__(
        self,
        store: LockStore,
        session_lease: SessionLease,
        state: LocalState,
        pending_releases: PendingReleases,
        events: EventPublisher,
    ) -> None:
        self._store = store
        self._session_lease = session_lease
        self._state = state
        self._pending_releases = pending_releases
        self._events = events
        self._is_stopped = False
        self._is_behind = False
        self._renewals: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._block_seconds = _BLOCK_SECONDS

    @property
    def is_running(self) -> bool:
        """Whether renewals are going on."""
        return self._renewals is not None and not self._renewals.done()

    def ensure_running(self) -> None:
        """Start what is needed and does not run. Called whenever the session has something new to care for."""
        if self._is_stopped:
            return
        if self._renewals is None or self._renewals.done():
            self._is_behind = False
            self._renewals = self._pending_releases.spawn(restarted(self._renew_while_needed, "lease renewals"))
        if self._state.waiting and (self._reader is None or self._reader.done()):
            self._reader = self._pending_releases.spawn(restarted(self._read_verdicts, "reads of lock verdicts"))

    async def stop(self) -> None:
        """Cancel the background work for good."""
        self._is_stopped = True
        running = [each for each in (self._renewals, self._reader) if each is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _read_verdicts(self) -> None:
        while self._state.waiting:
            try:
                with suppressed():
                    verdicts = await self._store.verdicts(self._session_lease.wake_id, self._block_seconds)
            except StoreError:
                await asyncio.sleep(self._session_lease.retry_seconds)
                continue
            if verdicts is None:
                # The client's own socket timeout is shorter than ours. The next renewal reports what was lost.
                self._block_seconds = max(_BLOCK_MIN_SECONDS, self._block_seconds / 2)
                continue
            for request_id, verdict in verdicts:
                self._state.resolve(request_id, verdict)

    async def _renew_while_needed(self) -> None:
        lease = self._session_lease
        while self._state.grants or self._state.waiting:
            await asyncio.sleep(lease.retry_seconds if self._is_behind else lease.renewal_seconds)
            self._state.end_expired_session()
            self._is_behind = True  # also after an error that ends this loop, which begins again
            self._is_behind = not await self._renew()

    async def _renew(self) -> bool:
        """Renew the session. Returns whether Redis answered."""
        state = self._state
        if not self._session_lease.is_open or not (state.grants or state.waiting):
            return True
        session_id, sent_at = self._session_lease.session_id, self._session_lease.monotonic()
        leases = [
            (hold.resource, hold.token)
            for grant in state.grants.values()
            for hold in grant.holds
            if hold.token not in grant.lost_tokens  # its loss is known, and its block may run for long
        ]
        # A request whose first answer has not arrived yet would be reported as gone.
        waiting = [request_id for request_id, each in state.waiting.items() if each.is_queued]
        try:
            with suppressed():
                reply = await self._store.renew(
                    session_id, self._session_lease.lease_seconds, leases, waiting, list(state.grants)
                )
        except StoreError as error:
            self._events.renewal(leases, "error")
            if waiting:
                self._events.cycle_search_failed(error)
            return False
        took_seconds = self._session_lease.monotonic() - sent_at
        if session_id != self._session_lease.session_id:
            return True
        if reply.verdict.kind == "lost":
            self._events.renewal(leases, "lost")
            state.end_session()
            return True
        self._session_lease.extend(sent_at)
        self._events.renewal(leases, "ok", reply.gone_tokens)
        self._events.reply(reply, took_seconds)
        if waiting:
            self._events.cycle_search(reply, took_seconds)
        state.apply_renewal(reply)
        for request_id, resources in reply.unknown_requests.items():
            # A request sent during the renewal is known by now; one released during it is released twice, harmlessly.
            if not self._is_known(request_id):
                self._pending_releases.add(request_id, resources)
        return True

    def _is_known(self, request_id: str) -> bool:
        return any(
            request_id in each for each in (self._state.grants, self._state.waiting, self._pending_releases.request_ids)
        )
