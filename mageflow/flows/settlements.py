"""Settlements that Redis has not taken yet. They are repeated in the background, after their attempts have ended.

A task function that has succeeded must not run again because Redis is away: Hatchet gets the success at once, and its
record is written when Redis takes it. If this process ends first, Hatchet has the outcome, and a reconciler reads it
there.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakKeyDictionary

from mageflow._frozen import frozen
from mageflow.background import restarted, start
from mageflow.errors import MageflowError, StoreUnavailableError
from mageflow.flows.repetition import FIRST_PAUSE, LONGEST_PAUSE, next_pause
from mageflow.interceptors import Interceptor, PendingSettlements
from mageflow.signatures import RunIdentity
from mageflow.store import AttemptOutcome, Settlement

__all__ = ["LateSettlements"]

_MOST: Final = 10_000
_MOST_CHARACTERS: Final = 64 * 1024 * 1024
_AT_ONCE: Final = 16
"""As many go to Redis together once it takes them: a fraction of the connections of a client."""
_CLOSING_SECONDS: Final = 2.0

_log = logging.getLogger("mageflow.flows")


@frozen
class _Late:
    key: str
    run: RunIdentity
    ended: AttemptOutcome

    @property
    def characters(self) -> int:
        error = self.ended.error
        return len(self.ended.result_json or "") + len(self.ended.input_json) + len(error.message if error else "")


class LateSettlements:
    """What waits for Redis, per event loop, oldest first.

    Args:
        settle: Settles one attempt and sends what follows.
        interceptor: Gets a `PendingSettlements` when the number of them changes.
        longest_pause_seconds: Longest time between two attempts, up to two seconds. Shorter than the grace time of the
            reconcilers, so that a settlement is repeated before a reconciler reads the outcome from Hatchet.
    """

    def __init__(
        self,
        settle: Callable[[str, RunIdentity, AttemptOutcome], Awaitable[Settlement]],
        interceptor: Interceptor,
        *,
        longest_pause_seconds: float = LONGEST_PAUSE,
    ) -> None:
        self._settle = settle
        self._interceptor = interceptor
        self._longest_pause = min(longest_pause_seconds, LONGEST_PAUSE)
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = WeakKeyDictionary()

    def add(self, key: str, run: RunIdentity, ended: AttemptOutcome) -> None:
        """Keep a settlement and repeat it until Redis takes it. Above the limits it is left to the reconcilers."""
        waiting = self._loops.setdefault(asyncio.get_running_loop(), _Waiting())
        late = _Late(key, run, ended)
        if len(waiting.queue) >= _MOST or waiting.characters + late.characters > _MOST_CHARACTERS:
            if not waiting.is_full:
                _log.warning("%d settlements wait for Redis; more are left to the reconcilers", len(waiting.queue))
            waiting.is_full = True
            return
        waiting.queue.append(late)
        waiting.characters += late.characters
        self._publish()
        if waiting.task is None or waiting.task.done():
            waiting.task = start(restarted(lambda: self._repeat(waiting), "settlements"), "mageflow-settlements")

    def holds(self, run_id: str) -> bool:
        """Whether a settlement of this run waits in this process."""
        loops = [waiting for loop, waiting in list(self._loops.items()) if not loop.is_closed()]
        return any(late.run.workflow_run_id == run_id for each in loops for late in list(each.queue))

    def redis_answers(self) -> None:
        """Repeat the oldest settlement of this loop now: another call of this process has succeeded."""
        waiting = self._loops.get(asyncio.get_running_loop())
        if waiting is not None:
            waiting.is_due.set()

    async def close(self) -> None:
        """Settle what waits in this loop if Redis takes it at once; leave the rest to the reconcilers."""
        waiting = self._loops.pop(asyncio.get_running_loop(), None)
        if waiting is None:
            return
        if waiting.task is not None:
            waiting.task.cancel()
            await asyncio.gather(waiting.task, return_exceptions=True)
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                while waiting.queue and await self._settle_oldest(waiting, _AT_ONCE):
                    pass
        except TimeoutError:
            pass
        if waiting.queue:
            _log.warning("%d ended attempts are left to the reconcilers: Redis is away", len(waiting.queue))
            waiting.queue.clear()
        self._publish()

    async def _repeat(self, waiting: "_Waiting") -> None:
        pause = FIRST_PAUSE
        while waiting.queue:
            waiting.is_due.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await waiting.is_due.wait()
            pause = next_pause(pause, self._longest_pause)
            at_once = 1
            while waiting.queue and await self._settle_oldest(waiting, at_once):
                at_once, pause = _AT_ONCE, FIRST_PAUSE

    async def _settle_oldest(self, waiting: "_Waiting", count: int) -> bool:
        """Settle the oldest ones. Returns whether Redis takes them."""
        oldest = list(waiting.queue)[:count]
        done = await asyncio.gather(*(self._settle_one(each) for each in oldest))
        for late, is_done in zip(oldest, done, strict=True):
            if is_done:
                waiting.queue.remove(late)
                waiting.characters -= late.characters
        if any(done):
            waiting.is_full = False
            self._publish()
        return all(done)

    async def _settle_one(self, late: _Late) -> bool:
        try:
            await self._settle(late.key, late.run, late.ended)
        except StoreUnavailableError:
            return False
        except MageflowError as error:
            _log.error("the end of %s could not be recorded: %s", late.key, error)
        except Exception:  # noqa: BLE001 - the others must be settled
            _log.exception("the end of %s could not be recorded", late.key)
        return True

    def _publish(self) -> None:
        self._interceptor.event(PendingSettlements(sum(len(each.queue) for each in list(self._loops.values()))))


class _Waiting:
    def __init__(self) -> None:
        self.queue: deque[_Late] = deque()
        self.characters = 0
        self.is_full = False
        self.is_due = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
