"""Time as the engine sees it: one wall clock, timers of the event loop, and the speed factor.

The speed factor shortens waits the engine makes by itself (sleep conditions, durable sleeps, retry backoff, cron,
scheduled runs). It never touches timeouts, heartbeats, rate-limit windows or batch intervals: those run beside user
code, which runs at its own pace.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """Timers and timestamps; all callbacks run on the engine's event loop.

    Args:
        speed: how many seconds of an engine-made wait pass in one real second; greater than 0.
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
        """Return the time by which cron expressions are judged: the start plus elapsed time times ``speed``."""
        if self.speed == 1.0:
            return self.now()
        elapsed = time.monotonic() - self._started_monotonic
        return self._started + timedelta(seconds=elapsed * self.speed)

    def monotonic(self) -> float:
        """Return seconds of the event loop's own clock, for deadlines."""
        return self._loop.time()

    def later(self, seconds: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Call back after real seconds."""
        return self._loop.call_later(max(0.0, seconds), callback, *args)

    def later_accelerated(self, seconds: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        """Call back after seconds of engine-made waiting, shortened by ``speed``."""
        return self._loop.call_later(max(0.0, seconds) / self.speed, callback, *args)

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back once the current step of the loop is done."""
        self._loop.call_soon(callback, *args)
