"""What the interceptors are told about locks besides requests and holds.

This file owns the translation of replies into calls. It refuses to let an interceptor's failure stop a renewal.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from mageflow.interceptors import (
    Deadlock,
    DeadlockCheck,
    Event,
    Interceptor,
    LeaseLost,
    LeaseRenewal,
    LockExpired,
    LockHold,
    ResourceKey,
)
from mageflow.store import LockReply

__all__ = ["EventPublisher"]


class EventPublisher:
    """Tells the interceptors; failures go to the event loop's exception handler.

    Args:
        interceptor: Who is told.
        loop: Whose exception handler gets an interceptor's failure.
    """

    def __init__(self, interceptor: Interceptor, loop: asyncio.AbstractEventLoop) -> None:
        self._interceptor = interceptor
        self._loop = loop

    def reply(self, reply: LockReply, took_seconds: float) -> None:
        """Dead owners a script came across, and deadlocks it broke: told here alone, as no other process saw them."""
        for resource, owner in reply.expired:
            self._publish(LockExpired(resource, owner))
        for found in reply.resolved:
            deadlock = Deadlock(
                cycle=found.cycle,
                traceparents=found.traceparents,
                victim=found.cycle[found.victim_index],
                policy=found.policy,
                resolution="victim_retried" if found.victim.will_retry else "victim_failed",
                duration_seconds=took_seconds,
            )
            self._publish(deadlock)

    def checked(self, reply: LockReply, took_seconds: float) -> None:
        """A search for a cycle was part of the script."""
        found = "cycle" if reply.resolved or reply.verdict.kind == "deadlock" else "clean"
        self._publish(DeadlockCheck(found, took_seconds))

    def check_failed(self, error: Exception) -> None:
        """The script that would have searched did not answer."""
        self._publish(DeadlockCheck("error", 0.0, type(error).__name__))

    def renewed(
        self, held: Sequence[tuple[ResourceKey, int]], result: Literal["ok", "lost", "error"], gone: frozenset[int]
    ) -> None:
        """A renewal ended."""
        for resource, token in held:
            self._publish(LeaseRenewal(resource, "lost" if token in gone else result))

    def lost(self, hold: LockHold) -> None:
        """A lease is lost."""
        hold.is_lost = True
        self._publish(LeaseLost(hold))

    def guarded(self, action: Callable[[], None]) -> None:
        """Do something that runs a program's own interceptors, which may fail; leases must be renewed all the same."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the interceptor's
            self._loop.call_exception_handler(
                {"message": "an interceptor failed while told about a lock", "exception": error}
            )

    def _publish(self, event: Event) -> None:
        self.guarded(lambda: self._interceptor.event(event))
