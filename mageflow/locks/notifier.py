"""Events about locks: what interceptors learn besides the wraps around requests and holds.

This file owns the translation of the scripts' replies into events.
"""

from collections.abc import Sequence
from typing import Literal

from mageflow.interceptors import (
    Deadlock,
    DeadlockCheck,
    Interceptor,
    LeaseLost,
    LeaseRenewal,
    LockAcquire,
    LockExpired,
    LockHold,
    LockWaiting,
    ResourceKey,
)
from mageflow.store import LockReply

__all__ = ["EventPublisher"]


class EventPublisher:
    """Publishes events about locks.

    Args:
        interceptor: Gets the events.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor

    def reply(self, reply: LockReply, took_seconds: float) -> None:
        """Publish the expired locks and broken deadlocks of a reply. No other process has seen them."""
        for resource, owner in reply.expired:
            self._interceptor.event(LockExpired(resource, owner))
        for found in reply.resolved:
            deadlock = Deadlock(
                cycle=found.cycle,
                traceparents=found.traceparents,
                victim=found.cycle[found.victim_index],
                policy=found.policy,
                resolution="victim_retried" if found.victim.will_retry else "victim_failed",
                duration_seconds=took_seconds,
            )
            self._interceptor.event(deadlock)

    def cycle_search(self, reply: LockReply, took_seconds: float) -> None:
        """Publish that the script searched for a cycle."""
        result = "cycle" if reply.resolved or reply.verdict.kind == "deadlock" else "clean"
        self._interceptor.event(DeadlockCheck(result, took_seconds))

    def cycle_search_failed(self, error: Exception) -> None:
        """Publish that the script that searches for cycles did not answer."""
        self._interceptor.event(DeadlockCheck("error", 0.0, type(error).__name__))

    def renewal(
        self,
        leases: Sequence[tuple[ResourceKey, int]],
        result: Literal["ok", "lost", "error"],
        gone_tokens: frozenset[int] = frozenset(),
    ) -> None:
        """Publish the result of a renewal, once per lease."""
        for resource, token in leases:
            self._interceptor.event(LeaseRenewal(resource, "lost" if token in gone_tokens else result))

    def lease_lost(self, hold: LockHold) -> None:
        """Publish that a lease is lost."""
        hold.is_lost = True
        self._interceptor.event(LeaseLost(hold))

    def waiting(self, request: LockAcquire) -> None:
        """Publish that a request has waited for a second."""
        self._interceptor.event(LockWaiting(request))
