"""Heartbeats for task functions running in this process.

When Hatchet has lost a run, only the process that runs its task function knows that it is still running. The heartbeat
stores that in Redis, so that the reconcilers do not send the run again. A task function needs a heartbeat only after it
has run for half a check interval.
"""

import asyncio
import logging
from typing import Final, NamedTuple, get_args

from mageflow.errors import MageflowError, StoreUnavailableError
from mageflow.interceptors import Attempt, current_attempt
from mageflow.store import MemberPath, RecordKeys, Store
from mageflow.telemetry import suppressed
from mageflow.types import SignatureKind

__all__ = ["Heartbeats"]

_KINDS: Final[tuple[SignatureKind, ...]] = get_args(SignatureKind)

_log = logging.getLogger("mageflow.flows")


class _Execution(NamedTuple):
    attempt: Attempt
    keys: RecordKeys
    path: MemberPath
    run_id: str
    started_at: float


class Heartbeats:
    """The attempts running in this process, and their heartbeats.

    Args:
        store: Receives the heartbeats.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[int, _Execution] = {}

    @property
    def interval_seconds(self) -> float:
        """Time between two heartbeats; an attempt younger than this has none."""
        settings = self._store.settings
        ttls = (settings.ttl_seconds(kind)[0] / 3 for kind in _KINDS)
        return min(settings.reconcile_check_seconds, *ttls) / 2

    def start(self, keys: RecordKeys, path: MemberPath, run_id: str) -> None:
        """Send heartbeats for the running attempt until `stop`. Outside an attempt nothing happens."""
        attempt = current_attempt.get()
        if attempt is not None:
            started_at = asyncio.get_running_loop().time()
            self._running[id(attempt)] = _Execution(attempt, keys, path, run_id, started_at)

    def stop(self, attempt: Attempt) -> None:
        """Stop the heartbeats of an attempt that has ended."""
        self._running.pop(id(attempt), None)

    async def run(self) -> None:
        """Send heartbeats until cancelled. If Redis is away, retry at the next interval."""
        while True:
            await asyncio.sleep(self.interval_seconds)
            await self.send()

    async def send(self) -> None:
        """Send one heartbeat for each attempt that has run for an interval; one round trip per record."""
        latest_start = asyncio.get_running_loop().time() - self.interval_seconds
        due: dict[str, tuple[RecordKeys, list[tuple[MemberPath, str]]]] = {}
        for each in self._running.values():
            if each.started_at <= latest_start:
                due.setdefault(each.keys.record, (each.keys, []))[1].append((each.path, each.run_id))
        for record, (keys, running) in due.items():
            try:
                with suppressed():
                    await self._store.keep_alive(keys, running)
            except StoreUnavailableError:
                return  # the outage has its own warning; the next interval tries again
            except MageflowError as error:
                _log.warning("the heartbeat of %s could not be sent: %s", record, error)
            except Exception:  # noqa: BLE001 - without theirs, the runs of the other records would be sent again
                _log.exception("the heartbeat of %s could not be sent", record)
