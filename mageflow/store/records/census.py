"""Counts of everything that one namespace stores, for the cluster view."""

from collections.abc import Mapping
from typing import Final, get_args

from mageflow._frozen import frozen
from mageflow.signatures import Status
from mageflow.store.keys import SHARDS, Keys
from mageflow.store.records.declarations import CENSUS
from mageflow.store.redis.port import RedisPort
from mageflow.types import SignatureKind

__all__ = ["Census", "read_census"]

TURNS: Final = 4
"""In how many readings each shard once drops its expired records."""


@frozen
class Census:
    """Counts of everything that one namespace stores.

    Attributes:
        signatures: Stored records by kind and status.
        active: Flows that have begun and not ended, by kind.
        oldest_seconds: Age of the oldest of them, by kind; 0 when there is none.
        items: Items of the swarms that have not ended: ``pending``, ``running``, ``done`` and ``failed``.
    """

    signatures: Mapping[tuple[str, str], float]
    active: Mapping[str, float]
    oldest_seconds: Mapping[str, float]
    items: Mapping[str, float]


async def read_census(port: RedisPort, keys: Keys, turn: int | None = None) -> Census:
    """Read the counts. One round trip; one per shard on a Cluster.

    Args:
        port: Runs the script.
        keys: Of the namespace.
        turn: Number of this reading, for one that reads again and again: it drops the expired records of a quarter of
            the shards, so that an idle cluster costs few commands. One is counted for three readings more at most.
            None drops all.

    Raises:
        StoreError: As `RedisPort.call`.
    """
    pairs = [(str(kind), str(status)) for kind in get_args(SignatureKind) for status in Status]
    names = [f"{kind}:{status}" for kind, status in pairs]
    drops = ["1" if turn is None or shard % TURNS == turn % TURNS else "0" for shard in range(SHARDS)]
    shards = [keys.stats(shard) for shard in range(SHARDS)]
    groups = [([each], drop) for each, drop in zip(shards, drops, strict=True)]
    if not port.is_cluster:
        groups = [(shards, "".join(drops))]
    signatures = dict.fromkeys(pairs, 0.0)
    active: dict[str, float] = {"chain": 0.0, "swarm": 0.0}
    oldest: dict[str, float] = {"chain": 0.0, "swarm": 0.0}
    items: dict[str, float] = {"pending": 0.0, "running": 0.0, "done": 0.0, "failed": 0.0}
    for group, drop in groups:
        counts, chains, swarms, states = await port.call(CENSUS, group, (drop, *names))
        for pair, count in zip(pairs, counts, strict=True):
            signatures[pair] += count
        for kind, (count, age) in zip(active, (chains, swarms), strict=True):
            active[kind] += count
            oldest[kind] = max(oldest[kind], age / 1000)
        for state, count in zip(items, states, strict=True):
            items[state] += count
    return Census(signatures, active, oldest, items)
