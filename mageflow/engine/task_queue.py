"""The tasks that wait for a worker.

Tasks with equal needs (the same definition and the same wishes about workers) wait in one lane, ordered by priority and
then by arrival. ``offer`` offers the first task of every lane, best first. When a task cannot be placed, its lane is
out for that call, because the tasks behind it need the same. So one call costs the number of lanes, not of tasks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from heapq import heappop, heappush

from mageflow.engine.clock import Clock
from mageflow.engine.model import Task
from mageflow.engine.signals import Signal


class _Entry:
    """A task's place in a lane. To remove the task, ``task`` is unset; the heap drops the entry later."""

    __slots__ = ("key", "task")

    def __init__(self, task: Task, number: int) -> None:
        self.key = (-task.priority, number)
        self.task: Task | None = task

    def __lt__(self, other: _Entry) -> bool:
        return self.key < other.key


class TaskQueue:
    """The lanes, and the wake-up call of those who empty them.

    Args:
        clock: for the wake-up call.

    Attributes:
        pass_due: sent once after one or more calls of ``wake``: waiting tasks should be offered again.
    """

    def __init__(self, clock: Clock) -> None:
        self.pass_due = Signal[[]]()
        self._clock = clock
        self._lanes: dict[Hashable, list[_Entry]] = {}
        self._entries: dict[Task, _Entry] = {}
        self._arrivals = itertools.count()
        self._awake = False

    def add(self, task: Task) -> None:
        """Put an admitted task in its lane."""
        entry = self._entries[task] = _Entry(task, next(self._arrivals))
        heappush(self._lanes.setdefault(_lane_key(task), []), entry)
        self.wake()

    def remove(self, task: Task) -> None:
        """Take a task out of its lane, if it is in one."""
        entry = self._entries.pop(task, None)
        if entry is not None:
            entry.task = None

    def wake(self) -> None:
        """Send ``pass_due`` after the current callback of the event loop. Calls before that count as one."""
        if not self._awake:
            self._awake = True
            self._clock.soon(self._send_pass_due)

    def offer(self, place: Callable[[Task], bool]) -> None:
        """Offer waiting tasks, best first, until every lane is empty or refused.

        Args:
            place: takes a task out of the queue and returns True, or returns False when the task cannot start now.
        """
        heads: list[tuple[_Entry, Hashable]] = []
        for key in list(self._lanes):
            self._push_head(heads, key)
        while heads:
            entry, key = heappop(heads)
            # Starting another task may have removed this one.
            if entry.task is None or place(entry.task):
                self._push_head(heads, key)

    def queued_by_action(self) -> dict[str, int]:
        """Return the number of waiting tasks per action."""
        counts: dict[str, int] = {}
        for task in self._entries:
            counts[task.definition.action] = counts.get(task.definition.action, 0) + 1
        return counts

    def _send_pass_due(self) -> None:
        self._awake = False
        self.pass_due.send()

    def _push_head(self, heads: list[tuple[_Entry, Hashable]], key: Hashable) -> None:
        lane = self._lanes[key]
        while lane and lane[0].task is None:
            heappop(lane)
        if lane:
            heappush(heads, (lane[0], key))
        else:
            del self._lanes[key]


def _lane_key(task: Task) -> Hashable:
    """Return what decides which workers can take the task."""
    run, trigger = task.run, task.run.trigger
    # The worker of a sticky run changes while its tasks wait, so the run has a lane of its own.
    bound_to = run.id if run.version.sticky else trigger.desired_worker_id
    labels = frozenset(
        (key, wish.SerializeToString(deterministic=True)) for key, wish in trigger.desired_labels.items()
    )
    return (task.definition.id, bound_to, labels, task.rate_limit_needs)
