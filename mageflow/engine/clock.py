"""The engine's time: the wall clock, timers of the event loop, and the speed factor.

The speed factor shortens the waits that the engine makes itself: sleep conditions, durable sleeps, retry backoff, crons
and scheduled runs. It does not change timeouts, heartbeats, rate limit windows and batch intervals, because those
depend on user code, which does not run faster.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """Timers and timestamps. All callbacks run on the engine's event loop.

    Args:
        speed: seconds of an engine-made wait that pass in one real second; greater than 0.

    Raises:
        ValueError: the speed is 0 or less.
    """

    def __init__(self, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError("speed must be greater than 0")
        self.speed = speed
        self._loop = asyncio.get_running_loop()
        self._started = datetime.now(UTC)
        self._started_monotonic = time.monotonic()

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""
        return datetime.now(UTC)

    def accelerated_now(self) -> datetime:
        """Return the time for cron expressions: the start of the engine plus the elapsed time times ``speed``."""
        if self.speed == 1.0:
            return self.now()
        elapsed = time.monotonic() - self._started_monotonic
        return self._started + timedelta(seconds=elapsed * self.speed)

    def monotonic(self) -> float:
        """Return the seconds of the event loop's clock, for deadlines."""
        return self._loop.time()

    def later(self, seconds: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Call ``callback`` after real seconds."""
        return self._loop.call_later(max(0.0, seconds), callback, *args)

    def later_accelerated(self, seconds: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Call ``callback`` after the seconds of an engine-made wait, divided by ``speed``."""
        return self._loop.call_later(max(0.0, seconds) / self.speed, callback, *args)

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call ``callback`` after the current callback of the event loop."""
        self._loop.call_soon(callback, *args)
