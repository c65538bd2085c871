"""The random delay before a body, and the execution time it must not cost.

Order matters: draw, extend, sleep. The engine counts the timeout from assignment, so the extension is asked for
before the sleep begins; were it asked for afterwards, a delay longer than the timeout would kill the attempt asleep.
"""

import asyncio

from mageflow.interceptors import Attempt, ExtendTimeout, Interceptor, Stagger
from mageflow.types import RandomSource

__all__ = ["stagger"]

_ROUND_TRIP_ALLOWANCE_SECONDS = 0.1
"""Asked for on top of the delay: the request itself is also paid from the task's own time."""

_UNEXTENDED_SHARE = 0.1
"""Without an extension every second asleep is the body's: at most this share of what is left is spent."""


async def stagger(
    attempt: Attempt,
    *,
    window_seconds: float,
    random: RandomSource,
    extend: ExtendTimeout,
    interceptor: Interceptor,
    cancelled: asyncio.Event,
) -> None:
    """Sleep for a time drawn uniformly from 0 to ``window_seconds``; the attempt's timeout grows by as much.

    Raises:
        asyncio.CancelledError: The run was cancelled while asleep; raised at once, not when the sleep would end.
    """
    call = Stagger(attempt, window_seconds, random.uniform(0.0, window_seconds))
    attempt.enter("stagger", "stagger")
    with interceptor.stagger(call):
        granted = await extend(attempt, call.delay_seconds + _ROUND_TRIP_ALLOWANCE_SECONDS, "stagger")
        delay = call.delay_seconds
        if not granted:
            call.extension_failed = True
            delay = min(delay, max(0.0, attempt.remaining_seconds * _UNEXTENDED_SHARE))
        started = attempt.monotonic()
        try:
            async with asyncio.timeout(delay):
                await cancelled.wait()
        except TimeoutError:
            return
        finally:
            call.slept_seconds = attempt.monotonic() - started
        raise asyncio.CancelledError("cancelled while staggered")
