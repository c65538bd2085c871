"""One process's part in the lock service, on one event loop: asking, waiting, renewing, giving back.

A *session* is the claim of this process to be alive. Every lock it holds stands as long as its session does, so one
script call renews them all. Once the session may have ended in Redis, everything under it counts as lost and a new
session begins; the old one's locks can never be mistaken for the new one's.

Verdicts for queued requests arrive on one list per process, read by one blocking call; nobody polls. A verdict that
got lost on the way is told again by the next renewal.

This file refuses to know resources, decorators and signals beyond the interceptor.
"""

import asyncio
import contextvars
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from mageflow.errors import StoreError
from mageflow.interceptors import Attempt, Interceptor, LockHold, ResourceKey
from mageflow.locks.lease import Grant, HeldLock
from mageflow.locks.notices import Notices
from mageflow.locks.petition import Petition
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
        self._process = uuid.uuid4().hex[:16]
        self._epoch = 0
        self._deadline = 0.0
        self._is_open = False
        self._grants: dict[str, Grant] = {}
        self._waiting: dict[str, Petition] = {}
        self._owed: dict[str, tuple[ResourceKey, ...]] = {}
        self._is_closed = False
        self._renewals: asyncio.Task[None] | None = None
        self._wakes: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._block_seconds = _BLOCK_SECONDS
        self._notices = Notices(interceptor, self.loop)

    # -- what the service asks -----------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held, awaited or still to be given back."""
        return not (self._grants or self._waiting or self._owed)

    def grants_of(self, run: str) -> list[Grant]:
        """What a run holds here."""
        return [each for each in self._grants.values() if each.run == run]

    def petitions_of(self, run: str) -> list[Petition]:
        """What a run waits for here."""
        return [each for each in self._waiting.values() if each.run == run]

    async def ask(self, petition: Petition) -> LockVerdict:
        """Send a request: granted (see `granted`), queued (then see `answer`), deadlock or busy.

        Raises:
            StoreError: Redis did not answer; whatever it did is undone as soon as it does.
        """
        while True:
            self._renew_claim()
            petition.request, petition.is_queued = uuid.uuid4().hex, False
            petition.future = self.loop.create_future()
            self._waiting[petition.request] = petition
            sent = self._monotonic()
            try:
                reply = await self._to_the_end(self.store.acquire(self._claim(petition)), petition)
            except BaseException as error:
                self._forget(petition)
                if isinstance(error, StoreError):
                    self._owe(petition.request, petition.resources)
                    self._notices.check_failed(error)
                raise
            verdict = reply.verdict
            if verdict.kind == "session_lost":
                self._forget(petition)
                self._end_session()
                continue
            self._is_open = True
            self._deadline = max(self._deadline, sent + self.lease_seconds)
            self._notices.reply(reply, self._monotonic() - sent)
            if verdict.kind in ("queued", "deadlock"):
                self._notices.checked(reply, self._monotonic() - sent)
            if verdict.kind == "queued":
                petition.is_queued = True
                self._keep_running()
            else:
                self._forget(petition)
            return verdict

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
            return await self._withdraw(petition)
        if future.cancelled():
            self._give_up(petition)
            raise asyncio.CancelledError("the run has ended")
        verdict = future.result()
        self._forget(petition)
        if verdict.kind != "granted":
            self._owe(petition.request, petition.resources)  # its record is of no use to anybody
        return verdict

    async def _withdraw(self, petition: Petition) -> LockVerdict:
        """Leave the queue, unless a verdict was reached in the same moment; without an answer it is left later."""
        try:
            reply = await self._to_the_end(self.store.withdraw(petition.request, petition.resources), petition)
        except StoreError:
            self._owe(petition.request, petition.resources)
            return LockVerdict("ended")
        finally:
            self._forget(petition)
        self._notices.reply(reply, 0.0)
        return reply.verdict

    def granted(self, petition: Petition, tokens: Sequence[int], attempt: Attempt | None) -> Grant:
        """Take a granted request into care: it is renewed from now on until `give_back`."""
        session = self._session
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
            deadline=self._deadline_of(session),
            release=lambda: self.give_back(grant),
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
            self._owe(petition.request, petition.resources)
            raise
        grant.close = close
        self._grants[grant.request] = grant
        self._keep_running()
        return grant

    async def give_back(self, grant: Grant) -> None:
        """Release; the next in each queue is served in the same round trip.

        Completes even when the caller is cancelled. Without an answer from Redis it is repeated in the background.
        """
        if grant.is_ended:
            return
        self._grants.pop(grant.request, None)
        resources = tuple(each.resource for each in grant.locks)
        try:
            if grant.session == self._session and not grant.has_expired:
                reply = await self._to_the_end(self.store.release(grant.request, resources), None)
                self._notices.reply(reply, 0.0)
                if reply.verdict.ended < len(resources):
                    self._lose(grant, {each.token for each in grant.locks})
            else:
                self._lose(grant, {each.token for each in grant.locks})
                self._owe(grant.request, resources)
        except StoreError:
            self._owe(grant.request, resources)
        finally:
            if not grant.is_ended:
                grant.lost.update(each.token for each in grant.locks if grant.is_lost(each.token))
                grant.is_ended = True
                grant.close()

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
            del self._grants[grant.request]
        try:
            reply = await self._to_the_end(self.store.end_runs(self._session, [run]), None)
            self._notices.reply(reply, 0.0)
        except StoreError:
            for grant in grants:
                self._owe(grant.request, tuple(each.resource for each in grant.locks))
        finally:
            for grant in grants:
                grant.lost.update(each.token for each in grant.locks if grant.is_lost(each.token))
                grant.is_ended = True
                grant.close()

    async def aclose(self) -> None:
        """End the session: whatever is held is handed on at once instead of when the lease runs out."""
        self._is_closed = True
        for task in (self._renewals, self._wakes):
            if task is not None:
                task.cancel()
        pending = [each for each in (self._renewals, self._wakes, *self._background) if each is not None]
        await asyncio.gather(*pending, return_exceptions=True)
        if self._is_open:
            # Without an answer the session ends by itself when its lease runs out.
            with suppress(StoreError):
                await self.store.end_session(self._session)
        self._end_session()
        self._owed.clear()

    # -- the session ---------------------------------------------------------------------------------------------

    @property
    def _session(self) -> str:
        return f"{self._process}.{self._epoch}"

    def _deadline_of(self, session: str) -> Callable[[], float]:
        return lambda: self._deadline if session == self._session else 0.0

    def _renew_claim(self) -> None:
        """A session that may have ended is never used again."""
        if self._is_open and self._monotonic() >= self._deadline:
            self._end_session()

    def _end_session(self) -> None:
        self._epoch += 1
        self._is_open = False
        self._deadline = 0.0
        for grant in list(self._grants.values()):
            self._lose(grant, {each.token for each in grant.locks})
        for petition in list(self._waiting.values()):
            self._settle(petition.request, LockVerdict("gone"))

    def _lose(self, grant: Grant, tokens: set[int]) -> None:
        fresh = tokens - grant.lost
        grant.lost |= tokens
        for held in grant.locks:
            if held.token in fresh:
                held.hold.is_lost = True
                self._notices.lost(held.hold)
        if fresh:
            for callback in grant.on_lost:
                callback()

    def _claim(self, petition: Petition) -> LockClaim:
        return LockClaim(
            request=petition.request,
            run=petition.run,
            session=self._session,
            session_is_open=self._is_open,
            resources=petition.resources,
            owner=petition.owner,
            lease_seconds=self.lease_seconds,
            wake_id=self._process,
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
            self._renewals = self._spawn(self._renew_while_needed())
        if self._waiting and (self._wakes is None or self._wakes.done()):
            self._wakes = self._spawn(self._read_wakes())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """In a context of its own: neither a run nor a span of whoever happened to need it first."""
        return self.loop.create_task(work, context=contextvars.Context())

    async def _read_wakes(self) -> None:
        while self._waiting:
            try:
                with suppressed():
                    verdicts = await self.store.verdicts(self._process, self._block_seconds)
            except StoreError:
                await asyncio.sleep(self.lease_seconds / _RETRIES_PER_LEASE)
                continue
            if verdicts is None:
                # The client's own socket timeout is shorter than ours. Whatever was lost with the answer is told by
                # the next renewal.
                self._block_seconds = max(_BLOCK_MIN_SECONDS, self._block_seconds / 2)
                continue
            for request, verdict in verdicts:
                self._settle(request, verdict)

    async def _renew_while_needed(self) -> None:
        pause = self.lease_seconds / _RENEWALS_PER_LEASE
        while not self.is_idle:
            await asyncio.sleep(pause)
            pause = self.lease_seconds / _RENEWALS_PER_LEASE
            self._renew_claim()
            if not await self._renew() or not await self._pay():
                pause = self.lease_seconds / _RETRIES_PER_LEASE

    async def _renew(self) -> bool:
        if not self._is_open or not (self._grants or self._waiting):
            return True
        session, sent = self._session, self._monotonic()
        held = [(each.resource, each.token) for grant in self._grants.values() for each in grant.locks]
        # One whose first answer is still on its way would be reported as gone.
        requests = [request for request, each in self._waiting.items() if each.is_queued]
        try:
            with suppressed():
                reply = await self.store.renew(session, self.lease_seconds, held, requests)
        except StoreError as error:
            self._notices.renewed(held, "error", frozenset())
            if requests:
                self._notices.check_failed(error)
            return False
        took = self._monotonic() - sent
        if session != self._session:
            return True
        if reply.verdict.kind == "lost":
            self._notices.renewed(held, "lost", frozenset())
            self._end_session()
            return True
        self._deadline = max(self._deadline, sent + self.lease_seconds)
        self._notices.renewed(held, "ok", reply.gone)
        self._notices.reply(reply, took)
        if requests:
            self._notices.checked(reply, took)
        self._compare(reply)
        return True

    def _compare(self, reply: LockReply) -> None:
        """Bring what is believed here in line with what a renewal found."""
        for grant in list(self._grants.values()):
            gone = {each.token for each in grant.locks} & reply.gone
            if gone:
                self._lose(grant, gone)
        for request, verdict in reply.waits.items():
            petition = self._waiting.get(request)
            if petition is not None and verdict.kind == "queued":
                petition.stand_in_line(verdict)
            elif petition is not None:
                self._settle(request, verdict)

    async def _pay(self) -> bool:
        """Send the releases that Redis has not answered yet."""
        for request, resources in list(self._owed.items()):
            try:
                reply = await self.store.release(request, resources)
            except StoreError:
                return False
            self._owed.pop(request, None)
            self._notices.reply(reply, 0.0)
        return True

    def _owe(self, request: str, resources: tuple[ResourceKey, ...]) -> None:
        if self._is_closed:
            return  # the session has ended in Redis, and its requests with it
        self._owed[request] = resources
        task = self._spawn(self._pay())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        self._keep_running()

    async def _to_the_end(self, work: Coroutine[Any, Any, LockReply], petition: Petition | None) -> LockReply:
        """Let a script call finish even when its caller is cancelled; what it granted then is given back."""
        task = self.loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            request, resources = (petition.request, petition.resources) if petition else ("", ())

            def finished(done: "asyncio.Task[LockReply]") -> None:
                if not done.cancelled() and done.exception() is None:
                    self._notices.reply(done.result(), 0.0)
                if petition is not None:
                    self._owe(request, resources)

            task.add_done_callback(finished)
            raise

    # -- telling -------------------------------------------------------------------------------------------------

    def _settle(self, request: str, verdict: LockVerdict) -> None:
        petition = self._waiting.get(request)
        if petition is not None and petition.future is not None and not petition.future.done():
            petition.future.set_result(verdict)

    def _give_up(self, petition: Petition) -> None:
        self._forget(petition)
        self._owe(petition.request, petition.resources)

    def _forget(self, petition: Petition) -> None:
        self._waiting.pop(petition.request, None)
