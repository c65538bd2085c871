"""The report of all locks: a typed document for ``mageflow locks``, its ``--json`` and ``/debug/locks``.

Resource keys are the program's data: the report shows a hash of them unless raw keys are requested. This file owns the
document; the command line draws it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mageflow._frozen import frozen
from mageflow.interceptors import ResourceKey
from mageflow.locks.waitgraph import WaitGraph
from mageflow.store import LockHolding, LockOwner, LockSnapshot
from mageflow.telemetry.spans import hashed

__all__ = ["CycleMember", "Holder", "LocksReport", "Waiter", "shown_key"]


@frozen
class _Run:
    """A run that holds or waits, as its `LockOwner` describes it."""

    task: str
    run_id: str
    task_run_id: str
    attempt: int
    worker: str
    trace_id: str


@frozen
class Holder(_Run):
    """A run that holds a lock."""

    lock: str
    """The declared name of the resource."""
    resource: str
    """The key within it: hashed unless raw keys were requested; empty for the resource as a whole."""
    held_s: float
    token: int
    lease_remaining_s: float
    """Seconds. Negative: the owner is gone, and no request for the lock has come since."""
    waiters: int
    """How many requests wait for this lock."""


@frozen
class Waiter(_Run):
    """A run that waits for a lock."""

    request: str
    """Its id."""
    lock: str
    resource: str
    waited_s: float
    position: int
    """From 1, the next to be served."""
    holder_task: str
    holder_run_id: str
    blocked_by: tuple[str, ...]
    """Ids of the holder's own waiting requests that keep it from releasing."""


@frozen
class CycleMember:
    """One run of a deadlock, and what it waits for."""

    task: str
    run_id: str
    lock: str
    resource: str


@frozen
class LocksReport:
    """Every lock and every wait at one instant."""

    at: float
    """Epoch seconds by the clock of Redis."""
    holders: tuple[Holder, ...]
    waiters: tuple[Waiter, ...]
    """By lock and key; within one, in the order they will be served."""
    cycles: tuple[tuple[CycleMember, ...], ...]
    """Normally empty: a deadlock is broken at the moment it closes."""
    longest_path: int
    """Number of runs in the longest chain of waits, the last holder included."""
    holders_total: int
    waiters_total: int
    runs_total: int
    """Runs that hold or wait."""

    @classmethod
    def of(cls, snapshot: LockSnapshot, *, raw_keys: bool = False) -> "LocksReport":
        """Make the report of one snapshot."""
        graph = WaitGraph.of(snapshot)

        def shown(resource: ResourceKey) -> str:
            return resource.key if raw_keys else shown_key(resource.key)

        waiters = _waiters(snapshot, graph, shown)
        waiting = Counter(wait.resource for wait in snapshot.waits)
        holders = tuple(_holder(each, shown(each.resource), waiting[each.resource]) for each in snapshot.holdings)
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
            waiters=waiters,
            cycles=cycles,
            longest_path=graph.longest_path(),
            holders_total=snapshot.locks_total,
            waiters_total=snapshot.waits_total,
            runs_total=snapshot.owners_total,
        )

    @property
    def is_truncated(self) -> bool:
        """Whether there are more locks or waits than shown. Cycles and the longest path cover only what is shown."""
        return len(self.holders) < self.holders_total or len(self.waiters) < self.waiters_total

    def orphaned(self, lease_seconds: float) -> dict[str, int]:
        """Number of held locks whose owner has missed a renewal or whose lease has run out, by resource name."""
        # A process renews three times in a lease: with less than half of it left, at least one renewal is missing.
        late: dict[str, int] = {}
        for each in self.holders:
            if each.lease_remaining_s < lease_seconds / 2:
                late[each.lock] = late.get(each.lock, 0) + 1
        return late

    def document(self) -> dict[str, Any]:
        """The report as data for JSON."""
        return {**asdict(self), "is_truncated": self.is_truncated}


def shown_key(key: str) -> str:
    """The hash of a key, as spans and logs show it; an empty key stays empty."""
    return hashed(key, "hash") if key else ""


def _waiters(snapshot: LockSnapshot, graph: WaitGraph, shown: Callable[[ResourceKey], str]) -> tuple[Waiter, ...]:
    positions: dict[ResourceKey, int] = {}
    waiters: list[Waiter] = []
    for wait in snapshot.waits:
        positions[wait.resource] = positions.get(wait.resource, 0) + 1
        holding = graph.holders.get(wait.request_id)
        holder = holding.owner if holding is not None else LockOwner()
        waiters.append(
            Waiter(
                *_run(wait.owner),
                request=wait.request_id,
                lock=wait.resource.name,
                resource=shown(wait.resource),
                waited_s=wait.seconds,
                position=positions[wait.resource],
                holder_task=holder.task,
                holder_run_id=holder.run_id,
                blocked_by=tuple(graph.successors.get(wait.request_id, ())),
            )
        )
    return tuple(waiters)


def _holder(holding: LockHolding, shown: str, waiters: int) -> Holder:
    return Holder(
        *_run(holding.owner),
        lock=holding.resource.name,
        resource=shown,
        held_s=holding.seconds,
        token=holding.token,
        lease_remaining_s=holding.lease_remaining_seconds,
        waiters=waiters,
    )


def _run(owner: LockOwner) -> tuple[str, str, str, int, str, str]:
    """The fields of `_Run`, in their order."""
    return owner.task, owner.run_id, owner.task_run_id, owner.attempt, owner.worker, owner.trace_id
