"""Which queued task goes to which worker, and when.

Tasks with equal needs (same step, same placement wishes) wait in one lane, ordered by priority, then first come first
served. A pass of the pump offers the best head of all lanes; a lane whose head finds no worker is out for this pass.
So a pass costs the number of lanes, not the number of waiting tasks.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from mageflow.engine.labels import label_score
from mageflow.engine.model import Task, TaskStatus, Worker

if TYPE_CHECKING:
    from mageflow.engine.contracts import trigger_pb2
    from mageflow.engine.core import Engine


_log = logging.getLogger("mageflow.engine.scheduler")


class _Entry:
    """A task's place in a lane; taking the task out only unsets it, the heap drops it when it comes up."""

    __slots__ = ("key", "task")

    def __init__(self, task: Task, number: int) -> None:
        self.key = (-task.priority, number)
        self.task: Task | None = task

    def __lt__(self, other: _Entry) -> bool:
        return self.key < other.key


class Scheduler:
    """The queue and the pump."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lanes: dict[Hashable, list[_Entry]] = {}
        self._workers_by_action: dict[str, set[Worker]] = {}
        self._awake = False
        self._assignments = 0

    def add(self, task: Task) -> None:
        """Put an admitted task in its lane."""
        entry = _Entry(task, self._engine.store.next_number())
        task.queue_entry = entry
        heappush(self._lanes.setdefault(_lane_key(task), []), entry)
        self.wake()

    def remove(self, task: Task) -> None:
        """Take a task out of its lane, if it is in one."""
        entry = task.queue_entry
        if isinstance(entry, _Entry):
            entry.task = None
        task.queue_entry = None

    def worker_joined(self, worker: Worker) -> None:
        """Make a worker a candidate for its actions."""
        for action in worker.actions:
            self._workers_by_action.setdefault(action, set()).add(worker)
        self.wake()

    def worker_left(self, worker: Worker) -> None:
        """Stop considering a worker."""
        for action in worker.actions:
            candidates = self._workers_by_action.get(action)
            if candidates is not None:
                candidates.discard(worker)
                if not candidates:
                    del self._workers_by_action[action]

    def wake(self) -> None:
        """Run the pump once the current step of the event loop is done; calls in between are one pass."""
        if not self._awake:
            self._awake = True
            self._engine.clock.soon(self._pump)

    def queued_by_action(self) -> dict[str, int]:
        """Return the number of waiting tasks per action."""
        counts: dict[str, int] = {}
        for lane in self._lanes.values():
            for entry in lane:
                if entry.task is not None:
                    counts[entry.task.step.action] = counts.get(entry.task.step.action, 0) + 1
        return counts

    def find_worker(self, task: Task) -> Worker | None:
        """Return the eligible worker with the highest label score; ties go to the one idle longest."""
        candidates = self._workers_by_action.get(task.step.action)
        if not candidates:
            return None
        wanted = _wanted_labels(task)
        best: tuple[int, int] | None = None
        chosen: Worker | None = None
        for worker in candidates:
            if not worker.is_live or worker.paused or not worker.has_room(task.step.slots):
                continue
            score = label_score(wanted, worker.labels) if wanted else 0
            if score is None:
                continue
            rank = (score, -worker.last_assigned)
            if best is None or rank > best:
                best, chosen = rank, worker
        return self._stick(task, candidates, chosen)

    def note_assignment(self, worker: Worker) -> None:
        """Move a worker to the end of the round-robin."""
        self._assignments += 1
        worker.last_assigned = self._assignments

    def _stick(self, task: Task, candidates: set[Worker], chosen: Worker | None) -> Worker | None:
        """Prefer (SOFT) or demand (HARD) the worker that the run is bound to."""
        sticky = task.run.version.sticky
        wanted_id = task.run.trigger.desired_worker_id or (task.run.sticky_worker_id if sticky else None)
        if wanted_id is None:
            return chosen
        bound = next((worker for worker in candidates if worker.id == wanted_id), None)
        if bound is not None and bound.is_live and not bound.paused and bound.has_room(task.step.slots):
            return bound
        return None if sticky == "HARD" else chosen

    def _pump(self) -> None:
        self._awake = False
        self._engine.batches.place()
        heads: list[tuple[_Entry, Hashable]] = []
        for key in list(self._lanes):
            self._push_head(heads, key)
        while heads:
            entry, key = heappop(heads)
            task = entry.task
            if task is None or task.status is not TaskStatus.QUEUED:
                self._push_head(heads, key)
                continue
            worker = self.find_worker(task)
            if worker is None or not self._engine.rate_limits.take(task):
                continue
            self.remove(task)
            self.note_assignment(worker)
            try:
                self._engine.lifecycle.assign(task, worker)
            except Exception as error:  # noqa: BLE001 - logged, and it ends the task
                # One task that cannot be sent must not keep all others from being sent, now and in every later pass.
                _log.exception("task %s of %s cannot be sent to a worker", task.id, task.run.workflow.name)
                self._engine.lifecycle.finish(task, TaskStatus.FAILED, error=f"the local engine failed: {error!r}")
            self._push_head(heads, key)

    def _push_head(self, heads: list[tuple[_Entry, Hashable]], key: Hashable) -> None:
        lane = self._lanes[key]
        while lane and lane[0].task is None:
            heappop(lane)
        if lane:
            heappush(heads, (lane[0], key))
        else:
            del self._lanes[key]


def _wanted_labels(task: Task) -> Mapping[str, trigger_pb2.DesiredWorkerLabels]:
    return task.run.trigger.desired_labels or task.step.labels


def _lane_key(task: Task) -> Hashable:
    """Return what decides eligibility: tasks with the same key can stand in for one another."""
    run, wished = task.run, task.run.trigger
    # What a sticky run is bound to changes while its tasks wait, so it stands for itself.
    bound = run.id if run.version.sticky else wished.desired_worker_id
    labels = frozenset((key, wish.SerializeToString(deterministic=True)) for key, wish in wished.desired_labels.items())
    return (task.step.id, bound, labels, tuple(task.rate_needs))
