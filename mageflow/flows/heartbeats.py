"""Bodies that run in this process, and the word to Redis that they do.

When Hatchet has forgotten a run, only the process that runs its body knows that it goes on. So it says so, for bodies
that last: one round trip per record and half a check interval. A body that was heard of lately is not sent again; one
whose process is gone is. This file owns the list. It refuses to decide anything by it.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, get_args

from mageflow.errors import MageflowError
from mageflow.interceptors import Attempt, current_attempt
from mageflow.store import RecordKeys, Store
from mageflow.types import SignatureKind

__all__ = ["Heartbeats"]

_KINDS: Final[tuple[SignatureKind, ...]] = get_args(SignatureKind)

_log = logging.getLogger("mageflow.flows")


@dataclass(frozen=True, slots=True)
class _Body:
    attempt: Attempt
    keys: RecordKeys
    path: str
    run_id: str
    began: float


class Heartbeats:
    """What runs here.

    Args:
        store: Where it is told.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[int, _Body] = {}

    @property
    def interval_seconds(self) -> float:
        """Between two words about one body; what is younger needs none."""
        settings = self._store.settings
        lives = (settings.ttl_seconds(kind)[0] / 3 for kind in _KINDS)
        return min(settings.reconcile_check_seconds, *lives) / 2

    def enter(self, keys: RecordKeys, path: str, run_id: str) -> None:
        """The running attempt was admitted; outside of one nothing is noted, for nobody would say when it ends."""
        attempt = current_attempt.get()
        if attempt is not None:
            began = asyncio.get_running_loop().time()
            self._running[id(attempt)] = _Body(attempt, keys, path, run_id, began)

    def leave(self, attempt: Attempt) -> None:
        """An attempt has ended, however."""
        self._running.pop(id(attempt), None)

    async def run(self) -> None:
        """Tell of what runs, for ever. Redis being away costs a line in the log: it is told again."""
        while True:
            await asyncio.sleep(self.interval_seconds)
            await self.tell()

    async def tell(self) -> None:
        """Tell of every body that has run for an interval, one round trip per record."""
        until = asyncio.get_running_loop().time() - self.interval_seconds
        lasting: dict[str, tuple[RecordKeys, list[tuple[str, str]]]] = {}
        for body in self._running.values():
            if body.began <= until:
                lasting.setdefault(body.keys.record, (body.keys, []))[1].append((body.path, body.run_id))
        for record, (keys, bodies) in lasting.items():
            try:
                await self._store.keep_alive(keys, bodies)
            except MageflowError as error:
                _log.warning("that bodies of %s run cannot be told yet: %s", record, error)
