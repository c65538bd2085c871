"""One process's part in the lock service, on one event loop: asking, waiting, renewing, giving back.

Every lock it holds lives as long as the session of the process (see `SessionLease`): one script call renews all.
Once the session may have ended in Redis, everything under it counts as lost and a new session begins.

Verdicts for queued requests arrive on one list per process, read by one blocking call; nobody polls. A verdict that
got lost on the way is told again by the next renewal, which also finds what Redis keeps for this process and nobody
here knows of: a request that was executed late, after its release, for example.

This file refuses to know resources, decorators and signals beyond the interceptor.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Final

from mageflow.errors import StoreError, StoreUnavailableError
from mageflow.interceptors import Attempt, Interceptor, LockHold
from mageflow.locks.lease import Grant, HeldLock
from mageflow.locks.local_state import LocalState
from mageflow.locks.notifier import EventPublisher
from mageflow.locks.pending_releases import PendingReleases
from mageflow.locks.request import LockRequest
from mageflow.locks.session_lease import SessionLease
from mageflow.store import LockClaim, LockReply, LockStore, LockVerdict
from mageflow.telemetry import suppressed

__all__ = ["LockSession"]

_RENEWALS_PER_LEASE: Final = 3
_RETRIES_PER_LEASE: Final = 15
_BLOCK_SECONDS: Final = 2.0
"""How long one blocking read lasts; well below redis-py's default socket timeout of five seconds."""
_BLOCK_MIN_SECONDS: Final = 0.05


class LockSession:
    """See the module docstring. Everything here runs on the loop it was made on.

    Args:
        store: Runs the scripts.
        interceptor: Told of checks, deadlocks, holds, renewals and losses.
        lease_seconds: How long this process may be silent before its locks are given to others.
        monotonic: Measures leases; must keep counting while the process is stopped.
    """

    def __init__(
        self,
        store: LockStore,
        interceptor: Interceptor,
        lease_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.interceptor = interceptor
        self.lease_seconds = lease_seconds
        self.loop = asyncio.get_running_loop()
        self._monotonic = monotonic
        self._events = EventPublisher(interceptor, self.loop)
        self._session_lease = SessionLease(lease_seconds, monotonic)
        self._pending_releases = PendingReleases(store, self._events, lease_seconds, monotonic, self._keep_running)
        self._local_state = LocalState(self._events)
        self._is_closed = False
        self._renewals: asyncio.Task[None] | None = None
        self._wakes: asyncio.Task[None] | None = None
        self._block_seconds = _BLOCK_SECONDS

    # -- what the service asks -----------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, awaited or still to be given back."""
        return not (self._local_state.grants or self._local_state.waiting or self._pending_releases.requests)

    def grants_of(self, run: str) -> list[Grant]:
        """What a run holds here."""
        return self._local_state.grants_of(run)

    def petitions_of(self, run: str) -> list[LockRequest]:
        """What a run waits for here."""
        return self._local_state.petitions_of(run)

    async def ask(self, pending: LockRequest) -> LockVerdict:
        """Send a request: granted (see `granted`), queued (then see `answer`), deadlock or busy.

        Raises:
            StoreError: Redis did not answer, or the locks were closed; whatever it did is undone as soon as it does.
        """
        while True:
            if self._is_closed:
                raise StoreUnavailableError("lock_acquire", "the locks of this process were closed")
            self._renew_claim()
            sent = self._monotonic()
            reply = await self._send(pending)
            verdict = reply.verdict
            took = self._monotonic() - sent
            self._events.reply(reply, took)
            if verdict.kind in ("queued", "deadlock"):
                self._events.checked(reply, took)
            if pending.session != self._session_lease.session:
                # The session has ended while the answer was on its way, and what was granted with it.
                self._forget(pending)
                if verdict.kind in ("granted", "queued"):
                    self._pending_releases.owe(pending.request, pending.resources)
                continue
            if verdict.kind == "session_lost":
                self._forget(pending)
                self._end_session()
                continue
            self._session_lease.prolong(sent)
            if pending.future is not None and pending.future.cancelled():
                self._give_up(pending)
                raise asyncio.CancelledError("the run has ended")
            if verdict.kind == "queued":
                pending.is_queued = True
                self._keep_running()
            else:
                self._forget(pending)
            return verdict

    async def _send(self, pending: LockRequest) -> LockReply:
        pending.request, pending.is_queued = uuid.uuid4().hex, False
        pending.session = self._session_lease.session
        pending.future = self.loop.create_future()
        self._local_state.waiting[pending.request] = pending
        try:
            return await self._pending_releases.to_the_end(
                self.store.acquire(self._claim(pending)), pending.request, pending.resources
            )
        except BaseException as error:
            self._forget(pending)
            if isinstance(error, StoreError):
                self._pending_releases.owe(pending.request, pending.resources)
                self._events.check_failed(error)
            raise

    async def answer(self, pending: LockRequest, timeout_seconds: float | None) -> LockVerdict:
        """Wait for the verdict of a queued request: granted, deadlock, ended (not in time) or gone (ask again).

        A caller that is cancelled leaves the queue, and gives back what it was granted in the same moment.
        """
        future = pending.future
        if future is None:
            return LockVerdict("gone")
        try:
            await asyncio.wait({future}, timeout=timeout_seconds)
        except asyncio.CancelledError:
            self._give_up(pending)
            raise
        if not future.done():
            verdict = await self._withdraw(pending)
        elif future.cancelled():
            self._give_up(pending)
            raise asyncio.CancelledError("the run has ended")
        else:
            verdict = future.result()
            self._forget(pending)
            if verdict.kind != "granted":
                # Its record is of no use to anybody.
                self._pending_releases.owe(pending.request, pending.resources)
        if verdict.kind == "granted" and pending.session != self._session_lease.session:
            self._give_up(pending)
            return LockVerdict("gone")
        return verdict

    async def _withdraw(self, pending: LockRequest) -> LockVerdict:
        """Leave the queue, unless a verdict was reached in the same moment; without an answer it is left later."""
        try:
            reply = await self._pending_releases.to_the_end(
                self.store.withdraw(pending.request, pending.resources), pending.request, pending.resources
            )
        except StoreError:
            self._pending_releases.owe(pending.request, pending.resources)
            return LockVerdict("ended")
        finally:
            self._forget(pending)
        self._events.reply(reply, 0.0)
        return reply.verdict

    def granted(self, pending: LockRequest, tokens: Sequence[int], attempt: Attempt | None) -> Grant:
        """Take a granted request into care: it is renewed from now on until `give_back`."""
        session = pending.session
        locks = tuple(
            HeldLock(resource, token, LockHold(resource, pending.call.task, attempt, token, monotonic=self._monotonic))
            for resource, token in zip(pending.resources, tokens, strict=True)
        )
        grant = Grant(
            request=pending.request,
            run=pending.run,
            session=session,
            attempt=attempt,
            locks=locks,
            deadline=self._session_lease.deadline_of(session),
            release=lambda: self.give_back(grant),
            loop=self.loop,
            monotonic=self._monotonic,
        )
        around = ExitStack()

        def close() -> None:
            for held in locks:
                held.hold.is_lost = grant.is_lost(held.token)
            self._events.guarded(around.close)

        try:
            for each in locks:
                around.enter_context(self.interceptor.hold_lock(each.hold))
        except BaseException:
            self._pending_releases.owe(pending.request, pending.resources)
            raise
        grant.close = close
        self._local_state.grants[grant.request] = grant
        self._keep_running()
        return grant

    async def give_back(self, grant: Grant) -> None:
        """Release; the next in each queue is served in the same round trip.

        Completes even when the caller is cancelled. Without an answer from Redis it is repeated in the background.
        """
        if grant.is_ended:
            return
        self._local_state.grants.pop(grant.request, None)
        resources = tuple(each.resource for each in grant.locks)
        try:
            if grant.session == self._session_lease.session and not grant.has_expired:
                reply = await self._pending_releases.to_the_end(
                    self.store.release(grant.request, resources), grant.request, resources, is_release=True
                )
                self._events.reply(reply, 0.0)
                if reply.verdict.released < len(resources):
                    self._local_state.lose(grant)
            else:
                self._local_state.lose(grant)
                self._pending_releases.owe(grant.request, resources)
        except StoreError:
            self._pending_releases.owe(grant.request, resources)
        finally:
            self._local_state.conclude(grant)

    async def end_run(self, run: str, *, keep: Sequence[Grant] = ()) -> None:
        """End what a run still holds and waits for; one round trip if that is anything, else none."""
        pending_requests = self.petitions_of(run)
        for pending in pending_requests:
            if pending.future is not None and not pending.future.done():
                pending.future.cancel()
        grants = [each for each in self.grants_of(run) if each not in keep]
        if keep or not grants:
            for grant in grants:
                await self.give_back(grant)
            return
        for grant in grants:
            del self._local_state.grants[grant.request]
        try:
            work = self._pending_releases.spawn(self.store.end_attempts(self._session_lease.session, [run]))
            reply = await asyncio.shield(work)
            self._events.reply(reply, 0.0)
        except (StoreError, asyncio.CancelledError) as error:
            for grant in grants:
                self._pending_releases.owe(grant.request, tuple(each.resource for each in grant.locks))
            if not isinstance(error, StoreError):
                raise
        finally:
            for grant in grants:
                self._local_state.conclude(grant)

    async def aclose(self) -> None:
        """End the session: whatever is held is handed on at once instead of when the lease runs out.

        Requests that still wait fail with `StoreUnavailableError`.
        """
        self._is_closed = True
        running = [each for each in (self._renewals, self._wakes) if each is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._pending_releases.close()
        if self._session_lease.is_open:
            # Without an answer the session ends by itself when its lease runs out.
            with suppress(StoreError):
                await self.store.end_session(self._session_lease.session)
        self._end_session()

    # -- the session ---------------------------------------------------------------------------------------------

    def _renew_claim(self) -> None:
        """A session that may have ended is never used again."""
        if self._session_lease.may_have_ended:
            self._end_session()

    def _end_session(self) -> None:
        self._session_lease.end()
        self._local_state.lose_everything()

    def _claim(self, pending: LockRequest) -> LockClaim:
        return LockClaim(
            request_id=pending.request,
            attempt_id=pending.run,
            session_id=pending.session,
            session_is_open=self._session_lease.is_open,
            resources=pending.resources,
            owner=pending.owner,
            lease_seconds=self.lease_seconds,
            wake_id=self._session_lease.process,
            policy=pending.call.policy,
            born_ms=pending.born_ms,
            priority=pending.priority,
            traceparent=pending.call.traceparent,
            enclosing_tokens=pending.under,
            can_wait=pending.can_wait,
        )

    # -- in the background ---------------------------------------------------------------------------------------

    def _keep_running(self) -> None:
        if self._is_closed:
            return
        if self._renewals is None or self._renewals.done():
            self._renewals = self._pending_releases.spawn(self._renew_while_needed())
        if self._local_state.waiting and (self._wakes is None or self._wakes.done()):
            self._wakes = self._pending_releases.spawn(self._read_wakes())

    async def _read_wakes(self) -> None:
        while self._local_state.waiting:
            try:
                with suppressed():
                    verdicts = await self.store.verdicts(self._session_lease.process, self._block_seconds)
            except StoreError:
                await asyncio.sleep(self.lease_seconds / _RETRIES_PER_LEASE)
                continue
            if verdicts is None:
                # The client's own socket timeout is shorter than ours. Whatever was lost with the answer is told by
                # the next renewal.
                self._block_seconds = max(_BLOCK_MIN_SECONDS, self._block_seconds / 2)
                continue
            for request, verdict in verdicts:
                self._local_state.settle(request, verdict)

    async def _renew_while_needed(self) -> None:
        pause = self.lease_seconds / _RENEWALS_PER_LEASE
        while not self.is_idle:
            await asyncio.sleep(pause)
            pause = self.lease_seconds / _RENEWALS_PER_LEASE
            self._renew_claim()
            if not await self._renew() or not await self._pending_releases.pay():
                pause = self.lease_seconds / _RETRIES_PER_LEASE

    async def _renew(self) -> bool:
        if not self._session_lease.is_open or not (self._local_state.grants or self._local_state.waiting):
            return True
        session, sent = self._session_lease.session, self._monotonic()
        held = [(each.resource, each.token) for grant in self._local_state.grants.values() for each in grant.locks]
        # One whose first answer is still on its way would be reported as gone.
        requests = [request for request, each in self._local_state.waiting.items() if each.is_queued]
        try:
            with suppressed():
                reply = await self.store.renew(
                    session, self.lease_seconds, held, requests, list(self._local_state.grants)
                )
        except StoreError as error:
            self._events.renewed(held, "error", frozenset())
            if requests:
                self._events.check_failed(error)
            return False
        took = self._monotonic() - sent
        if session != self._session_lease.session:
            return True
        if reply.verdict.kind == "lost":
            self._events.renewed(held, "lost", frozenset())
            self._end_session()
            return True
        self._session_lease.prolong(sent)
        self._events.renewed(held, "ok", reply.gone_tokens)
        self._events.reply(reply, took)
        if requests:
            self._events.checked(reply, took)
        self._local_state.compare(reply)
        for request, resources in reply.unknown_requests.items():
            # What was asked for since the renewal was sent is known here; what was released is released twice.
            if not self._knows(request):
                self._pending_releases.owe(request, resources)
        return True

    def _knows(self, request: str) -> bool:
        return any(
            request in each
            for each in (self._local_state.grants, self._local_state.waiting, self._pending_releases.requests)
        )

    def _give_up(self, pending: LockRequest) -> None:
        self._forget(pending)
        self._pending_releases.owe(pending.request, pending.resources)

    def _forget(self, pending: LockRequest) -> None:
        self._local_state.waiting.pop(pending.request, None)
