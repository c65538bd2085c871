"""The lock service of one client: what programs and the rest of the package call.

This file owns the parts and their life. The way of a request is `mageflow.locks.acquirer`'s.
"""

import asyncio
import random as _random
from datetime import timedelta

from mageflow.errors import DeadlockError
from mageflow.interceptors import Attempt, ExtendTimeout, Interceptor, LockDeclared, ResourceKey
from mageflow.locks.acquirer import Acquirer
from mageflow.locks.block import LockBlock
from mageflow.locks.report import LocksReport
from mageflow.locks.request import LockRequest, OnLost, attempt_id_of, check_resource
from mageflow.locks.resource import Resource
from mageflow.locks.sessions import Sessions
from mageflow.locks.threads import ThreadBridge
from mageflow.store import LockStore, VictimPolicy
from mageflow.types import RandomSource

__all__ = ["LockService"]


class LockService:
    """Locks on named resources, for every process of one Hatchet namespace.

    A lock is exclusive between runs, first come first served, and re-entrant within an attempt. It is held under a
    lease, which the process renews. It is released when its block is left, when the attempt ends, and when the process
    is silent for longer than the lease. A request that closes a cycle of waits is answered with `DeadlockError`
    in the same round trip.

    Each event loop that uses locks gets a session of its own; threads without a loop share one.

    Sessions end by the clock of Redis: servers that fail over to each other must agree on the time to well within a
    lease. A failover to an asynchronous replica loses what the replica had not received; guard writes with
    `Lease.token`.

    Args:
        store: Where locks are stored.
        interceptor: Observes requests, holds, renewals and deadlocks. It must not raise: see `InterceptorChain`.
        extend: Asks Hatchet for more execution time while a task waits; None leaves timeouts alone.
        lease_seconds: How long a process may be silent before its locks go to others; it renews three times in that.
        victim_backoff_seconds: The victim of a deadlock that will be retried waits a random time up to this after its
            locks are released, so that it does not meet the same runs at the same place again.
        raw_keys: Whether reports show resource keys as they are instead of hashed.
        random: Source of the backoff.
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
        interceptor = interceptor or Interceptor()
        self.lease_seconds = lease_seconds
        self._store = store
        self._interceptor = interceptor
        self._victim_backoff_seconds = victim_backoff_seconds
        self._raw_keys = raw_keys
        self._random = random or _random.SystemRandom()
        self._threads = ThreadBridge()
        self._sessions = Sessions(store, interceptor, lease_seconds)
        self._acquirer = Acquirer(self._sessions, interceptor, extend, self._threads)

    def resource(self, name: str) -> Resource:
        """Declare a thing that only one run may use at a time. No round trip.

        Args:
            name: 1 to 128 letters, digits and ``_ . - /``. It becomes the ``lock`` label of metrics, so declare a
                handful of names and use keys for instances.

        Raises:
            ConfigurationError: The name has other characters or another length.
        """
        resource = Resource(name, self._acquirer)
        self._interceptor.event(LockDeclared(name))
        return resource

    def acquire(
        self,
        *targets: Resource | ResourceKey,
        timeout: timedelta | None = None,
        extend_timeout: bool = True,
        policy: VictimPolicy = "requester",
        on_lost: OnLost = "cancel",
    ) -> LockBlock:
        """Lock several resources for one block: all of them or none.

        They are taken in one fixed order (by name, then key), not in the order of the arguments, so that two such
        blocks cannot deadlock with each other. While the block waits for one, it keeps those it already has. One round
        trip if all are free.

        Args:
            targets: Resources as a whole, or instances from `Resource.key`.
            timeout: Maximum wait for all of them together; None waits without limit, zero tries once.
            extend_timeout: Whether the task's execution timeout grows while it waits.
            policy: The victim if this request closes a deadlock.
            on_lost: What happens to the block if one of the leases is lost.

        Returns:
            A context manager as `Resource.acquire` gives it, with the same errors on entry.

        Raises:
            ConfigurationError: No target is given, one cannot be locked, or the timeout is negative or not a timedelta.
        """
        resources = [each.key() if isinstance(each, Resource) else check_resource(each) for each in targets]
        request = LockRequest.of(
            resources, timeout=timeout, extend_timeout=extend_timeout, policy=policy, on_lost=on_lost
        )
        return LockBlock(self._acquirer, request)

    async def start(self) -> None:
        """Serve synchronous tasks on the running event loop. Called when a worker starts."""
        self._threads.preferred_loop = asyncio.get_running_loop()

    async def aclose(self) -> None:
        """Release everything this process holds on this loop and on its own, and stop renewing."""
        if self._threads.preferred_loop is asyncio.get_running_loop():
            self._threads.preferred_loop = None
        try:
            await self._sessions.close_current()
        finally:
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Release what threads hold on the loop of their own, and end that loop. For programs without an event loop."""
        self._threads.close(self._close_own_loop)

    async def release_attempt(self, attempt: Attempt) -> None:
        """Release what an attempt still holds; one round trip if that is anything, else none. Never raises.

        Call it when the attempt has ended. A synchronous body that still runs in its thread (it cannot be stopped)
        keeps its locks until it leaves their blocks, because it is still at work.
        """
        await self._sessions.end_attempt(attempt_id_of(attempt))
        if attempt.will_retry and isinstance(attempt.exception, DeadlockError) and self._victim_backoff_seconds > 0:
            await asyncio.sleep(self._random.uniform(0.0, self._victim_backoff_seconds))

    async def snapshot(self, limit: int = 1000) -> LocksReport:
        """Who holds what, who waits for whom, and every cycle, at one instant; one round trip.

        Args:
            limit: Maximum number of holders, and of waiters. `LocksReport.is_truncated` says whether there are more.

        Raises:
            RedisNotConfiguredError: The client has no Redis.
            StoreError: Redis did not answer.
        """
        return LocksReport.of(await self._store.snapshot(limit), raw_keys=self._raw_keys)

    def snapshot_in_thread(self, limit: int = 1000, timeout_seconds: float = 5.0) -> LocksReport:
        """`snapshot` for a thread that runs no event loop, such as the one that serves ``/debug/locks``.

        It runs on the loop of the locks' own thread, so it answers while a task blocks the loop of the worker.

        Args:
            limit: Maximum number of holders, and of waiters.
            timeout_seconds: Maximum wait for the answer.

        Raises:
            RedisNotConfiguredError: The client has no Redis.
            StoreError: Redis did not answer.
            TimeoutError: There was no answer in time.
        """
        call = asyncio.run_coroutine_threadsafe(self.snapshot(limit), self._threads.own_loop())
        try:
            return call.result(timeout_seconds)
        finally:
            call.cancel()

    async def _close_own_loop(self) -> None:
        try:
            await self._sessions.close_current()
        finally:
            await self._store.aclose()
