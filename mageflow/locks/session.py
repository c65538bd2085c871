"""One process's part in the lock service, on one event loop: send requests, wait for verdicts, release.

Every lock it holds lives as long as the session of the process (see `SessionLease`). Once Redis may have ended the
session, everything under it counts as lost and a new session begins.

This file owns the calls about single requests. `Renewer` keeps the session alive in the background.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from mageflow.errors import StoreError, StoreUnavailableError
from mageflow.interceptors import Interceptor, LockHold
from mageflow.locks.lease import Grant
from mageflow.locks.local_state import LocalState
from mageflow.locks.notifier import EventPublisher
from mageflow.locks.pending_releases import PendingReleases
from mageflow.locks.renewer import Renewer
from mageflow.locks.request import LockRequest
from mageflow.locks.session_lease import SessionLease
from mageflow.store import LockReply, LockStore, LockVerdict

__all__ = ["LockSession"]


class LockSession:
    """The locks of this process on the running event loop. Everything here runs on that loop.

    Args:
        store: Runs the scripts.
        interceptor: Gets holds, losses, renewals, cycle searches and deadlocks.
        lease_seconds: How long this process may be silent before its locks go to others.
        monotonic: The clock, in seconds. It must not stop while the process is stopped.
    """

    def __init__(
        self,
        store: LockStore,
        interceptor: Interceptor,
        lease_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.events = EventPublisher(interceptor)
        self.session_lease = SessionLease(lease_seconds, monotonic)
        self.state = LocalState(self.session_lease, self.events)
        self.pending_releases = PendingReleases(store, self.events, self.session_lease)
        self.renewer = Renewer(store, self.session_lease, self.state, self.pending_releases, self.events)
        self._store = store
        self._interceptor = interceptor
        self._monotonic = monotonic
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the locks of this process were closed."""
        return self._is_closed

    # -- requests ------------------------------------------------------------------------------------------------

    async def send(self, request: LockRequest) -> LockVerdict:
        """Send a request: the verdict is granted, queued, deadlock or busy.

        Raises:
            StoreError: Redis did not answer, or the locks were closed. What Redis did for the request is undone as soon
                as it answers.
        """
        while True:
            if self._is_closed:
                raise StoreUnavailableError("lock_acquire", "the locks of this process were closed")
            self.state.end_expired_session()
            sent_at = self._monotonic()
            reply = await self._send_once(request)
            verdict = reply.verdict
            took_seconds = self._monotonic() - sent_at
            self.events.reply(reply, took_seconds)
            if verdict.kind in ("queued", "deadlock"):
                self.events.cycle_search(reply, took_seconds)
            if request.session_id != self.session_lease.session_id:
                # The session ended before the answer arrived, and with it what the request was granted.
                self._forget(request)
                if verdict.kind in ("granted", "queued"):
                    self.pending_releases.add_request(request)
                continue
            if verdict.kind == "session_lost":
                self._forget(request)
                self.state.end_session()
                continue
            self.session_lease.extend(sent_at)
            if request.verdict is not None and request.verdict.cancelled():
                self._abandon(request)
                raise asyncio.CancelledError("the attempt has ended")
            if verdict.kind == "queued":
                request.is_queued = True
                self.renewer.ensure_running()
            else:
                self._forget(request)
            return verdict

    async def _send_once(self, request: LockRequest) -> LockReply:
        request.request_id, request.is_queued, request.is_answered = secrets.token_hex(16), False, False
        request.session_id = self.session_lease.session_id
        request.verdict = self.loop.create_future()
        self.state.waiting[request.request_id] = request
        try:
            claim = request.claim(self.session_lease)
            reply = await self.pending_releases.until_answered(self._store.acquire(claim), request)
        except BaseException as error:
            self._forget(request)
            if isinstance(error, StoreError):
                self.pending_releases.add_request(request)
                self.events.cycle_search_failed(error)
            raise
        request.is_answered = True
        return reply

    async def wait(self, request: LockRequest, timeout_seconds: float | None) -> LockVerdict:
        """Wait for the verdict on a queued request: granted, deadlock, ended (timeout) or gone (send it again).

        A caller that is cancelled leaves the queue, and releases what it was granted at the same moment.
        """
        future = request.verdict
        if future is None:
            return LockVerdict("gone")
        try:
            await asyncio.wait({future}, timeout=timeout_seconds)
        except asyncio.CancelledError:
            self._abandon(request)
            raise
        if not future.done():
            verdict = await self._withdraw(request)
        elif future.cancelled():
            self._abandon(request)
            raise asyncio.CancelledError("the attempt has ended")
        else:
            verdict = future.result()
            self._forget(request)
            if verdict.kind != "granted":
                self.pending_releases.add_request(request)  # deletes its record in Redis
        if verdict.kind == "granted" and request.session_id != self.session_lease.session_id:
            self._abandon(request)
            return LockVerdict("gone")
        return verdict

    async def _withdraw(self, request: LockRequest) -> LockVerdict:
        """Leave the queue, unless there is a verdict by now. Without an answer of Redis, leave it later."""
        try:
            reply = await self.pending_releases.until_answered(
                self._store.withdraw(request.request_id, request.call.resources), request
            )
        except StoreError:
            self.pending_releases.add_request(request)
            return LockVerdict("ended")
        finally:
            self._forget(request)
        self.events.reply(reply, 0.0)
        return reply.verdict

    # -- grants --------------------------------------------------------------------------------------------------

    def hold(self, request: LockRequest, tokens: Sequence[int]) -> Grant:
        """Begin to hold what a request was granted: it is renewed from now on until `release`."""
        call = request.call
        holds = tuple(
            LockHold(resource, call.task, request.attempt, token, monotonic=self._monotonic)
            for resource, token in zip(call.resources, tokens, strict=True)
        )
        grant = Grant(request, holds, self.session_lease, self.loop, release=lambda: self.release(grant))
        try:
            for each in holds:
                grant.hold_scopes.enter_context(self._interceptor.hold_lock(each))
        except BaseException as error:
            grant.hold_scopes.__exit__(type(error), error, error.__traceback__)
            self.pending_releases.add_request(request)
            raise
        self.state.grants[request.request_id] = grant
        self.renewer.ensure_running()
        return grant

    async def release(self, grant: Grant) -> None:
        """Release; the next in each queue is served in the same round trip.

        Completes even if the caller is cancelled. Without an answer of Redis it is repeated in the background.
        """
        if grant.is_ended:
            return
        request = grant.request
        self.state.grants.pop(request.request_id, None)
        try:
            if grant.has_expired:
                self.state.mark_lost(grant)
                self.pending_releases.add_request(request)
            else:
                reply = await self.pending_releases.until_answered(
                    self._store.release(request.request_id, grant.resources), request
                )
                self.events.reply(reply, 0.0)
                if reply.verdict.released < len(grant.resources):
                    self.state.mark_lost(grant)
        except StoreError:
            self.pending_releases.add_request(request)
        finally:
            self.state.mark_ended(grant)

    # -- the end of attempts and of the session ------------------------------------------------------------------

    def has_any(self, attempt_id: str) -> bool:
        """Whether an attempt holds or waits for anything here."""
        return bool(self.state.grants_of(attempt_id) or self.state.waiting_of(attempt_id))

    async def end_attempt(self, attempt_id: str) -> None:
        """Release what an attempt still holds and waits for; one round trip if there is anything, else none.

        Locks held by a thread are kept: a synchronous body cannot be stopped and is still at work.
        """
        self.state.cancel_waiting(attempt_id)
        held = self.state.grants_of(attempt_id)
        grants = [each for each in held if not each.request.is_in_thread]
        if not grants:
            return
        if len(grants) < len(held):
            for grant in grants:
                await self.release(grant)
            return
        for grant in grants:
            del self.state.grants[grant.request.request_id]
        try:
            work = self.pending_releases.spawn(self._store.end_attempts(self.session_lease.session_id, [attempt_id]))
            self.events.reply(await asyncio.shield(work), 0.0)
        except (StoreError, asyncio.CancelledError) as error:
            for grant in grants:
                self.pending_releases.add_request(grant.request)
            if not isinstance(error, StoreError):
                raise
        finally:
            for grant in grants:
                self.state.mark_ended(grant)

    async def aclose(self) -> None:
        """End the session: the locks go to the next at once instead of when the lease runs out.

        Requests that still wait fail with `StoreUnavailableError`.
        """
        self._is_closed = True
        try:
            await self.renewer.stop()
            await self.pending_releases.close()
            if self.session_lease.is_open:
                # Without an answer the session ends by itself when its lease runs out.
                with suppress(StoreError):
                    await self._store.end_session(self.session_lease.session_id)
        finally:
            self.state.end_session()  # also when closing is cancelled: requests that wait must not wait for ever

    def _abandon(self, request: LockRequest) -> None:
        self._forget(request)
        self.pending_releases.add_request(request)

    def _forget(self, request: LockRequest) -> None:
        self.state.waiting.pop(request.request_id, None)
