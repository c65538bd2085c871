"""Repeats an operation while Redis is away or refuses."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from mageflow.errors import StoreUnavailableError

__all__ = ["next_pause", "up_to_date", "while_unavailable"]

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0
_LATE_SECONDS: Final = 3.0
"""An answer that took longer may be out of date: Hatchet gives the run of a worker that stood still to another."""

_T = TypeVar("_T")
_random = random.Random()  # noqa: S311 - spreads load, guards nothing


def next_pause(pause: float, longest: float = LONGEST_PAUSE) -> float:
    """The pause after this one: twice as long, up to the longest, and a little random: workers do not go together."""
    return min(pause * 2, longest) * _random.uniform(0.75, 1.0)


async def while_unavailable(operation: Callable[[], Awaitable[_T]], retry_seconds: float) -> _T:
    """Repeat the operation, with growing pauses, for at most ``retry_seconds`` while Redis is away or refuses.

    Raises:
        StoreUnavailableError: Redis was away or refused all the time.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + retry_seconds
    pause = FIRST_PAUSE
    while True:
        try:
            return await operation()
        except StoreUnavailableError:
            if loop.time() + pause >= deadline:
                raise
            await asyncio.sleep(pause)
            pause = next_pause(pause)


async def up_to_date(operation: Callable[[], Awaitable[_T]], retry_seconds: float) -> _T:
    """Do what `while_unavailable` does, and once more if the answer took over 3 s: the process may have stood still.

    Raises:
        StoreUnavailableError: Redis was away or refused all the time.
    """
    sent_at = 0.0

    def timed() -> Awaitable[_T]:
        nonlocal sent_at
        sent_at = time.monotonic()
        return operation()

    answer = await while_unavailable(timed, retry_seconds)
    is_late = time.monotonic() - sent_at > _LATE_SECONDS
    return await while_unavailable(operation, retry_seconds) if is_late else answer
