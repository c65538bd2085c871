"""Concurrency limits: how many runs or tasks with the same key may be admitted at once, and what happens to the rest.

A pool belongs to one declared limit and one value of its key expression. A place counts as taken from admission on, not
from the assignment to a worker.

===========================  =====================================================================
strategy                     when the pool is full
===========================  =====================================================================
GROUP_ROUND_ROBIN            the newcomer waits; other keys are not affected
QUEUE_NEWEST                 the same
CANCEL_IN_PROGRESS           the oldest holder is cancelled, the newcomer takes its place
CANCEL_NEWEST, DROP_NEWEST   the newcomer is cancelled
CANCEL_QUEUED_EXCEPT_NEWEST  the newcomer waits, and all that waited before are cancelled
CANCEL_QUEUED_EXCEPT_OLDEST  the newcomer is cancelled if another one waits, else it waits
===========================  =====================================================================
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.expressions import ExpressionError, evaluate, evaluate_integer
from mageflow.engine.model import Run, Task
from mageflow.errors import EngineError

Owner: TypeAlias = Run | Task

_CANCEL_NEWCOMER = (pb.CANCEL_NEWEST, pb.DROP_NEWEST)


class ConcurrencyKeyError(EngineError):
    """A key or limit expression fails or yields the wrong type. The task fails with the text of this error."""


@dataclass(slots=True, kw_only=True, eq=False)
class Hold:
    """One owner's place in a pool, admitted or waiting. ``order`` is negative priority, then arrival."""

    pool: Pool
    owner: Owner
    order: tuple[int, int]
    admitted: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Pool:
    """The holders of one key, and those that wait, in their order."""

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
        cancel: called with an owner that a strategy cancels.
        granted: called with a waiting hold that is admitted.
    """

    def __init__(self, *, cancel: Callable[[Owner], object], granted: Callable[[Hold], None]) -> None:
        self._cancel = cancel
        self._granted = granted
        self._pools: dict[tuple[str, ...], Pool] = {}
        self._arrivals = 0

    def request(self, owner: Owner, entry: pb.Concurrency, scope: tuple[str, ...], priority: int) -> Hold:
        """Return the owner's new hold, admitted or waiting. The strategy may have cancelled the owner.

        Args:
            owner: the run or task.
            entry: the declared limit.
            scope: what the limit is declared on. A limit shared across the tenant has its own scope.
            priority: a higher one is admitted earlier.

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
        self._apply_strategy(entry.limit_strategy, hold)
        return hold

    def release(self, hold: Hold) -> None:
        """Give up a place, admitted or waiting, and admit the next."""
        pool = hold.pool
        if hold.admitted:
            hold.admitted = False
            pool.holders.remove(hold)
        else:
            # Orders are unique, and thousands may wait: a binary search finds the hold.
            index = bisect_left(pool.waiting, hold.order, key=_order)
            if index < len(pool.waiting) and pool.waiting[index] is hold:
                del pool.waiting[index]
        self._admit_waiting(pool)

    def _apply_strategy(self, strategy: pb.ConcurrencyLimitStrategy, hold: Hold) -> None:
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
        # When the last holder was cancelled to make room, the empty pool was deleted.
        self._pools[hold.pool.key] = hold.pool

    def _admit_waiting(self, pool: Pool) -> None:
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
        return max(1, evaluate_integer(entry.max_runs_expression, variables))
    except ExpressionError as error:
        raise ConcurrencyKeyError(f"failed to parse step expression ({entry.max_runs_expression}): {error}") from error
