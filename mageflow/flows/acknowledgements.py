"""Telling Redis what was sent, without a round trip for each.

An entry of an outbox is taken out by whoever comes first: the admission of the run it led to, which costs nothing
extra, or an acknowledgement. So acknowledgements wait for a moment: most runs are admitted before, often by the very
process that sent them. What is never acknowledged nor admitted is sent again by a reconciler after its grace time, and
the second run is turned away. This file owns the waiting; it refuses to know what was sent.
"""

import asyncio
import logging
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from mageflow.errors import MageflowError, StoreUnavailableError
from mageflow.store import RecordKeys, Store

__all__ = ["Acknowledgements"]

_log = logging.getLogger("mageflow.flows")


class Acknowledgements:
    """Sent entries that Redis has not been told of yet, per event loop.

    Args:
        store: Where they are told.
        delay_seconds: How long an entry waits for its run to be admitted; well below the reconcilers' grace time.
    """

    def __init__(self, store: Store, delay_seconds: float = 1.0) -> None:
        self._store = store
        self._delay_seconds = delay_seconds
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = WeakKeyDictionary()

    def add(self, keys: RecordKeys, path: str, epoch: int, run_id: str) -> None:
        """Note that an entry was sent; Redis is told after the delay unless `forget` comes first."""
        waiting = self._of_loop()
        entry = _Sent(epoch, run_id, asyncio.get_running_loop().time())
        waiting.entries.setdefault(keys.record, (keys, {}))[1][path] = entry
        if waiting.task is None or waiting.task.done():
            waiting.task = asyncio.create_task(self._later(waiting), name="mageflow-acknowledgements")

    def forget(self, record: str, path: str) -> None:
        """The run of an entry was admitted by this process: Redis knows."""
        for waiting in list(self._waiting.values()):
            entry = waiting.entries.get(record)
            if entry is not None and entry[1].pop(path, None) is not None and not entry[1]:
                waiting.entries.pop(record, None)

    def take(self, record: str) -> list[tuple[str, int, str]]:
        """Entries of a record that have waited for half the delay, to be told on the way of another script."""
        found = self._of_loop().entries.get(record)
        if found is None:
            return []
        since = asyncio.get_running_loop().time() - self._delay_seconds / 2
        ripe = [(path, sent.epoch, sent.run_id) for path, sent in found[1].items() if sent.at <= since]
        for path, _, _ in ripe:
            self.forget(record, path)
        return ripe

    async def flush(self) -> None:
        """Tell Redis of everything now, one round trip per record."""
        await self._flush(self._of_loop(), 0.0)

    async def _flush(self, waiting: "_Waiting", older_than_seconds: float) -> None:
        """Tell Redis of what has waited so long. What cannot be told is sent again, and turned away then."""
        since = asyncio.get_running_loop().time() - older_than_seconds
        for record, (keys, sent) in list(waiting.entries.items()):
            ripe = [(path, each.epoch, each.run_id) for path, each in sent.items() if each.at <= since]
            if not ripe:
                continue
            try:
                await self._store.acknowledge(keys, ripe)
            except StoreUnavailableError as error:
                _log.warning("what was sent cannot be acknowledged yet: %s", error)
                return
            except MageflowError as error:
                _log.warning("what was sent for %s cannot be acknowledged: %s", record, error)
            for path, _, _ in ripe:
                self.forget(record, path)

    async def _later(self, waiting: "_Waiting") -> None:
        try:
            while waiting.entries:
                await asyncio.sleep(self._delay_seconds / 2)
                await self._flush(waiting, self._delay_seconds)
        except asyncio.CancelledError:
            await self._flush(waiting, 0.0)  # asyncio.run ends: a short program should leave nothing to reconcilers
            raise

    def _of_loop(self) -> "_Waiting":
        loop = asyncio.get_running_loop()
        return self._waiting.setdefault(loop, _Waiting())


@dataclass(frozen=True, slots=True)
class _Sent:
    epoch: int
    run_id: str
    at: float


class _Waiting:
    def __init__(self) -> None:
        self.entries: dict[str, tuple[RecordKeys, dict[str, _Sent]]] = {}
        self.task: asyncio.Task[None] | None = None
