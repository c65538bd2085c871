"""Operations of the outbox relay, the heartbeats, the reconciler and the cluster view."""

import time
from collections.abc import Sequence

from mageflow._frozen import frozen
from mageflow.error_text import clipped
from mageflow.errors import SignatureNotFoundError
from mageflow.interceptors import ClockReading, DamageFound
from mageflow.store.keys import SHARDS, RecordKeys
from mageflow.store.paths import MemberPath
from mageflow.store.records import declarations as scripts
from mageflow.store.records.calls import RecordOperations
from mageflow.store.records.census import Census, read_census
from mageflow.store.records.damage import read_notes
from mageflow.store.records.decisions import Inspection
from mageflow.store.records.entries import Acknowledgement
from mageflow.store.records.views import guarded

__all__ = ["Due", "SweepOperations"]


@frozen
class Due:
    """What a reconciler has to look at."""

    keys: list[str]
    """Keys of records."""
    next_seconds: float
    """Until a record that was not due becomes due; a day if there is none."""


class SweepOperations(RecordOperations):
    """Acknowledges what was sent, and finds what nothing else continues."""

    async def acknowledge(self, keys: RecordKeys, sent: Sequence[Acknowledgement]) -> None:
        """Remove entries from an outbox because they were sent, and store the run ids they led to.

        Args:
            keys: The record.
            sent: The entries; one that was admitted, or decided anew, in the meantime is left as it is.
        """
        await self._call(scripts.ACK, keys, *[part for each in sent for part in each])

    async def keep_alive(self, keys: RecordKeys, running: Sequence[tuple[MemberPath, str]] = ()) -> None:
        """Refresh the TTLs of a record whose runs are still going.

        Args:
            keys: Which record.
            running: Path and run id of the members whose task functions run in this process. They are not sent again,
                even if Hatchet does not know their runs.
        """
        await self._call(scripts.ALIVE, keys, *[text for path, run_id in running for text in (str(path), run_id)])

    async def due(self, limit: int, lease_seconds: float) -> Due:
        """Take the keys of records that a reconciler has to look at. One round trip; one per shard on a Cluster.

        Args:
            limit: How many records at most; on a Cluster per shard.
            lease_seconds: For how long no other reconciler takes them.

        Telemetry: the event ``mageflow.store.damaged`` and ``mageflow_store_damaged_total`` for what scripts have found
        damaged since the last call.
        """
        lease = round(lease_seconds * 1000)
        indexes = [self.keys.due(shard) for shard in range(SHARDS)]
        found: list[str] = []
        waits_ms: list[int] = []
        for group in [[each] for each in indexes] if self.port.is_cluster else [indexes]:
            keys, unreported, next_ms = await self.port.call(scripts.DUE, group, (limit, lease))
            found += keys
            waits_ms.append(next_ms)
            for each in read_notes(unreported):
                self._interceptor.event(each.event())
        return Due(found, min(waits_ms) / 1000)

    async def put_aside(self, key: str, reason: str) -> None:
        """Let no reconciler visit a record that cannot be read, and note it for an operator. One round trip.

        A write to the record, or `clear_damaged`, lets reconcilers visit it again. Telemetry: the event
        ``mageflow.store.damaged`` and ``mageflow_store_damaged_total``, once until the note is cleared.

        Args:
            key: An entry of the index of due records.
            reason: What cannot be read.
        """
        try:
            keys = self.keys.parse(key)
        except SignatureNotFoundError:
            return  # the script that reads the index removes what is no key
        reason = clipped(reason, 1000)
        if await self.port.call(scripts.PUT_ASIDE, [keys.due], (key, "record", reason)):
            self._interceptor.event(DamageFound("record", key, reason))

    async def inspect(self, key: str, *, lease_seconds: float, limit: int = 200) -> Inspection:
        """Find the entries of an outbox that were never sent, and the runs that have been silent for the check time.

        Args:
            key: Of the record.
            lease_seconds: For how long the found entries belong to the caller.
            limit: How many entries and how many runs, at most.
        """
        keys = self.keys.parse(key)
        reply = await self._call(scripts.INSPECT, keys, round(lease_seconds * 1000), limit)
        return guarded(keys.record, lambda: Inspection.parse(keys, reply))

    async def lead(self, owner: str, lease_seconds: float) -> float:
        """Take or keep the leader's lease of the namespace.

        Args:
            owner: Names this process.
            lease_seconds: How long the lease lasts from now.

        Returns:
            0.0 if ``owner`` leads now; else the remaining seconds of the current leader's lease.

        Telemetry: the event `ClockReading`, for the answer has the time of the server.
        """
        lease = self.keys.tagged("leader", "leader")
        sent_at, began = time.time(), time.monotonic()
        args = owner, max(1, round(lease_seconds * 1000))
        left_ms, seconds, microseconds = await self.port.call(scripts.LEAD, [lease], args)
        # The server read its clock between the two moments: the middle of them is wrong by half of their distance.
        error = (time.monotonic() - began) / 2
        skew = sent_at + error - int(seconds) - int(microseconds) / 1e6
        self._interceptor.event(ClockReading(skew, error, valid_until=began + lease_seconds))
        return left_ms / 1000

    async def resign(self, owner: str) -> None:
        """Give the leader's lease back, if ``owner`` has it."""
        await self.port.call(scripts.LEAD, [self.keys.tagged("leader", "leader")], (owner, 0))

    async def census(self, turn: int | None = None) -> Census:
        """Counts of everything stored, for the cluster view. One round trip; one per shard on a Cluster.

        Args:
            turn: Number of this reading, for one that reads again and again: each drops the expired records of a
                quarter of the shards, and counts the others'. None drops all.
        """
        return await read_census(self.port, self.keys, turn)
