"""Background work whose unexpected errors are seen.

asyncio writes the error of a task that is not awaited when the task is freed, which may be never. Until then, a loop
that has ended shows only by its effect: locks lose their leases, runs their heartbeats. So the loops and tasks that run
beside the tasks of users are started through this module.
"""

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

__all__ = ["logged", "restarted", "start"]

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0

_log = logging.getLogger("mageflow.background")


async def restarted(work: Callable[[], Awaitable[None]], what: str, *, until: asyncio.Event | None = None) -> None:
    """Run a loop until it returns. After an error that it did not expect, log the error and begin again.

    The first pause is 1 s, less than a fifth of the lease of locks. It doubles up to 60 s, and is short again after the
    loop has run for longer than that.

    Args:
        work: The loop. It handles the errors that it expects.
        what: Its name in the log.
        until: Once it is set, the loop does not begin again.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        began = time.monotonic()
        try:
            return await work()
        except Exception:  # noqa: BLE001 - the effect of the loop must not be lost
            if time.monotonic() - began > _LONGEST_PAUSE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            _log.exception("%s failed unexpectedly and go on in %.0f s", what, pause)
        if until is None:
            await asyncio.sleep(pause)
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await until.wait()
                    return None
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


async def logged(work: Callable[[], Awaitable[None]], what: str) -> None:
    """Run work that is not repeated, and log an error that it did not expect."""
    try:
        await work()
    except Exception:  # noqa: BLE001 - it has no caller that could handle it
        _log.exception("%s failed unexpectedly", what)


def start(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start work that outlives the attempt which starts it, on the running loop. The caller keeps the task.

    It runs in an empty context: the spans and log fields of the attempt must not be those of what it does later.
    """
    return asyncio.get_running_loop().create_task(work, name=name, context=contextvars.Context())
