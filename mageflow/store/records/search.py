"""Finds records by kind, status, name and age, from the indexes that every write keeps. Never scans keys."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Final

from mageflow._frozen import frozen
from mageflow.config import Settings
from mageflow.signatures import ENDED, Status
from mageflow.store.keys import SHARDS, Keys
from mageflow.store.records.declarations import SEARCH
from mageflow.store.records.stored import moment
from mageflow.store.redis.port import RedisPort
from mageflow.types import SignatureKind

__all__ = ["FoundSignature", "kinds_of", "search_records"]

_PAGE: Final = 500
"""Entries of an index that one call reads. Redis serves no other client meanwhile: about a millisecond."""


@frozen
class FoundSignature:
    """A signature, chain or swarm that a search has found, as it was at that moment.

    Attributes:
        key: For ``client.load_signature`` and the lifecycle methods.
        kind: ``task``, ``chain`` or ``swarm``.
        name: The task's name; for a flow its name in telemetry.
        status: Its status.
        created_at: When it was stored, in UTC.
        updated_at: When anything of it last changed, in UTC.
        attempts: Attempts admitted so far, of all its members.
    """

    key: str
    kind: SignatureKind
    name: str
    status: Status
    created_at: datetime
    updated_at: datetime
    attempts: int


def kinds_of(*, task: object = None, flow: str | None = None) -> tuple[SignatureKind, ...]:
    """The kinds that a search looks at: a task names signatures, a flow names chains and swarms, neither names all."""
    if task is not None:
        return ("task",)
    return ("task", "chain", "swarm") if flow is None else ("chain", "swarm")


async def search_records(
    port: RedisPort,
    keys: Keys,
    *,
    kinds: Sequence[SignatureKind],
    statuses: Sequence[Status],
    name: str = "",
    since: float = 0.0,
    changed_since: datetime | None = None,
    settings: Settings | None = None,
    page: int = _PAGE,
) -> AsyncIterator[FoundSignature]:
    """Find records. One round trip for each ``page`` entries of the indexes; on a Cluster at least one per shard.

    Each record comes once. One whose status changes meanwhile may be missed, or come with the status before.

    Args:
        port: Connects to Redis.
        keys: Keys of the namespace.
        kinds: The kinds to look at.
        statuses: The statuses to look at.
        name: Only records of this name; empty for all.
        since: Only records created at this time or later, in epoch seconds.
        changed_since: Only records that changed at this time or later. The indexes are read from there on, so it costs
            as much as has changed. It is found by the TTLs of ``settings``: the workers must have the same.
        settings: For ``changed_since``.
        page: Entries of the indexes that one call reads.

    Raises:
        StoreError: As `RedisPort.call`.
    """
    # In the order of a life, so that a record that goes on meanwhile is met again and not missed.
    pairs = [
        f"{kind}:{status}{_from(kind, status, changed_since, settings)}"
        for status in Status
        if status in statuses
        for kind in kinds
    ]
    shards = [keys.stats(shard) for shard in range(SHARDS)]
    seen: set[str] = set()
    for group in [[each] for each in shards] if port.is_cluster else [shards]:
        cursor: list[Any] = [1, 1, "", 0]
        while cursor:
            found, cursor = await port.call(SEARCH, group, (*cursor, page, name, f"{since * 1000:.0f}", *pairs))
            for row in found:
                record = _read(row)
                if record is not None and record.key not in seen:
                    seen.add(record.key)
                    yield record


def _read(row: Sequence[Any]) -> FoundSignature | None:
    key, kind, name, status, created, updated, attempts = row
    try:
        return FoundSignature(key, kind, name, Status(status), moment(created), moment(updated), int(attempts))
    except (ValueError, ArithmeticError, OSError):
        return None  # damaged: the reconcilers report it


def _from(kind: SignatureKind, status: Status, changed_since: datetime | None, settings: Settings | None) -> str:
    """Where to begin in the index of a kind and status: it has the time at which a record expires after its change."""
    if changed_since is None or settings is None:
        return ""
    active, done = settings.ttl_seconds(kind)
    return f":{(changed_since.timestamp() + (done if status in ENDED else active)) * 1000:.0f}"
