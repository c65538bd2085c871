"""The lock service of one client: declares resources, and takes, keeps and gives back their locks.

Each event loop that uses it gets a session of its own; threads that run none share one (see `ThreadBridge`).

This file owns the way a request takes from the caller to the grant. It refuses to speak Redis, and to know Hatchet.
"""

import asyncio
import random as _random
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

from mageflow.errors import ConfigurationError, DeadlockError, LockTimeoutError
from mageflow.interceptors import (
    Attempt,
    ExtendTimeout,
    Interceptor,
    LockAcquire,
    LockDeclared,
    ResourceKey,
    current_attempt,
)
from mageflow.locks.block import LockBlock, OnLost, Request
from mageflow.locks.lease import Grant, Lease, entered_leases
from mageflow.locks.report import LocksReport
from mageflow.locks.request import LockRequest
from mageflow.locks.resource import Resource, checked
from mageflow.locks.session import LockSession
from mageflow.locks.threads import ThreadBridge, run_on
from mageflow.locks.waiting import Depths, WaitScope
from mageflow.store import LockOwner, LockStore, LockVerdict, VictimPolicy
from mageflow.telemetry.names.traces import KEY_ENQUEUED_AT
from mageflow.types import RandomSource

__all__ = ["LockService"]


class LockService:
    """Locks on named resources, for every process of one Hatchet namespace.

    A lock is exclusive between runs, first come first served, re-entrant within a run, and held under a lease that is
    renewed while its process lives. It is given back when its block is left, when the run ends however it ends, and
    when its process is silent for longer than the lease. A request that would close a cycle of waiting is answered
    with `DeadlockError` in the same round trip.

    Sessions end by the clock of Redis: servers that fail over to each other must agree on the time to well within a
    lease. What an asynchronous replica had not heard of when it took over is lost; `Lease.token` guards writes.

    Args:
        store: Where locks are kept.
        interceptor: Told of every request, hold, renewal and deadlock.
        extend: Asks Hatchet for more execution time while a task waits; None leaves timeouts alone.
        lease_seconds: How long a process may be silent before its locks go to others; renewed three times in that.
        victim_backoff_seconds: A deadlock's victim that will be retried lingers a random time up to this, after its
            locks are given back, so that it does not meet the others at the same place again.
        raw_keys: Whether reports show resource keys as they are instead of hashed.
        random: What the backoff is drawn from.
    """

    def __init__(
        self,
        store: LockStore,
        interceptor: Interceptor | None = None,
        *,
        extend: ExtendTimeout | None = None,
        lease_seconds: float = 15.0,
        victim_backoff_seconds: float = 0.5,
        raw_keys: bool = False,
        random: RandomSource | None = None,
    ) -> None:
        self._store = store
        self._interceptor = interceptor or Interceptor()
        self._extend = extend
        self.lease_seconds = lease_seconds
        self._victim_backoff_seconds = victim_backoff_seconds
        self._raw_keys = raw_keys
        self._random = random or _random.SystemRandom()
        self._sessions: dict[asyncio.AbstractEventLoop, LockSession] = {}
        self.threads = ThreadBridge()
        self._around: dict[Attempt, tuple[Lease, ...]] = {}
        self._in_thread: set[Grant] = set()
        self._depths: Depths = {}

    # -- public --------------------------------------------------------------------------------------------------

    def resource(self, name: str) -> "Resource":
        """Declare something that only one run may use at a time.

        Args:
            name: Becomes the ``lock`` label of metrics, so declare a handful of names and use keys for instances.

        Raises:
            ConfigurationError: The name is not 1 to 128 of letters, digits and ``_ . - /``.
        """
        return Resource(name, self)

    def acquire(
        self,
        *targets: "Resource | ResourceKey",
        timeout: timedelta | None = None,
        extend_timeout: bool = True,
        policy: VictimPolicy = "requester",
        on_lost: OnLost = "cancel",
    ) -> LockBlock:
        """Lock several resources for one block: all of them or none. See `Resource.acquire`.

        They are taken in one fixed order (by name, then key) whatever order they are written in, so that two such
        blocks cannot deadlock with each other. Those that are free are kept while the block waits for the next;
        everything is in one round trip when all are free.

        Raises:
            ConfigurationError: No target is given, one cannot be locked, or the timeout is negative or no timedelta.
        """
        resources = tuple(sorted({each.key() if isinstance(each, Resource) else checked(each) for each in targets}))
        if not resources:
            raise ConfigurationError("name at least one resource to acquire")
        if timeout is not None and not isinstance(timeout, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"timeout is a timedelta, such as timedelta(seconds=5), not {timeout!r}")
        if timeout is not None and timeout < timedelta(0):
            raise ConfigurationError("timeout must not be negative; zero tries once without waiting")
        seconds = None if timeout is None else timeout.total_seconds()
        return LockBlock(self, Request(resources, seconds, extend_timeout, policy, on_lost))

    async def start(self) -> None:
        """Let synchronous tasks use this event loop; called when a worker starts."""
        self.threads.home = asyncio.get_running_loop()

    async def aclose(self) -> None:
        """Give back everything this process holds (on this loop and on its own) and stop renewing."""
        loop = asyncio.get_running_loop()
        session = self._sessions.pop(loop, None)
        if session is not None:
            await session.aclose()
        if self.threads.home is loop:
            self.threads.home = None
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """For programs without an event loop: give back what their threads hold, and end the loop that served them."""
        self.threads.close(self._leave_own_loop)

    async def release_run(self, attempt: Attempt) -> None:
        """Give back what an attempt still holds; one round trip if that is anything, else none. Never raises.

        To be called when the attempt has ended, however it ended. A synchronous body that is still running in its
        thread (it cannot be stopped) keeps its locks until it leaves their blocks: its work is still going on.
        """
        self._around.pop(attempt, None)
        run = _run_of(attempt)
        for loop, session in list(self._sessions.items()):
            keep = [each for each in session.grants_of(run) if each in self._in_thread]
            if loop is asyncio.get_running_loop():
                await session.end_run(run, keep=keep)
            elif loop.is_running() and (session.grants_of(run) or session.petitions_of(run)):
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(session.end_run(run, keep=keep), loop))
        if attempt.will_retry and isinstance(attempt.exception, DeadlockError) and self._victim_backoff_seconds > 0:
            await asyncio.sleep(self._random.uniform(0.0, self._victim_backoff_seconds))

    async def snapshot(self, limit: int = 1000) -> LocksReport:
        """Who holds what, who waits for whom, and every cycle, at one instant; one round trip.

        Args:
            limit: At most this many holders and this many waiters; the report says when there are more.

        Raises:
            RedisNotConfiguredError: No Redis was given.
            StoreError: Redis did not answer.
        """
        return LocksReport.of(await self._store.snapshot(limit), raw_keys=self._raw_keys)

    def snapshot_in_thread(self, limit: int = 1000, timeout_seconds: float = 5.0) -> LocksReport:
        """`snapshot` for a thread that runs no event loop, such as the one that serves ``/debug/locks``.

        Raises:
            StoreError: Redis did not answer.
            TimeoutError: Nor did the event loop.
        """
        return asyncio.run_coroutine_threadsafe(self.snapshot(limit), self.threads.loop()).result(timeout_seconds)

    # -- for blocks ----------------------------------------------------------------------------------------------

    def declare(self, name: str) -> None:
        """Publish that a resource was declared."""
        self._interceptor.event(LockDeclared(name))

    async def enter(self, request: Request, leases: Sequence[Lease], *, is_thread: bool = False) -> Lease:
        """Get a lease for a request made inside the blocks of ``leases``."""
        attempt = current_attempt.get()
        run = _run_of(attempt) if attempt is not None else next((each.run for each in leases), uuid.uuid4().hex)
        loops = [loop for each in leases if (loop := each.loop_of(self, run)) is not None and loop.is_running()]
        loop = loops[-1] if loops else asyncio.get_running_loop()
        return await run_on(loop, self._enter(request, leases, attempt, run, is_thread=is_thread), undo=self.leave)

    async def _enter(
        self, request: Request, leases: Sequence[Lease], attempt: Attempt | None, run: str, *, is_thread: bool
    ) -> Lease:
        started = time.monotonic()
        shared: dict[ResourceKey, tuple[Grant, int]] = {}
        for resource in request.resources:
            for lease in reversed(leases):
                part = lease.covers(self, run, resource)
                if part is not None:
                    shared[resource] = part
                    break
        missing = tuple(each for each in request.resources if each not in shared)
        parts = dict(shared)
        grant: Grant | None = None
        if missing:
            under = tuple({token for lease in leases for token in lease.tokens_of(self)})
            grant = await self._acquire(request, attempt, run, missing, under)
            if is_thread:
                self._in_thread.add(grant)
            parts |= {held.resource: (grant, held.token) for held in grant.locks}
        ordered = {resource: parts[resource] for resource in request.resources}
        return Lease(self, run, ordered, waited_seconds=time.monotonic() - started, grant=grant)

    async def leave(self, lease: Lease) -> None:
        """Give back what entering the block took; what an outer block holds stays."""
        if lease.grant is not None:
            self._in_thread.discard(lease.grant)
            if lease.grant.loop.is_running():  # one that has stopped takes its session with it
                await run_on(lease.grant.loop, lease.grant.release())

    def enclosing(self) -> tuple[Lease, ...]:
        """The leases whose blocks the running code is inside of, with those its runner entered around the body."""
        entered = entered_leases()
        attempt = current_attempt.get()
        around = self._around.get(attempt, ()) if attempt is not None else ()
        return (*(each for each in around if each not in entered), *entered)

    def surround(self, lease: Lease, *, is_entered: bool) -> None:
        """Remember a lease taken around the whole body: a pooled thread does not inherit context variables."""
        attempt = current_attempt.get()
        if attempt is None:
            return
        others = tuple(each for each in self._around.get(attempt, ()) if each is not lease)
        left = (*others, lease) if is_entered else others
        if left:
            self._around[attempt] = left
        else:
            self._around.pop(attempt, None)

    def session(self) -> LockSession:
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            for closed in [each for each in self._sessions if each.is_closed()]:
                del self._sessions[closed]
            session = self._sessions[loop] = LockSession(self._store, self._interceptor, self.lease_seconds)
            self.threads.offer(loop)
        return session

    # -- the way of a request ------------------------------------------------------------------------------------

    async def _acquire(
        self,
        request: Request,
        attempt: Attempt | None,
        run: str,
        resources: tuple[ResourceKey, ...],
        under: tuple[int, ...],
    ) -> Grant:
        session = self.session()
        task = attempt.task.name if attempt is not None else ""
        call = LockAcquire(resources, task, attempt, request.policy, request.timeout_seconds)
        grant: Grant | None = None
        try:
            with self._interceptor.acquire_lock(call):
                try:
                    pending = LockRequest(
                        call=call,
                        run=run,
                        resources=resources,
                        owner=_owner_of(attempt, run, call.traceparent),
                        born_ms=_born_ms(attempt),
                        priority=attempt.priority if attempt is not None else 1,
                        under=under,
                        can_wait=request.timeout_seconds != 0,
                    )
                    grant = granted = await self._until_granted(session, pending, request)
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
            if grant is not None:  # an interceptor failed after the fact: the body will not run
                await grant.release()
            raise
        return granted

    async def _until_granted(self, session: LockSession, pending: LockRequest, request: Request) -> Grant:
        call = pending.call
        while True:
            verdict = await session.ask(pending)
            if verdict.kind == "queued":
                verdict = await self._wait(session, pending, request, verdict)
            if verdict.kind == "granted":
                return session.granted(pending, verdict.tokens, call.attempt)
            if verdict.kind == "deadlock":
                raise DeadlockError(verdict.cycle, pending.owner.run_id, verdict.policy)
            if verdict.kind in ("busy", "ended"):
                blocked = verdict.waiting_for or call.waiting_for or pending.resources[0]
                raise LockTimeoutError(blocked.name, blocked.key, call.elapsed_seconds)

    async def _wait(
        self, session: LockSession, pending: LockRequest, request: Request, queued: LockVerdict
    ) -> LockVerdict:
        call = pending.call
        if not call.queued_at:
            call.queued_at, call.queue_position = time.time(), queued.position
        pending.stand_in_line(queued)
        call.is_waiting = True
        left = None if request.timeout_seconds is None else max(0.0, request.timeout_seconds - call.elapsed_seconds)
        extend = self._extend if request.extend_timeout else None
        try:
            with WaitScope(call, extend, self._interceptor, self._depths):
                return await session.answer(pending, left)
        finally:
            call.is_waiting = False

    async def _leave_own_loop(self) -> None:
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.aclose()
        await self._store.aclose()


def _run_of(attempt: Attempt) -> str:
    return f"{attempt.task_run_id}:{attempt.attempt_number}"


def _owner_of(attempt: Attempt | None, run: str, traceparent: str) -> LockOwner:
    fields = traceparent.split("-")
    trace_id = fields[1] if len(fields) == 4 else ""  # noqa: PLR2004 - version, trace, span, flags
    if attempt is None:
        return LockOwner(run_id=run, trace_id=trace_id)
    return LockOwner(
        task=attempt.task.name,
        run_id=attempt.workflow_run_id,
        task_run_id=attempt.task_run_id,
        attempt=attempt.attempt_number,
        worker=attempt.worker_id,
        trace_id=trace_id,
        will_retry=attempt.attempt_number < attempt.max_attempts,
    )


def _born_ms(attempt: Attempt | None) -> int:
    """When the run was enqueued, the same on every attempt, so that a victim grows older with each; else its start."""
    if attempt is None:
        return round(time.time() * 1000)
    try:
        return round(float(str(attempt.metadata.get(KEY_ENQUEUED_AT))) * 1000)
    except (ValueError, OverflowError):
        return round((time.time() - attempt.elapsed_seconds) * 1000)
