"""Timers that fill the free places of swarms.

Items are started in bulk. When an item ends and too few places are free for a bulk, the script answers with the time
until the places are to be filled anyway (``SwarmConfig.refill_linger_ms``). The process that got the answer waits and
then fills them. If it dies, a reconciler fills them later.
"""

import asyncio
from collections.abc import Awaitable, Callable

from mageflow.background import logged, start
from mageflow.errors import StoreUnavailableError
from mageflow.store import Decision

__all__ = ["RefillTimers"]

_MARGIN: float = 1.1
"""A timer runs a little late: an item that ends in time fills the places without this round trip."""


class RefillTimers:
    """At most one timer for each swarm. A timer that has run out goes on to the end of what it sends.

    Args:
        refill: Fills the free places of the swarm with this key and sends the items.
    """

    def __init__(self, refill: Callable[[str], Awaitable[None]]) -> None:
        self._refill = refill
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    def update(self, decision: Decision) -> None:
        """Start the timer a decision asks for; stop the one it makes unnecessary."""
        record, delay_seconds = decision.keys.record, decision.refill_after_seconds
        timer = self._timers.get(record)
        if timer is not None and (delay_seconds is not None or decision.filled):
            timer.cancel()
        if delay_seconds is not None:
            refill = logged(lambda: self._wait_and_refill(record, delay_seconds), "the refill of a swarm")
            timer = start(refill, "mageflow-refill")
            self._timers[record] = timer
            timer.add_done_callback(lambda done: self._forget(record, done))

    def cancel(self) -> None:
        """Stop every timer, and what timers send. Reconcilers fill the places."""
        for timer in [*self._timers.values(), *self._sending]:
            timer.cancel()

    def _forget(self, record: str, done: asyncio.Task[None]) -> None:
        self._sending.discard(done)
        if self._timers.get(record) is done:
            del self._timers[record]

    async def _wait_and_refill(self, record: str, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds * _MARGIN)
        # The next end of an item stops the timer of the swarm. It must not stop what this one sends.
        self._sending.add(self._timers.pop(record))
        try:
            await self._refill(record)
        except StoreUnavailableError:
            return  # a reconciler fills the places when Redis is back
