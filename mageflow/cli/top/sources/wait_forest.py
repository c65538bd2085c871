"""The wait-for graph of a lock report as a forest: who waits behind whom, to any depth."""

from collections.abc import Iterable
from dataclasses import dataclass

from mageflow.locks import Holder, LocksReport, Waiter

__all__ = ["HeldLock", "WaitingRun", "wait_forest"]


_MAX_DEPTH = 40
"""Locks of a longer chain of waits begin again at the left."""


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run that waits, and what it holds meanwhile."""

    waiter: Waiter
    holds: "tuple[HeldLock, ...]"


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock with its holder and its queue."""

    holder: Holder
    waiting: tuple[WaitingRun, ...]


def wait_forest(report: LocksReport) -> tuple[HeldLock, ...]:
    """Every held lock once: those of runs that wait for nothing first, the others below the wait of their holder.

    A cycle has no such beginning: its locks come last, each of them below the one it was reached from.
    """
    held_by: dict[tuple[str, int], list[Holder]] = {}
    for each in report.holders:
        if each.task_run_id:  # a program outside of tasks has no run that could be found among the waits
            held_by.setdefault((each.task_run_id, each.attempt), []).append(each)
    queues: dict[tuple[str, str], list[Waiter]] = {}
    for waiter in report.waiters:
        queues.setdefault((waiter.lock, waiter.resource), []).append(waiter)
    waiting = {(each.task_run_id, each.attempt) for each in report.waiters if each.task_run_id}
    shown: set[tuple[str, str]] = set()

    def grow(holders: Iterable[Holder], depth: int = 0) -> tuple[HeldLock, ...]:
        grown: list[HeldLock] = []
        for holder in holders:
            place = (holder.lock, holder.resource)
            if place in shown:
                continue
            shown.add(place)
            queue = sorted(queues.get(place, ()), key=lambda each: each.position)
            runs = [
                WaitingRun(each, grow(held_by.get((each.task_run_id, each.attempt), ()), depth + 1))
                if depth < _MAX_DEPTH
                else WaitingRun(each, ())
                for each in queue
            ]
            grown.append(HeldLock(holder, tuple(runs)))
        return tuple(grown)

    free = [each for each in report.holders if (each.task_run_id, each.attempt) not in waiting]
    return (*grow(free), *grow(report.holders))
