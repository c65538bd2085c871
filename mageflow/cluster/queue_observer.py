"""The elected worker asks Hatchet what waits; the others do not, so the load does not grow with the fleet."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from mageflow.errors import MageflowError
from mageflow.interceptors import Interceptor, QueueView, WaitingRuns

__all__ = ["QueueObserver"]

_ELECTION_SECONDS: Final = 1.0
_LIMIT_SECONDS: Final = 10.0
_LONGEST_PAUSE_SECONDS: Final = 300.0
_VALID_INTERVALS: Final = 3

_log = logging.getLogger("mageflow.cluster")


class QueueObserver:
    """Reads what waits until it is cancelled, and publishes each reading as the event `QueueView`.

    One request per interval. After a failure the pause doubles, up to five minutes. A reading is valid for three
    intervals: what cannot be read is absent, not 0.

    Args:
        read: Asks Hatchet, by task.
        leads: Whether this process exports the cluster view.
        interceptor: Gets the readings.
        interval_seconds: Between two readings.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Mapping[str, WaitingRuns]]],
        leads: Callable[[], bool],
        interceptor: Interceptor,
        *,
        interval_seconds: float,
    ) -> None:
        self._read = read
        self._leads = leads
        self._interceptor = interceptor
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Read until cancelled. The first failure in a row is logged."""
        failures = 0
        while True:
            if not self._leads():
                await asyncio.sleep(min(self._interval_seconds, _ELECTION_SECONDS))
                continue
            failures = 0 if await self._observe(log_failure=not failures) else failures + 1
            longest = max(_LONGEST_PAUSE_SECONDS, self._interval_seconds)
            await asyncio.sleep(min(self._interval_seconds * 2 ** min(failures, 16), longest))

    async def _observe(self, *, log_failure: bool) -> bool:
        began = time.monotonic()
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                waiting = await self._read()
        except (MageflowError, TimeoutError) as error:
            if log_failure:
                _log.info("the queue cannot be read: %s", str(error) or "Hatchet does not answer")
            return False
        except Exception:  # noqa: BLE001 - logged, and tried again
            if log_failure:
                _log.exception("the queue cannot be read")
            return False
        self._interceptor.event(QueueView(waiting, began + _VALID_INTERVALS * self._interval_seconds))
        return True
