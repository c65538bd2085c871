"""When the event loop of the tasks was blocked.

Then the worker learns late what Hatchet did, and renews no lease: every lock that is held on this loop may be lost.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["LoopStalls", "blocked_seconds"]

_EVERY_SECONDS = 0.25
_SHORTEST_SECONDS = 0.1
_KEPT = 64

_watching: Final[dict[asyncio.AbstractEventLoop, "LoopStalls"]] = {}


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
        """Measure the running loop until cancelled, four times a second."""
        loop = asyncio.get_running_loop()
        _watching[loop] = self
        try:
            while True:
                self._due = self._monotonic() + _EVERY_SECONDS
                await asyncio.sleep(_EVERY_SECONDS)
                now = self._monotonic()
                if now - self._due >= _SHORTEST_SECONDS:
                    self._stalls.append((now, now - self._due))
        finally:
            self._due = None
            if _watching.get(loop) is self:
                del _watching[loop]

    def longest_within(self, seconds: float) -> float:
        """Seconds of the longest stall that ended in the last ``seconds``, or goes on."""
        return self.longest(self._monotonic() - seconds)

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


def blocked_seconds(within: float) -> float | None:
    """For how long the running event loop was blocked, at most, in the last ``within`` seconds.

    Short by up to a quarter of a second: a stall is measured from when a timer was due.

    Returns:
        None if no worker watches the running loop, and where none runs.
    """
    try:
        stalls = _watching.get(asyncio.get_running_loop())
    except RuntimeError:
        return None
    return None if stalls is None else stalls.longest_within(within)
