"""When the event loop of the tasks was blocked: then the worker learns late what Hatchet did."""

import asyncio
import time
from collections import deque
from collections.abc import Callable

__all__ = ["LoopStalls"]

_EVERY_SECONDS = 0.25
_SHORTEST_SECONDS = 0.1
_KEPT = 64


class LoopStalls:
    """Measures how late a timer of the event loop fires. It keeps the last 64 stalls.

    Args:
        monotonic: The clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._stalls: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._due: float | None = None

    async def run(self) -> None:
        """Measure until cancelled, four times a second."""
        try:
            while True:
                self._due = self._monotonic() + _EVERY_SECONDS
                await asyncio.sleep(_EVERY_SECONDS)
                now = self._monotonic()
                if now - self._due >= _SHORTEST_SECONDS:
                    self._stalls.append((now, now - self._due))
        finally:
            self._due = None

    def longest(self, since: float, until: float | None = None) -> float:
        """Seconds of the longest stall that ended in this time; without ``until``, also of one that goes on.

        May be called from any thread.
        """
        longest = 0.0
        if until is None and (due := self._due) is not None:
            longest = max(longest, self._monotonic() - due)
        if self._stalls:
            late = [
                seconds for ended, seconds in list(self._stalls) if ended >= since and (until is None or ended <= until)
            ]
            longest = max(longest, *late, 0.0)
        return longest
