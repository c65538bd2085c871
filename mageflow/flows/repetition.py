"""Repeats an operation while Redis is away or refuses."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from mageflow.errors import StoreUnavailableError

__all__ = ["next_pause", "while_unavailable"]

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0

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
