"""What was found damaged in Redis and put aside: listed and cleared for an operator."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal

from mageflow._frozen import frozen
from mageflow.interceptors import DamageFound
from mageflow.store.keys import SHARDS, Keys
from mageflow.store.records.declarations import DAMAGED
from mageflow.store.records.stored import moment
from mageflow.store.redis.port import RedisPort

__all__ = ["DamageNote", "list_damaged", "read_notes"]

_KINDS: Final[dict[str, Literal["record", "index", "entry"]]] = {"record": "record", "index": "index", "entry": "entry"}


@frozen
class DamageNote:
    """One thing that was put aside."""

    kind: Literal["record", "index", "entry"]
    """``record``: no reconciler visits it; ``index``: an index of another type, deleted; ``entry``: an entry of an
    index that names nothing, removed."""
    key: str
    """Redis key, or the entry."""
    reason: str
    at: datetime | None
    """When it was found, by the clock of Redis; None if the note itself is damaged."""

    def event(self) -> DamageFound:
        """The event that reports it."""
        return DamageFound(self.kind, self.key, self.reason)


def read_notes(flat: Sequence[str]) -> list[DamageNote]:
    """Read key and note in turn, as the scripts answer them. Never raises: a damaged note is shown as such."""
    return [_note(key, text) for key, text in zip(flat[::2], flat[1::2], strict=True)]


async def list_damaged(port: RedisPort, keys: Keys, *, clear: bool = False) -> list[DamageNote]:
    """What was put aside in a namespace, the latest last. One round trip; one per shard on a Cluster.

    Args:
        port: Connects to Redis.
        keys: Keys of the namespace.
        clear: Whether to delete the notes, and let reconcilers visit the records again. What is still damaged is noted
            again then.

    Raises:
        StoreError: As `RedisPort.call`.
    """
    indexes = [keys.due(shard) for shard in range(SHARDS)]
    found: list[DamageNote] = []
    for group in [[each] for each in indexes] if port.is_cluster else [indexes]:
        found += read_notes(await port.call(DAMAGED, group, ("1" if clear else "",)))
    return sorted(found, key=lambda each: (each.at.timestamp() if each.at else 0.0, each.key))


def _note(key: str, text: str) -> DamageNote:
    try:
        note: Any = json.loads(text)
        return DamageNote(_KINDS[note["kind"]], key, str(note["reason"]), moment(note["at_ms"]))
    except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, OSError):
        return DamageNote("entry", key, "the note cannot be read", None)
