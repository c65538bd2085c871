"""The random delay before a body, and the timeout extension that pays for it.

The order is: draw, extend, sleep. The engine counts the timeout from the assignment. If the extension came after the
sleep, a delay longer than the timeout would end the attempt while it sleeps.
"""

import asyncio

from mageflow.interceptors import Attempt, ExtendTimeout, Interceptor, Stagger
from mageflow.types import RandomSource

__all__ = ["stagger"]

_ROUND_TRIP_ALLOWANCE_SECONDS = 0.1
"""Added to the delay: the request takes time from the task's own timeout too."""

_UNEXTENDED_SHARE = 0.1
"""Without an extension the sleep takes time from the body: it takes at most this share of the time left."""


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
        asyncio.CancelledError: The run was cancelled during the sleep. Raised at once.
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
