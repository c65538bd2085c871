"""Finds what has happened since the last look: in Redis, and in the workers of this host."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final

from mageflow.cli.tail_events import Happening, of_attempt, of_deadlock, of_record
from mageflow.cli.tail_filter import TailFilter
from mageflow.cli.worker_runs import read_worker_runs
from mageflow.config import Settings
from mageflow.errors import SignatureError
from mageflow.signatures import ENDED, Status
from mageflow.store import Description, Keys, RedisPort, describe_record, kinds_of, search_records, signature_id_of

__all__ = ["Follower"]

_OVERLAP: Final = timedelta(seconds=2)
"""Looks overlap: what is the same as in the look before is not reported again."""
_AT_ONCE: Final = 200
"""Records that are described at the same time: each is a round trip."""
_PAGE: Final = 200
_MOST_MEMBERS: Final = 4000
"""Members of one flow that are followed: a huge swarm does not keep Redis busy."""


class Follower:
    """Reports each change once. All changes of one look come in the order of their times.

    Args:
        port: Connects to Redis.
        keys: Keys of the namespace.
        settings: TTLs of the records, and where workers serve.
        only: What is reported.
    """

    def __init__(self, port: RedisPort, keys: Keys, settings: Settings, only: TailFilter) -> None:
        self._port = port
        self._keys = keys
        self._settings = settings
        self._filter = only
        self._began = datetime.now(UTC)
        self._looked = self._began
        self._seen: dict[tuple[object, ...], None] = {}
        self._known_runs: set[str] = set()
        self.has_ended = False
        """Whether the record of ``only.key`` has ended: nothing more will happen to it."""

    async def begin(self) -> None:
        """Note the time of Redis, by which everything later is new. One round trip."""
        self._began = self._looked = await self._now()

    async def _now(self) -> datetime:
        """By the clock of Redis, which writes the times of changes. That of this host may be ahead."""
        seconds, microseconds = await self._port.command("TIME", operation="tail")
        return datetime.fromtimestamp(int(seconds) + int(microseconds) / 1e6, UTC)

    async def look(self) -> list[Happening]:
        """What has happened since the last look.

        Raises:
            SignatureNotFoundError: ``only.key`` is not stored.
            StoreError: Redis does not answer.
        """
        described, workers = await asyncio.gather(self._described(), read_worker_runs(self._settings))
        found = [each for record in described for each in of_record(record) if self._is_wanted(record, each)]
        for record in described:
            self._known_runs |= {each.last_run.workflow_run_id for each in record.members if each.last_run is not None}
        found += [each for worker in workers for each in self._of_worker(worker)]
        new = {each.identity: each for each in found if each.identity not in self._seen and self._is_new(each)}
        # The same change is met again while looks overlap, and the workers keep their last attempts.
        self._seen |= dict.fromkeys(new)
        while len(self._seen) > 20_000:  # noqa: PLR2004 - some megabytes
            self._seen.pop(next(iter(self._seen)))
        if self._filter.key and described and described[0].signature.status in ENDED and described[0].path.is_record:
            self.has_ended = True
        return sorted(new.values(), key=_order)

    async def _described(self) -> Sequence[Description]:
        if self._filter.key:
            return await self._pages(self._filter.key)
        since, self._looked = self._looked - _OVERLAP, await self._now()
        found = [
            each.key
            async for each in search_records(
                self._port,
                self._keys,
                kinds=kinds_of(flow=self._filter.flow or None),
                statuses=list(Status),
                name=self._filter.flow or "",
                changed_since=since,
                settings=self._settings,
            )
        ]
        described: list[Description] = []
        for first in range(0, len(found), _AT_ONCE):
            some = found[first : first + _AT_ONCE]
            described += chain.from_iterable(await asyncio.gather(*(self._readable_pages(key) for key in some)))
        return described

    async def _readable_pages(self, key: str) -> list[Description]:
        try:
            return await self._pages(key)
        except SignatureError:  # it expired meanwhile, or is damaged: the others are reported
            return []

    async def _pages(self, key: str) -> list[Description]:
        """A record with its members, in as many descriptions as they need. The first is of the record as it is now."""
        pages: list[Description] = []
        for first in range(0, _MOST_MEMBERS, _PAGE):
            pages.append(await describe_record(self._port, self._keys, key, first=first, limit=_PAGE))
            if not pages[-1].path.is_record or first + _PAGE >= pages[-1].members_total:
                break
        return pages

    def _is_wanted(self, record: Description, each: Happening) -> bool:
        if not self._filter.task:
            return True
        return each.name == self._filter.task and (each.subject != record.kind or record.kind == "task")

    def _is_new(self, each: Happening) -> bool:
        return bool(self._filter.key) or each.at >= self._began.timestamp()

    def _of_worker(self, worker: Mapping[str, Any]) -> Iterator[Happening]:
        for row in worker.get("ended", ()):
            with suppress(KeyError, TypeError, ValueError):
                if self._is_of_what_is_followed(row):
                    yield of_attempt(row)
        if not (self._filter.task or self._filter.flow or self._filter.key):
            for row in worker.get("deadlocks", ()):
                with suppress(KeyError, TypeError, ValueError):
                    yield of_deadlock(row)

    def _is_of_what_is_followed(self, row: Mapping[str, Any]) -> bool:
        if self._filter.task:
            return row["task"] == self._filter.task
        if self._filter.flow:
            return row["flow"] == self._filter.flow
        if self._filter.key:
            return row["run_id"] in self._known_runs or row["flow_id"] == signature_id_of(self._filter.key)
        return True


def _order(each: Happening) -> tuple[float, str, str]:
    return each.at, each.key, each.what
