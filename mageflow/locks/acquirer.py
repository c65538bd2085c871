"""The way of a request from a block to its grant, and back.

This file owns the order of the steps. How a request is sent is the session's part; the block around it is
`mageflow.locks.block`'s.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Final

from mageflow.errors import DeadlockError, LockTimeoutError, StoreUnavailableError
from mageflow.interceptors import ExtendTimeout, Interceptor, ResourceKey, current_attempt
from mageflow.locks import enclosing
from mageflow.locks.lease import Grant, Lease
from mageflow.locks.request import LockRequest, attempt_id_of
from mageflow.locks.session import LockSession
from mageflow.locks.sessions import Sessions
from mageflow.locks.threads import ThreadBridge, run_on
from mageflow.locks.waiting import WaitPhases, WaitScope
from mageflow.store import LockVerdict

__all__ = ["Acquirer"]

_RESERVE_SECONDS: Final = 1.0
"""How long before its timeout an attempt gives up waiting for Redis."""


class Acquirer:
    """Enters and leaves blocks under locks.

    Args:
        sessions: Send the requests.
        interceptor: Wraps each request.
        extend: Asks Hatchet for more execution time while a task waits; None leaves timeouts alone.
        threads: Runs requests of threads.
    """

    def __init__(
        self,
        sessions: Sessions,
        interceptor: Interceptor,
        extend: ExtendTimeout | None,
        threads: ThreadBridge,
    ) -> None:
        self.threads = threads
        self._sessions = sessions
        self._interceptor = interceptor
        self._extend = extend
        self._phases = WaitPhases()

    async def enter(self, request: LockRequest) -> Lease:
        """Get a lease for a request of the running code.

        An attempt has all its locks in the session of one loop, from whichever loop it asks: the search for deadlocks
        sees the waits of one session as those of one owner.
        """
        leases = enclosing.current()
        attempt = request.attempt = current_attempt.get()
        if attempt is not None:
            request.attempt_id = attempt_id_of(attempt)
        else:
            request.attempt_id = leases[0].attempt_id if leases else secrets.token_hex(16)
        if not leases:  # the usual case
            return await self._lease(request, leases)
        used = [each.loop_of(self, request.attempt_id) for each in leases]
        running = [loop for loop in used if loop is not None and loop.is_running()]
        loop = running[-1] if running else asyncio.get_running_loop()
        return await run_on(loop, self._lease(request, leases), undo=self.leave)

    async def leave(self, lease: Lease) -> None:
        """Release what the block itself acquired; what an enclosing block holds stays."""
        grant = lease.grant
        if grant is None:
            return
        if grant.loop is asyncio.get_running_loop():
            await grant.release()
        elif grant.loop.is_running():  # a stopped loop takes its session with it
            await run_on(grant.loop, grant.release())

    async def _lease(self, request: LockRequest, leases: Sequence[Lease]) -> Lease:
        """Share what enclosing blocks of the same attempt hold, and request the rest. On the session's loop."""
        started_at = time.monotonic()
        parts: dict[ResourceKey, tuple[Grant, int]] = {}
        for resource in request.resources if leases else ():
            for lease in reversed(leases):
                if part := lease.covers(self, request.attempt_id, resource):
                    parts[resource] = part
                    break
        missing = tuple(each for each in request.resources if each not in parts) if parts else request.resources
        grant: Grant | None = None
        if missing:
            grant = await self._acquire(
                request, missing, tuple({token for lease in leases for token in lease.tokens_of(self)})
            )
            shared, parts = parts, {hold.resource: (grant, hold.token) for hold in grant.holds}
            if shared:
                parts = {resource: shared.get(resource) or parts[resource] for resource in request.resources}
        waited_seconds = time.monotonic() - started_at
        return Lease(self, request.attempt_id, parts, waited_seconds=waited_seconds, grant=grant)

    async def _acquire(
        self, request: LockRequest, missing: tuple[ResourceKey, ...], enclosing_tokens: tuple[int, ...]
    ) -> Grant:
        session = self._sessions.current()
        call = request.start(missing, enclosing_tokens)
        grant: Grant | None = None
        try:
            with self._interceptor.acquire_lock(call):
                try:
                    grant = granted = await self._until_granted(session, request)
                    call.outcome = "acquired"
                except LockTimeoutError:
                    call.outcome = "timeout"
                    raise
                except DeadlockError as error:
                    call.outcome, call.cycle = "deadlock", error.cycle
                    raise
                except asyncio.CancelledError:
                    call.outcome = "cancelled"
                    raise
                finally:
                    call.waited_seconds = call.elapsed_seconds
        except BaseException:
            if grant is not None:  # an interceptor failed after the grant: the body will not run
                await grant.release()
            raise
        return granted

    async def _until_granted(self, session: LockSession, request: LockRequest) -> Grant:
        call = request.call
        while True:
            verdict = await self._send(session, request)
            if verdict.kind == "queued":
                verdict = await self._wait(session, request, verdict)
            if verdict.kind == "granted":
                return session.hold(request, verdict.tokens)
            if verdict.kind == "deadlock":
                raise DeadlockError(verdict.cycle, request.owner.run_id, verdict.policy)
            if verdict.kind in ("busy", "ended"):
                blocked = verdict.waiting_for or call.waiting_for or call.resources[0]
                raise LockTimeoutError(blocked.name, blocked.key, call.elapsed_seconds)

    async def _send(self, session: LockSession, request: LockRequest) -> LockVerdict:
        """Send a request, and again while Redis is away or refuses, as long as the request may wait.

        That is its timeout, and in a task what is left of the attempt. A request outside of tasks without a timeout
        waits for the length of a lease.

        Raises:
            StoreUnavailableError: Redis was away or refused all the time.
        """
        longest = session.session_lease.retry_seconds
        pause = longest / 8
        started_at = time.monotonic()
        while True:
            try:
                return await session.send(request)
            except StoreUnavailableError:
                limits = [] if request.remaining_seconds is None else [request.remaining_seconds]
                if request.attempt is not None:
                    limits.append(request.attempt.remaining_seconds - _RESERVE_SECONDS)
                elif not limits:
                    limits.append(started_at + session.session_lease.lease_seconds - time.monotonic())
                if session.is_closed or min(limits) <= pause:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _wait(self, session: LockSession, request: LockRequest, queued: LockVerdict) -> LockVerdict:
        call = request.call
        if not call.queued_at:
            call.queued_at, call.queue_position = time.time(), queued.position
        request.note_queued(queued)
        call.is_waiting = True
        extend = self._extend if request.extend_timeout else None
        try:
            with WaitScope(call, extend, session.events, self._phases):
                return await session.wait(request, request.remaining_seconds)
        finally:
            call.is_waiting = False
