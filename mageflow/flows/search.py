"""Finds and counts what is stored: ``client.signatures`` and ``client.signature_counts``."""

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime, timedelta
from typing import Final, get_args

from mageflow.did_you_mean import hint
from mageflow.errors import ConfigurationError
from mageflow.signatures import Status
from mageflow.store import FoundSignature, Store, kinds_of, search_records
from mageflow.types import SignatureKind, TaskCatalog

__all__ = ["Search"]

_KINDS: Final[tuple[SignatureKind, ...]] = get_args(SignatureKind)


class Search:
    """Finds signatures, chains and swarms of one client.

    Args:
        store: Keeps them.
        catalog: Knows the names of task objects.
    """

    def __init__(self, store: Store, catalog: TaskCatalog) -> None:
        self._store = store
        self._catalog = catalog

    def find(
        self,
        *,
        status: Status | str | Collection[Status | str] | None = None,
        task: object = None,
        flow: str | None = None,
        since: datetime | timedelta | None = None,
    ) -> AsyncIterator[FoundSignature]:
        """Find records; the filters are those of ``client.signatures``.

        Raises:
            ConfigurationError: A filter has no meaning.
        """
        if task is not None and flow is not None:
            raise ConfigurationError("a record is a task signature or a flow: give task or flow, not both")
        return search_records(
            self._store.port,
            self._store.keys,
            kinds=kinds_of(task=task, flow=flow),
            statuses=_statuses(status),
            name=flow or (self._task_name(task) if task is not None else ""),
            since=_epoch(since),
        )

    async def counts(self) -> dict[SignatureKind, dict[Status, int]]:
        """How many records there are, by kind and status. One round trip; one per shard on a Cluster."""
        census = await self._store.census()
        return {kind: {each: int(census.signatures[kind, each]) for each in Status} for kind in _KINDS}

    def _task_name(self, task: object) -> str:
        name = self._catalog.task_name(task) or (task if isinstance(task, str) else None)
        if name is None:
            raise ConfigurationError(f"task is a task declared with this client or the name of one, not {task!r}")
        return name


def _statuses(status: Status | str | Collection[Status | str] | None) -> list[Status]:
    if status is None:
        return list(Status)
    given = [status] if isinstance(status, str) else list(status)
    known = [each.value for each in Status]
    for each in given:
        if each not in known:
            raise ConfigurationError(f"there is no status {each!r}{hint(str(each), known)}")
    return [Status(each) for each in given]


def _epoch(since: datetime | timedelta | None) -> float:
    if since is None:
        return 0.0
    if isinstance(since, timedelta):
        return max(0.0, (datetime.now(UTC) - since).timestamp())
    if since.tzinfo is None:
        raise ConfigurationError("since needs a time zone: write datetime.now(UTC) - timedelta(hours=1)")
    return max(0.0, since.timestamp())
