"""What can be shown of the locks: a typed document for people, ``--json`` and ``/debug/locks``.

Keys of resources are the program's data and are shown as a hash, unless asked for as they are.
This file owns the document. It refuses to draw it.
"""

from dataclasses import asdict, dataclass
from typing import Any

from mageflow.interceptors import ResourceKey
from mageflow.locks.waitgraph import WaitGraph
from mageflow.store import LockOwner, LockSnapshot
from mageflow.telemetry.spans import hashed

__all__ = ["CycleMember", "Holder", "LocksReport", "Waiter", "shown_key"]


@dataclass(frozen=True, slots=True)
class Holder:
    """A run that holds a lock."""

    lock: str
    """The declared name of the resource."""
    resource: str
    """The key within it: hashed unless raw keys were asked for; empty for the resource as a whole."""
    task: str
    run_id: str
    task_run_id: str
    attempt: int
    worker: str
    trace_id: str
    held_s: float
    token: int
    lease_remaining_s: float
    """Negative: the owner is gone and nobody has asked for the lock since."""
    waiters: int


@dataclass(frozen=True, slots=True)
class Waiter:
    """A run that waits for a lock."""

    request: str
    lock: str
    resource: str
    task: str
    run_id: str
    task_run_id: str
    attempt: int
    worker: str
    trace_id: str
    waited_s: float
    position: int
    """From 1, the next to be served."""
    holder_task: str
    holder_run_id: str
    blocked_by: tuple[str, ...]
    """Requests of the holder that keep it from releasing: the next step towards the end of the line."""


@dataclass(frozen=True, slots=True)
class CycleMember:
    """One run of a deadlock, and what it waits for."""

    task: str
    run_id: str
    lock: str
    resource: str


@dataclass(frozen=True, slots=True)
class LocksReport:
    """Every lock and every wait at one instant."""

    at: float
    """Epoch seconds by the clock of Redis."""
    holders: tuple[Holder, ...]
    waiters: tuple[Waiter, ...]
    """By lock and key; within one, in the order they will be served."""
    cycles: tuple[tuple[CycleMember, ...], ...]
    """Normally empty: a deadlock is broken in the instant it closes."""
    longest_path: int
    """How many runs stand in the longest line of waiting, the last holder included."""
    holders_total: int
    waiters_total: int
    runs_total: int
    """Runs that hold or wait."""

    @classmethod
    def of(cls, snapshot: LockSnapshot, *, raw_keys: bool = False) -> "LocksReport":
        """Read one snapshot."""
        graph = WaitGraph.of(snapshot)

        def shown(resource: ResourceKey) -> str:
            return resource.key if raw_keys else shown_key(resource.key)

        positions: dict[ResourceKey, int] = {}
        waiters: list[Waiter] = []
        for wait in snapshot.waits:
            positions[wait.resource] = positions.get(wait.resource, 0) + 1
            holding = graph.holders.get(wait.request_id)
            holder = holding.owner if holding is not None else LockOwner()
            owner = wait.owner
            waiters.append(
                Waiter(
                    request=wait.request_id,
                    lock=wait.resource.name,
                    resource=shown(wait.resource),
                    task=owner.task,
                    run_id=owner.run_id,
                    task_run_id=owner.task_run_id,
                    attempt=owner.attempt,
                    worker=owner.worker,
                    trace_id=owner.trace_id,
                    waited_s=wait.seconds,
                    position=positions[wait.resource],
                    holder_task=holder.task,
                    holder_run_id=holder.run_id,
                    blocked_by=tuple(graph.successors.get(wait.request_id, ())),
                )
            )
        holders = tuple(
            Holder(
                lock=each.resource.name,
                resource=shown(each.resource),
                task=each.owner.task,
                run_id=each.owner.run_id,
                task_run_id=each.owner.task_run_id,
                attempt=each.owner.attempt,
                worker=each.owner.worker,
                trace_id=each.owner.trace_id,
                held_s=each.seconds,
                token=each.token,
                lease_remaining_s=each.lease_remaining_seconds,
                waiters=positions.get(each.resource, 0),
            )
            for each in snapshot.holdings
        )
        cycles = tuple(
            tuple(
                CycleMember(each.owner.task, each.owner.run_id, each.resource.name, shown(each.resource))
                for each in cycle
            )
            for cycle in graph.cycles()
        )
        return cls(
            at=snapshot.at,
            holders=holders,
            waiters=tuple(waiters),
            cycles=cycles,
            longest_path=graph.longest_path(),
            holders_total=snapshot.locks_total,
            waiters_total=snapshot.waits_total,
            runs_total=snapshot.owners_total,
        )

    @property
    def is_truncated(self) -> bool:
        """Whether there is more than is shown; cycles and the longest path are then those of what is shown."""
        return len(self.holders) < self.holders_total or len(self.waiters) < self.waiters_total

    def orphaned(self, lease_seconds: float) -> dict[str, int]:
        """Held locks whose owner has missed a renewal or has run out of its lease, by the resource's name."""
        # Renewals come three times in a lease: with less than half of it left, at least one has not come.
        late: dict[str, int] = {}
        for each in self.holders:
            if each.lease_remaining_s < lease_seconds / 2:
                late[each.lock] = late.get(each.lock, 0) + 1
        return late

    def document(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {**asdict(self), "is_truncated": self.is_truncated}


def shown_key(key: str) -> str:
    """A key as it may be shown: the hash that spans and logs carry; empty stays empty."""
    return hashed(key, "hash") if key else ""
