"""Finds what has happened since the last look: in Redis, and in the workers of this host."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mageflow.cli.tail_events import Happening, of_attempt, of_deadlock, of_record
from mageflow.cli.worker_runs import read_worker_runs
from mageflow.config import Settings
from mageflow.errors import SignatureError
from mageflow.signatures import ENDED, Status
from mageflow.store import Description, Keys, RedisPort, describe_record, search_records, signature_id_of

__all__ = ["Follower"]

_OVERLAP: Final = timedelta(seconds=2)
"""Looks overlap: what is the same as in the look before is not reported again."""
_RECORDS: Final = 200
"""Records that one look describes: each is a round trip."""
_MEMBERS: Final = 200


class Follower:
    """Reports each change once. All changes of one look come in the order of their times.

    Args:
        port: Connects to Redis.
        keys: Keys of the namespace.
        settings: TTLs of the records, and where workers serve.
        task: Report only this task; empty for all.
        flow: Report only flows of this name; empty for all.
        key: Report only this record or member, with everything that is stored of it; empty for all.
    """

    def __init__(
        self, port: RedisPort, keys: Keys, settings: Settings, *, task: str = "", flow: str = "", key: str = ""
    ) -> None:
        self._port = port
        self._keys = keys
        self._settings = settings
        self._task = task
        self._flow = flow
        self._key = key
        self._began = datetime.now(UTC)
        self._looked = self._began
        self._seen: dict[tuple[object, ...], None] = {}
        self._known_runs: set[str] = set()
        self.has_ended = False
        """Whether the record of ``key`` has ended: nothing more will happen to it."""

    async def begin(self) -> None:
        """Note the time of Redis, by which everything later is new. One round trip."""
        seconds, microseconds = await self._port.command("TIME", operation="tail")
        self._began = self._looked = datetime.fromtimestamp(int(seconds) + int(microseconds) / 1e6, UTC)

    async def look(self) -> list[Happening]:
        """What has happened since the last look.

        Raises:
            SignatureNotFoundError: ``key`` is not stored.
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
        if self._key and described and described[0].signature.status in ENDED and described[0].path.is_record:
            self.has_ended = True
        return sorted(new.values(), key=_order)

    async def _described(self) -> Sequence[Description]:
        if self._key:
            return [await describe_record(self._port, self._keys, self._key, limit=_MEMBERS)]
        since, self._looked = self._looked - _OVERLAP, datetime.now(UTC)
        found = [
            each.key
            async for each in search_records(
                self._port,
                self._keys,
                kinds=("chain", "swarm") if self._flow else ("task", "chain", "swarm"),
                statuses=list(Status),
                name=self._flow,
                changed_since=since,
                settings=self._settings,
            )
        ]
        described = await asyncio.gather(*(self._describe(key) for key in found[-_RECORDS:]))
        return [each for each in described if each is not None]

    async def _describe(self, key: str) -> Description | None:
        with suppress(SignatureError):  # it expired meanwhile, or is damaged: the others are reported
            return await describe_record(self._port, self._keys, key, limit=_MEMBERS)
        return None

    def _is_wanted(self, record: Description, each: Happening) -> bool:
        if not self._task:
            return True
        return each.name == self._task and (each.subject != record.kind or record.kind == "task")

    def _is_new(self, each: Happening) -> bool:
        return bool(self._key) or each.at >= self._began.timestamp()

    def _of_worker(self, worker: Mapping[str, Any]) -> Iterator[Happening]:
        for row in worker.get("ended", ()):
            with suppress(KeyError, TypeError, ValueError):
                if self._is_of_what_is_followed(row):
                    yield of_attempt(row)
        if not (self._task or self._flow or self._key):
            for row in worker.get("deadlocks", ()):
                with suppress(KeyError, TypeError, ValueError):
                    yield of_deadlock(row)

    def _is_of_what_is_followed(self, row: Mapping[str, Any]) -> bool:
        if self._task:
            return row["task"] == self._task
        if self._flow:
            return row["flow"] == self._flow
        if self._key:
            return row["run_id"] in self._known_runs or row["flow_id"] == signature_id_of(self._key)
        return True


def _order(each: Happening) -> tuple[float, str, str]:
    return each.at, each.key, each.what
