"""The random delay before a body, and the timeout extension that pays for it.

The order is: draw, extend, sleep. The engine counts the timeout from the assignment. If the extension came after the
sleep, a delay longer than the timeout would end the attempt while it sleeps.

A worker that stops sleeps out what ends within seconds, and gives every other run back.
"""

import asyncio
from collections.abc import Callable

from mageflow.interceptors import Attempt, ExtendTimeout, Interceptor, Stagger
from mageflow.invocation.shutdown import WAITED_OUT_SECONDS, GivenBackError
from mageflow.types import RandomSource

__all__ = ["delay_overrides", "stagger"]

_ROUND_TRIP_ALLOWANCE_SECONDS = 0.1
"""Added to the delay: the request takes time from the task's own timeout too."""

_UNEXTENDED_SHARE = 0.1
"""Without an extension the sleep takes time from the body: it takes at most this share of the time left."""

delay_overrides: list[Callable[[str, float], float]] = []
"""For tests: the last one gets the name of the task and the window, and decides every delay of this process."""


async def stagger(
    attempt: Attempt,
    *,
    window_seconds: float,
    random: RandomSource,
    extend: ExtendTimeout,
    interceptor: Interceptor,
    cancelled: asyncio.Event,
    stopping: asyncio.Event,
) -> None:
    """Sleep for a time drawn uniformly from 0 to ``window_seconds``; the attempt's timeout grows by as much.

    Raises:
        asyncio.CancelledError: The run was cancelled during the sleep. Raised at once.
        GivenBackError: ``stopping`` was set while more than five seconds of the sleep were left. Raised at once.
    """
    if delay_overrides:
        drawn = delay_overrides[-1](attempt.task.name, window_seconds)
    else:
        drawn = random.uniform(0.0, window_seconds)
    call = Stagger(attempt, window_seconds, drawn)
    attempt.enter("stagger", "stagger")
    with interceptor.stagger(call):
        granted = await extend(attempt, call.delay_seconds + _ROUND_TRIP_ALLOWANCE_SECONDS, "stagger")
        delay = call.delay_seconds
        if not granted:
            call.extension_failed = True
            delay = min(delay, max(0.0, attempt.remaining_seconds * _UNEXTENDED_SHARE))
        started = attempt.monotonic()
        try:
            if delay > WAITED_OUT_SECONDS:
                await _sleep_unless_stopping(delay - WAITED_OUT_SECONDS, cancelled, stopping)
            async with asyncio.timeout(started + delay - attempt.monotonic()):
                await cancelled.wait()
        except TimeoutError:
            return
        finally:
            call.slept_seconds = attempt.monotonic() - started
        raise asyncio.CancelledError("cancelled while staggered")


async def _sleep_unless_stopping(seconds: float, cancelled: asyncio.Event, stopping: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(each.wait()) for each in (cancelled, stopping)]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
    if stopping.is_set() and not cancelled.is_set():
        raise GivenBackError("the worker stops while the run is staggered")
