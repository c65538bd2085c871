"""Cycles, longest path and shape of the wait-for graph of one snapshot. Pure functions of it.

``lua/lock_acquire.lua`` finds and breaks deadlocks at the moment they close. This module only describes a snapshot: for
the command line, ``/debug/locks`` and the cluster gauges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mageflow.store import LockHolding, LockSnapshot, LockWait

__all__ = ["WaitGraph"]


@dataclass(frozen=True)
class WaitGraph:
    """Who waits for whom.

    The successors of a wait are the waits that keep its lock from being released: those of the lock's holder that
    happen inside the block that holds the lock. A wait has none if the holder of its lock waits for nothing.
    """

    waits: Mapping[str, LockWait]
    """By request id."""
    holders: Mapping[str, LockHolding]
    """By request id: the lock the request waits for, and who holds it."""
    successors: Mapping[str, Sequence[str]]
    """By request id: request ids."""

    @classmethod
    def of(cls, snapshot: LockSnapshot) -> "WaitGraph":
        """Build the graph of one snapshot."""
        holding_of = {each.resource: each for each in snapshot.holdings}
        waits_of: dict[str, list[LockWait]] = {}
        for wait in snapshot.waits:
            waits_of.setdefault(wait.owner_id, []).append(wait)
        holders = {wait.request_id: holding_of[wait.resource] for wait in snapshot.waits if wait.resource in holding_of}
        successors = {
            request_id: [
                each.request_id for each in waits_of.get(holding.owner_id, []) if holding.token in each.enclosing_tokens
            ]
            for request_id, holding in holders.items()
        }
        return cls({wait.request_id: wait for wait in snapshot.waits}, holders, successors)

    def cycles(self) -> list[list[LockWait]]:
        """Every deadlock in the snapshot, each as the waits around it; normally none, as they are broken at once."""
        found: list[list[LockWait]] = []
        finished: set[str] = set()
        for start in self.waits:
            path: list[str] = []
            index_in_path: dict[str, int] = {}
            stack = [(start, 0)]
            while stack:
                request_id, next_index = stack.pop()
                if next_index == 0:
                    if request_id in finished:
                        continue
                    index_in_path[request_id] = len(path)
                    path.append(request_id)
                following = self.successors.get(request_id, ())
                if next_index < len(following):
                    stack.append((request_id, next_index + 1))
                    target = following[next_index]
                    if target in index_in_path:
                        found.append([self.waits[each] for each in path[index_in_path[target] :]])
                    elif target not in finished:
                        stack.append((target, 0))
                else:
                    finished.add(request_id)
                    path.pop()
                    del index_in_path[request_id]
        return found

    def longest_path(self) -> int:
        """Number of runs in the longest chain of waits, the last holder included; 0 without any wait."""
        lengths: dict[str, int] = {}
        for start in self.waits:
            stack = [start]
            visited: set[str] = set()
            while stack:
                request_id = stack[-1]
                missing = [
                    each for each in self.successors.get(request_id, ()) if each not in lengths and each not in visited
                ]
                if request_id not in lengths and missing:
                    visited.add(request_id)
                    stack.extend(missing)
                    continue
                stack.pop()
                if request_id not in lengths:
                    after = [lengths.get(each, 0) for each in self.successors.get(request_id, ())]
                    lengths[request_id] = 1 + max(after, default=1)
        return max(lengths.values(), default=0)
