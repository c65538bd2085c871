"""Concurrency pools: at most so many runs or tasks with the same key at once, and what happens to the rest.

A pool is one declared entry and one value of its key expression. What counts as used is admission, not assignment.

===========================  =====================================================================
strategy                     when the pool is full
===========================  =====================================================================
GROUP_ROUND_ROBIN            the newcomer waits; pools of other keys go on independently
QUEUE_NEWEST                 as GROUP_ROUND_ROBIN
CANCEL_IN_PROGRESS           the oldest holder is cancelled, the newcomer takes its place
CANCEL_NEWEST, DROP_NEWEST   the newcomer is cancelled
CANCEL_QUEUED_EXCEPT_NEWEST  the newcomer waits, those that waited before are cancelled
CANCEL_QUEUED_EXCEPT_OLDEST  the newcomer is cancelled if another waits already, else it waits
===========================  =====================================================================
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.expressions import ExpressionError, evaluate
from mageflow.engine.model import Run, Task
from mageflow.errors import EngineError

Owner: TypeAlias = Run | Task

_CANCEL_NEWCOMER = (pb.CANCEL_NEWEST, pb.DROP_NEWEST)


class ConcurrencyKeyError(EngineError):
    """A key or limit expression failed or yields the wrong type; the text is what the task fails with."""


@dataclass(slots=True, kw_only=True, eq=False)
class Hold:
    """One owner's place in a pool, admitted or waiting."""

    pool: Pool
    owner: Owner
    order: tuple[int, int]
    admitted: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Pool:
    """The holders and the waiting of one key, the waiting in their order."""

    key: tuple[str, ...]
    limit: int = 1
    holders: list[Hold] = field(default_factory=list["Hold"])
    waiting: list[Hold] = field(default_factory=list["Hold"])

    @property
    def has_room(self) -> bool:
        """Whether one more can be admitted."""
        return len(self.holders) < self.limit


class Concurrency:
    """All pools.

    Args:
        cancel: called with the owner whose work a strategy ends.
        granted: called with a hold whose turn has come.
    """

    def __init__(self, *, cancel: Callable[[Owner], object], granted: Callable[[Hold], None]) -> None:
        self._cancel = cancel
        self._granted = granted
        self._pools: dict[tuple[str, ...], Pool] = {}
        self._arrivals = 0

    def request(self, owner: Owner, entry: pb.Concurrency, scope: tuple[str, ...], priority: int) -> Hold:
        """Return the owner's new hold, admitted or waiting. The owner may have been cancelled on the way.

        Args:
            owner: the run or task.
            entry: the declared limit.
            scope: what the entry is declared on; entries shared across the tenant have a scope of their own.
            priority: higher waits less.

        Raises:
            ConcurrencyKeyError: the entry's expressions fail.
        """
        run = owner if isinstance(owner, Run) else owner.run
        variables = {"input": run.input, "additional_metadata": run.metadata}
        if entry.is_tenant_scoped:
            scope = ("tenant", entry.name)
        key = (*scope, _key(entry, variables))
        pool = self._pools.setdefault(key, Pool(key=key))
        pool.limit = _limit(entry, variables)
        self._arrivals += 1
        hold = Hold(pool=pool, owner=owner, order=(-priority, self._arrivals))
        if pool.has_room and not pool.waiting:
            self._admit(hold)
            return hold
        self._apply(entry.limit_strategy, hold)
        return hold

    def release(self, hold: Hold) -> None:
        """Give up a place, admitted or waiting, and let the next in."""
        pool = hold.pool
        if hold.admitted:
            hold.admitted = False
            pool.holders.remove(hold)
        else:
            # Orders are unique; by a search, as thousands may wait.
            place = bisect_left(pool.waiting, hold.order, key=_order)
            if place < len(pool.waiting) and pool.waiting[place] is hold:
                del pool.waiting[place]
        self._let_in(pool)

    def _apply(self, strategy: pb.ConcurrencyLimitStrategy, hold: Hold) -> None:
        pool = hold.pool
        if strategy in _CANCEL_NEWCOMER:
            self._cancel(hold.owner)
            return
        if strategy == pb.CANCEL_IN_PROGRESS:
            while pool.holders and not pool.has_room:
                self._cancel(pool.holders[0].owner)
            self._admit(hold)
            return
        if strategy == pb.CANCEL_QUEUED_EXCEPT_OLDEST and pool.waiting:
            self._cancel(hold.owner)
            return
        if strategy == pb.CANCEL_QUEUED_EXCEPT_NEWEST:
            for other in list(pool.waiting):
                self._cancel(other.owner)
        insort(pool.waiting, hold, key=_order)

    def _admit(self, hold: Hold) -> None:
        hold.admitted = True
        hold.pool.holders.append(hold)
        # Cancelling the last holder to make room dropped the empty pool.
        self._pools[hold.pool.key] = hold.pool

    def _let_in(self, pool: Pool) -> None:
        while pool.waiting and pool.has_room:
            hold = pool.waiting.pop(0)
            self._admit(hold)
            self._granted(hold)
        if not pool.holders and not pool.waiting and self._pools.get(pool.key) is pool:
            del self._pools[pool.key]


def _order(hold: Hold) -> tuple[int, int]:
    return hold.order


def _key(entry: pb.Concurrency, variables: Mapping[str, object]) -> str:
    try:
        value = evaluate(entry.expression, variables)
    except ExpressionError as error:
        raise ConcurrencyKeyError(f"failed to parse step expression ({entry.expression}): {error}") from error
    if not isinstance(value, str):
        raise ConcurrencyKeyError(
            f"failed to parse step expression ({entry.expression}): must yield a string, not {value!r}"
        )
    return value


def _limit(entry: pb.Concurrency, variables: Mapping[str, object]) -> int:
    if not entry.max_runs_expression:
        return max(1, entry.max_runs)
    try:
        value = evaluate(entry.max_runs_expression, variables)
    except ExpressionError as error:
        raise ConcurrencyKeyError(f"failed to parse step expression ({entry.max_runs_expression}): {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConcurrencyKeyError(
            f"failed to parse step expression ({entry.max_runs_expression}): must yield a number, not {value!r}"
        )
    return max(1, int(value))
