"""Cycles, longest path and shape of a wait-for graph at one instant. Pure; decides nothing.

The decision that breaks a deadlock is made by ``lua/lock_acquire.lua`` in the instant the cycle closes. This is for
looking at a picture of the locks: the command line, ``/debug/locks`` and the gauges of the cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mageflow.store import LockHolding, LockPicture, LockWait

__all__ = ["WaitGraph"]


@dataclass(frozen=True)
class WaitGraph:
    """Who waits for whom.

    A wait's successors are the waits that keep its lock's holder from releasing it: those of the holder that happen
    inside the block that holds the lock. A wait whose lock's holder waits for nothing has none.
    """

    waits: Mapping[str, LockWait]
    holders: Mapping[str, LockHolding]
    """By request: who holds what it waits for."""
    successors: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, picture: LockPicture) -> "WaitGraph":
        """Build the graph of one picture."""
        by_resource = {each.resource: each for each in picture.holdings}
        by_owner: dict[str, list[LockWait]] = {}
        for wait in picture.waits:
            by_owner.setdefault(wait.owner_id, []).append(wait)
        holders = {wait.request: by_resource[wait.resource] for wait in picture.waits if wait.resource in by_resource}
        successors = {
            request: [each.request for each in by_owner.get(holding.owner_id, []) if holding.token in each.under]
            for request, holding in holders.items()
        }
        return cls({wait.request: wait for wait in picture.waits}, holders, successors)

    def cycles(self) -> list[list[LockWait]]:
        """Every deadlock in the picture, each as the waits around it; normally none, as they are broken at once."""
        found: list[list[LockWait]] = []
        done: set[str] = set()
        for start in self.waits:
            path: list[str] = []
            places: dict[str, int] = {}
            stack = [(start, 0)]
            while stack:
                request, next_index = stack.pop()
                if next_index == 0:
                    if request in done:
                        continue
                    places[request] = len(path)
                    path.append(request)
                following = self.successors.get(request, ())
                if next_index < len(following):
                    stack.append((request, next_index + 1))
                    target = following[next_index]
                    if target in places:
                        found.append([self.waits[each] for each in path[places[target] :]])
                    elif target not in done:
                        stack.append((target, 0))
                else:
                    done.add(request)
                    path.pop()
                    del places[request]
        return found

    def longest_path(self) -> int:
        """How many runs stand in the longest line of waiting, the last holder included; 0 when nobody waits."""
        lengths: dict[str, int] = {}
        for start in self.waits:
            stack = [start]
            open_: set[str] = set()
            while stack:
                request = stack[-1]
                missing = [
                    each for each in self.successors.get(request, ()) if each not in lengths and each not in open_
                ]
                if request not in lengths and missing:
                    open_.add(request)
                    stack.extend(missing)
                    continue
                stack.pop()
                if request not in lengths:
                    after = [lengths.get(each, 0) for each in self.successors.get(request, ())]
                    lengths[request] = 1 + max(after, default=1)
        return max(lengths.values(), default=0)
