"""Reads all sources at one instant. A source that does not answer leaves its part empty, with one sentence."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from mageflow.cli.top.sources.endpoints import Scrape, scrape
from mageflow.cli.top.sources.flows import read_flows
from mageflow.cli.top.sources.queue import HatchetQueue
from mageflow.cli.top.sources.snapshot import FlowNode, Snapshot
from mageflow.cli.top.sources.window import WINDOW_SECONDS, CounterWindow
from mageflow.cli.top.sources.workers import (
    attempts_of,
    deadlocks_of,
    deadlocks_total,
    has_queue,
    sleepers_of,
    stagger_windows,
    task_rows,
    worker_rows,
)
from mageflow.errors import MageflowError
from mageflow.interceptors import WaitingRuns
from mageflow.locks import LocksReport
from mageflow.store import Keys, LockStore, RedisPort

__all__ = ["Reader"]

_SEARCH_SECONDS = 5.0
"""Between two searches for endpoints: most of the ports have none."""
_LOCK_LIMIT = 500
_FLOWS_SECONDS = 2.0
"""Between two readings of flows, which take more round trips than everything else."""


class Reader:
    """Reads workers and Redis. Use it as an asynchronous context manager, on one event loop.

    Args:
        candidates: The URLs at which endpoints may answer; called at each search.
        port: Redis; None without it.
        keys: Keys of the namespace.
        raw_keys: Whether keys of locked resources are shown as they are.
    """

    def __init__(
        self, candidates: Callable[[], Sequence[str]], port: RedisPort | None, keys: Keys, *, raw_keys: bool = False
    ) -> None:
        self._candidates = candidates
        self._port = port
        self._keys = keys
        self._raw_keys = raw_keys
        self._queue = HatchetQueue()
        self._window = CounterWindow()
        self._known: set[str] = set()
        self._searched_at = float("-inf")
        self._flows: tuple[FlowNode, ...] = ()
        self._flows_read_at = float("-inf")
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="mageflow-top")

    async def __aenter__(self) -> Self:
        """Nothing is read before `read`."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop reading. The connection to Redis is the caller's."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def read(self) -> Snapshot:
        """Read every source once. Never raises for a source that does not answer."""
        problems: list[str] = []
        scrapes, (locks, flows) = await asyncio.gather(self._scrape(problems), self._read_redis(problems))
        queue = None if has_queue(scrapes) else await self._read_queue(problems)
        return Snapshot(
            at=time.time(),
            window_s=min(self._window.seconds, WINDOW_SECONDS),
            workers=worker_rows(scrapes),
            tasks=task_rows(scrapes, self._window, queue),
            sleepers=sleepers_of(scrapes),
            stagger_windows=stagger_windows(scrapes),
            locks=locks,
            deadlocks=deadlocks_of(scrapes),
            deadlocks_total=deadlocks_total(scrapes),
            attempts=attempts_of(scrapes),
            flows=flows,
            problems=tuple(problems),
        )

    async def _scrape(self, problems: list[str]) -> list[Scrape]:
        urls = set(self._known)
        now = time.monotonic()
        if now - self._searched_at >= _SEARCH_SECONDS or not urls:
            self._searched_at = now
            urls.update(self._candidates())
        loop = asyncio.get_running_loop()
        found = await asyncio.gather(*(loop.run_in_executor(self._pool, scrape, url) for url in sorted(urls)))
        scrapes = [each for each in found if each is not None]
        answering = {each.url for each in scrapes}
        for url in sorted(self._known - answering):
            self._window.forget(url)
            problems.append(f"{url} does not answer any more")
        self._known = answering
        for each in scrapes:
            self._window.add(each.url, time.monotonic(), each.samples)
        if not scrapes:
            problems.append(
                "no worker serves metrics here: start one, or name its endpoint with --metrics http://HOST:PORT/metrics"
            )
        return scrapes

    async def _read_queue(self, problems: list[str]) -> Mapping[str, WaitingRuns] | None:
        try:
            return await self._queue.read()
        except MageflowError as error:
            problems.append(f"what waits in Hatchet is not known: {error}")
            return None

    async def _read_redis(self, problems: list[str]) -> tuple[LocksReport | None, tuple[FlowNode, ...]]:
        if self._port is None:
            problems.append("no Redis is named: write --redis-url redis://HOST:6379, or set MAGEFLOW_REDIS_URL")
            return None, ()
        try:
            snapshot = await LockStore(self._port, self._keys).snapshot(_LOCK_LIMIT)
            if time.monotonic() - self._flows_read_at >= _FLOWS_SECONDS:
                self._flows = await read_flows(self._port, self._keys)
                self._flows_read_at = time.monotonic()
        except MageflowError as error:
            problems.append(str(error))
            return None, ()
        return LocksReport.of(snapshot, raw_keys=self._raw_keys), self._flows
