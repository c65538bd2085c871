"""One process's part in the lock service, on one event loop: asking, waiting, renewing, giving back.

Every lock it holds stands as long as the process's session does (see `Tenure`), so one script call renews them all.
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
from mageflow.locks.debts import Debts
from mageflow.locks.lease import Grant, HeldLock
from mageflow.locks.ledger import Ledger
from mageflow.locks.notices import Notices
from mageflow.locks.petition import Petition
from mageflow.locks.tenure import Tenure
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
        self._notices = Notices(interceptor, self.loop)
        self._tenure = Tenure(lease_seconds, monotonic)
        self._debts = Debts(store, self._notices, lease_seconds, monotonic, self._keep_running)
        self._ledger = Ledger(self._notices)
        self._is_closed = False
        self._renewals: asyncio.Task[None] | None = None
        self._wakes: asyncio.Task[None] | None = None
        self._block_seconds = _BLOCK_SECONDS

    # -- what the service asks -----------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, awaited or still to be given back."""
        return not (self._ledger.grants or self._ledger.waiting or self._debts.requests)

    def grants_of(self, run: str) -> list[Grant]:
        """What a run holds here."""
        return self._ledger.grants_of(run)

    def petitions_of(self, run: str) -> list[Petition]:
        """What a run waits for here."""
        return self._ledger.petitions_of(run)

    async def ask(self, petition: Petition) -> LockVerdict:
        """Send a request: granted (see `granted`), queued (then see `answer`), deadlock or busy.

        Raises:
            StoreError: Redis did not answer, or the locks were closed; whatever it did is undone as soon as it does.
        """
        while True:
            if self._is_closed:
                raise StoreUnavailableError("lock_acquire", "the locks of this process were closed")
            self._renew_claim()
            sent = self._monotonic()
            reply = await self._send(petition)
            verdict = reply.verdict
            took = self._monotonic() - sent
            self._notices.reply(reply, took)
            if verdict.kind in ("queued", "deadlock"):
                self._notices.checked(reply, took)
            if petition.session != self._tenure.session:
                # The session has ended while the answer was on its way, and what was granted with it.
                self._forget(petition)
                if verdict.kind in ("granted", "queued"):
                    self._debts.owe(petition.request, petition.resources)
                continue
            if verdict.kind == "session_lost":
                self._forget(petition)
                self._end_session()
                continue
            self._tenure.prolong(sent)
            if petition.future is not None and petition.future.cancelled():
                self._give_up(petition)
                raise asyncio.CancelledError("the run has ended")
            if verdict.kind == "queued":
                petition.is_queued = True
                self._keep_running()
            else:
                self._forget(petition)
            return verdict

    async def _send(self, petition: Petition) -> LockReply:
        petition.request, petition.is_queued = uuid.uuid4().hex, False
        petition.session = self._tenure.session
        petition.future = self.loop.create_future()
        self._ledger.waiting[petition.request] = petition
        try:
            return await self._debts.to_the_end(
                self.store.acquire(self._claim(petition)), petition.request, petition.resources
            )
        except BaseException as error:
            self._forget(petition)
            if isinstance(error, StoreError):
                self._debts.owe(petition.request, petition.resources)
                self._notices.check_failed(error)
            raise

    async def answer(self, petition: Petition, timeout_seconds: float | None) -> LockVerdict:
        """Wait for the verdict of a queued request: granted, deadlock, ended (not in time) or gone (ask again).

        A caller that is cancelled leaves the queue, and gives back what it was granted in the same moment.
        """
        future = petition.future
        if future is None:
            return LockVerdict("gone")
        try:
            await asyncio.wait({future}, timeout=timeout_seconds)
        except asyncio.CancelledError:
            self._give_up(petition)
            raise
        if not future.done():
            verdict = await self._withdraw(petition)
        elif future.cancelled():
            self._give_up(petition)
            raise asyncio.CancelledError("the run has ended")
        else:
            verdict = future.result()
            self._forget(petition)
            if verdict.kind != "granted":
                # Its record is of no use to anybody.
                self._debts.owe(petition.request, petition.resources)
        if verdict.kind == "granted" and petition.session != self._tenure.session:
            self._give_up(petition)
            return LockVerdict("gone")
        return verdict

    async def _withdraw(self, petition: Petition) -> LockVerdict:
        """Leave the queue, unless a verdict was reached in the same moment; without an answer it is left later."""
        try:
            reply = await self._debts.to_the_end(
                self.store.withdraw(petition.request, petition.resources), petition.request, petition.resources
            )
        except StoreError:
            self._debts.owe(petition.request, petition.resources)
            return LockVerdict("ended")
        finally:
            self._forget(petition)
        self._notices.reply(reply, 0.0)
        return reply.verdict

    def granted(self, petition: Petition, tokens: Sequence[int], attempt: Attempt | None) -> Grant:
        """Take a granted request into care: it is renewed from now on until `give_back`."""
        session = petition.session
        locks = tuple(
            HeldLock(resource, token, LockHold(resource, petition.call.task, attempt, token, self._monotonic))
            for resource, token in zip(petition.resources, tokens, strict=True)
        )
        grant = Grant(
            request=petition.request,
            run=petition.run,
            session=session,
            attempt=attempt,
            locks=locks,
            deadline=self._tenure.deadline_of(session),
            release=lambda: self.give_back(grant),
            loop=self.loop,
            monotonic=self._monotonic,
        )
        around = ExitStack()

        def close() -> None:
            for held in locks:
                held.hold.is_lost = grant.is_lost(held.token)
            self._notices.guarded(around.close)

        try:
            for each in locks:
                around.enter_context(self.interceptor.hold_lock(each.hold))
        except BaseException:
            self._debts.owe(petition.request, petition.resources)
            raise
        grant.close = close
        self._ledger.grants[grant.request] = grant
        self._keep_running()
        return grant

    async def give_back(self, grant: Grant) -> None:
        """Release; the next in each queue is served in the same round trip.

        Completes even when the caller is cancelled. Without an answer from Redis it is repeated in the background.
        """
        if grant.is_ended:
            return
        self._ledger.grants.pop(grant.request, None)
        resources = tuple(each.resource for each in grant.locks)
        try:
            if grant.session == self._tenure.session and not grant.has_expired:
                reply = await self._debts.to_the_end(
                    self.store.release(grant.request, resources), grant.request, resources, is_release=True
                )
                self._notices.reply(reply, 0.0)
                if reply.verdict.ended < len(resources):
                    self._ledger.lose(grant)
            else:
                self._ledger.lose(grant)
                self._debts.owe(grant.request, resources)
        except StoreError:
            self._debts.owe(grant.request, resources)
        finally:
            self._ledger.conclude(grant)

    async def end_run(self, run: str, *, keep: Sequence[Grant] = ()) -> None:
        """End what a run still holds and waits for; one round trip if that is anything, else none."""
        petitions = self.petitions_of(run)
        for petition in petitions:
            if petition.future is not None and not petition.future.done():
                petition.future.cancel()
        grants = [each for each in self.grants_of(run) if each not in keep]
        if keep or not grants:
            for grant in grants:
                await self.give_back(grant)
            return
        for grant in grants:
            del self._ledger.grants[grant.request]
        try:
            work = self._debts.spawn(self.store.end_runs(self._tenure.session, [run]))
            reply = await asyncio.shield(work)
            self._notices.reply(reply, 0.0)
        except (StoreError, asyncio.CancelledError) as error:
            for grant in grants:
                self._debts.owe(grant.request, tuple(each.resource for each in grant.locks))
            if not isinstance(error, StoreError):
                raise
        finally:
            for grant in grants:
                self._ledger.conclude(grant)

    async def aclose(self) -> None:
        """End the session: whatever is held is handed on at once instead of when the lease runs out.

        Requests that still wait fail with `StoreUnavailableError`.
        """
        self._is_closed = True
        running = [each for each in (self._renewals, self._wakes) if each is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._debts.close()
        if self._tenure.is_open:
            # Without an answer the session ends by itself when its lease runs out.
            with suppress(StoreError):
                await self.store.end_session(self._tenure.session)
        self._end_session()

    # -- the session ---------------------------------------------------------------------------------------------

    def _renew_claim(self) -> None:
        """A session that may have ended is never used again."""
        if self._tenure.may_have_ended:
            self._end_session()

    def _end_session(self) -> None:
        self._tenure.end()
        self._ledger.lose_everything()

    def _claim(self, petition: Petition) -> LockClaim:
        return LockClaim(
            request=petition.request,
            run=petition.run,
            session=petition.session,
            session_is_open=self._tenure.is_open,
            resources=petition.resources,
            owner=petition.owner,
            lease_seconds=self.lease_seconds,
            wake_id=self._tenure.process,
            policy=petition.call.policy,
            born_ms=petition.born_ms,
            priority=petition.priority,
            traceparent=petition.call.traceparent,
            under=petition.under,
            can_wait=petition.can_wait,
        )

    # -- in the background ---------------------------------------------------------------------------------------

    def _keep_running(self) -> None:
        if self._is_closed:
            return
        if self._renewals is None or self._renewals.done():
            self._renewals = self._debts.spawn(self._renew_while_needed())
        if self._ledger.waiting and (self._wakes is None or self._wakes.done()):
            self._wakes = self._debts.spawn(self._read_wakes())

    async def _read_wakes(self) -> None:
        while self._ledger.waiting:
            try:
                with suppressed():
                    verdicts = await self.store.verdicts(self._tenure.process, self._block_seconds)
            except StoreError:
                await asyncio.sleep(self.lease_seconds / _RETRIES_PER_LEASE)
                continue
            if verdicts is None:
                # The client's own socket timeout is shorter than ours. Whatever was lost with the answer is told by
                # the next renewal.
                self._block_seconds = max(_BLOCK_MIN_SECONDS, self._block_seconds / 2)
                continue
            for request, verdict in verdicts:
                self._ledger.settle(request, verdict)

    async def _renew_while_needed(self) -> None:
        pause = self.lease_seconds / _RENEWALS_PER_LEASE
        while not self.is_idle:
            await asyncio.sleep(pause)
            pause = self.lease_seconds / _RENEWALS_PER_LEASE
            self._renew_claim()
            if not await self._renew() or not await self._debts.pay():
                pause = self.lease_seconds / _RETRIES_PER_LEASE

    async def _renew(self) -> bool:
        if not self._tenure.is_open or not (self._ledger.grants or self._ledger.waiting):
            return True
        session, sent = self._tenure.session, self._monotonic()
        held = [(each.resource, each.token) for grant in self._ledger.grants.values() for each in grant.locks]
        # One whose first answer is still on its way would be reported as gone.
        requests = [request for request, each in self._ledger.waiting.items() if each.is_queued]
        try:
            with suppressed():
                reply = await self.store.renew(session, self.lease_seconds, held, requests, list(self._ledger.grants))
        except StoreError as error:
            self._notices.renewed(held, "error", frozenset())
            if requests:
                self._notices.check_failed(error)
            return False
        took = self._monotonic() - sent
        if session != self._tenure.session:
            return True
        if reply.verdict.kind == "lost":
            self._notices.renewed(held, "lost", frozenset())
            self._end_session()
            return True
        self._tenure.prolong(sent)
        self._notices.renewed(held, "ok", reply.gone)
        self._notices.reply(reply, took)
        if requests:
            self._notices.checked(reply, took)
        self._ledger.compare(reply)
        for request, resources in reply.strange.items():
            # What was asked for since the renewal was sent is known here; what was released is released twice.
            if not self._knows(request):
                self._debts.owe(request, resources)
        return True

    def _knows(self, request: str) -> bool:
        return any(request in each for each in (self._ledger.grants, self._ledger.waiting, self._debts.requests))

    def _give_up(self, petition: Petition) -> None:
        self._forget(petition)
        self._debts.owe(petition.request, petition.resources)

    def _forget(self, petition: Petition) -> None:
        self._ledger.waiting.pop(petition.request, None)
