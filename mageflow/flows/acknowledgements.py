"""Acknowledges sent outbox entries in bulk, without a round trip for each.

The admission of the run removes its entry from the outbox at no extra cost, and most runs are admitted within a moment,
often by the process that sent them. So an acknowledgement waits for a moment, and is sent only if no admission came.
An entry that is neither acknowledged nor admitted is sent again by a reconciler after the grace time, and the second
run is turned away.
"""

import asyncio
import logging
from weakref import WeakKeyDictionary

from mageflow._frozen import frozen
from mageflow.background import restarted, start
from mageflow.errors import MageflowError, StoreUnavailableError
from mageflow.store import Acknowledgement, RecordKeys, Store

__all__ = ["Acknowledgements"]

_log = logging.getLogger("mageflow.flows")


class Acknowledgements:
    """Sent entries that wait for their acknowledgement, per event loop.

    Args:
        store: Receives the acknowledgements.
        delay_seconds: Time an entry waits for its run to be admitted; well below the grace time of the reconcilers.
    """

    def __init__(self, store: Store, delay_seconds: float = 1.0) -> None:
        self._store = store
        self._delay_seconds = delay_seconds
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting] = WeakKeyDictionary()

    def add(self, keys: RecordKeys, sent: Acknowledgement) -> None:
        """Acknowledge a sent entry after the delay, unless `forget` or `take` comes first."""
        waiting = self._of_loop()
        entry = _Sent(sent, asyncio.get_running_loop().time())
        waiting.entries.setdefault(keys.record, (keys, {}))[1][sent.field] = entry
        if waiting.task is None or waiting.task.done():
            flush = restarted(lambda: self._flush_in_background(waiting), "acknowledgements")
            waiting.task = start(flush, "mageflow-acknowledgements")

    def forget(self, record: str, field: str) -> None:
        """Drop an entry: this process admitted its run, which removed the entry from the outbox."""
        if not self._waiting:
            return  # the usual case: this process has sent nothing
        for waiting in list(self._waiting.values()):
            entry = waiting.entries.get(record)
            if entry is not None and entry[1].pop(field, None) is not None and not entry[1]:
                waiting.entries.pop(record, None)

    def take(self, record: str) -> list[Acknowledgement]:
        """Remove and return the entries of a record that have waited for half the delay.

        The caller acknowledges them with the script it is about to call for the record.
        """
        if not self._waiting:
            return []  # the usual case: this process has sent nothing
        waiting = self._waiting.get(asyncio.get_running_loop())
        found = waiting.entries.get(record) if waiting is not None else None
        if found is None:
            return []
        latest = asyncio.get_running_loop().time() - self._delay_seconds / 2
        due = [each.sent for each in found[1].values() if each.sent_at <= latest]
        for sent in due:
            self.forget(record, sent.field)
        return due

    async def flush(self) -> None:
        """Acknowledge every waiting entry now; one round trip per record. Logs a warning if Redis fails."""
        await self._flush(self._of_loop(), 0.0)

    async def _flush(self, waiting: "_Waiting", older_than_seconds: float) -> None:
        async with waiting.flushing:  # a second flush finds what the first has left, and ends after it
            latest = asyncio.get_running_loop().time() - older_than_seconds
            for record, (keys, entries) in list(waiting.entries.items()):
                due = [each.sent for each in entries.values() if each.sent_at <= latest]
                if not due:
                    continue
                try:
                    await self._store.acknowledge(keys, due)
                except StoreUnavailableError:
                    return  # the outage has its own warning; they wait
                except MageflowError as error:
                    _log.warning("sent runs of %s cannot be acknowledged: %s", record, error)
                for sent in due:
                    self.forget(record, sent.field)

    async def _flush_in_background(self, waiting: "_Waiting") -> None:
        try:
            while waiting.entries:
                await asyncio.sleep(self._delay_seconds / 2)
                await self._flush(waiting, self._delay_seconds)
        except asyncio.CancelledError:
            await self._flush(waiting, 0.0)  # asyncio.run ends: a short program leaves no work to the reconcilers
            raise

    def _of_loop(self) -> "_Waiting":
        loop = asyncio.get_running_loop()
        return self._waiting.get(loop) or self._waiting.setdefault(loop, _Waiting())


@frozen
class _Sent:
    sent: Acknowledgement
    sent_at: float


class _Waiting:
    def __init__(self) -> None:
        self.entries: dict[str, tuple[RecordKeys, dict[str, _Sent]]] = {}
        self.task: asyncio.Task[None] | None = None
        self.flushing = asyncio.Lock()
