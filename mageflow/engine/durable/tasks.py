"""What a durable task may ask for: waits, child runs, memos, eviction; and what brings an evicted one back."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from mageflow.engine.contracts import v1_dispatcher_pb2 as pb
from mageflow.engine.durable.delivery import Delivery
from mageflow.engine.durable.log import DurableLog, Entry, EntryKind
from mageflow.engine.durable.waits import fingerprint_of, is_satisfied, payload_of
from mageflow.engine.durations import parse_duration
from mageflow.engine.errors import PreconditionError, UnknownWorkflowError
from mageflow.engine.model import Run, Task, TaskStatus
from mageflow.engine.trigger import Trigger

if TYPE_CHECKING:
    from mageflow.engine.core import Engine
    from mageflow.engine.durable.waits import WaitCondition
    from mageflow.engine.events import EventRecord

# A completion sent this shortly before an eviction may have crossed it on the way.
_CROSSING_SECONDS = 1.0


class DurableStream:
    """One worker's open stream: responses to be written."""

    def __init__(self) -> None:
        self.responses: asyncio.Queue[pb.DurableTaskResponse | None] = asyncio.Queue()


class Durable:
    """All durable tasks and worker streams."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._streams: dict[str, DurableStream] = {}
        self._delivery = Delivery(engine.clock, self._send)
        self._by_child: dict[str, list[Entry]] = {}
        self._by_event: dict[str, dict[Entry, None]] = {}

    # -- streams -------------------------------------------------------------------------------------------------

    def bind(self, worker_id: str, stream: DurableStream) -> None:
        """Make this the stream of a worker; a newer one replaces an older one."""
        self._streams[worker_id] = stream

    def close(self, stream: DurableStream) -> None:
        """Forget a stream that ended."""
        for worker_id in [each for each, bound in self._streams.items() if bound is stream]:
            del self._streams[worker_id]

    # -- invocations ---------------------------------------------------------------------------------------------

    def invocation_started(self, task: Task) -> None:
        """A durable task was assigned: a new invocation begins at node 0."""
        task.invocation += 1
        if task.durable is None:
            task.durable = DurableLog(task=task)
        task.durable.begin_invocation()

    def current_log(self, task_id: str, invocation: int) -> DurableLog | None:
        """Return the task's log when this is its running invocation, else None: the worker must give it up."""
        task = self._engine.store.tasks.get(task_id)
        if task is None or task.durable is None or task.invocation != invocation:
            return None
        return task.durable if task.status is TaskStatus.RUNNING else None

    def evict(self, log: DurableLog, reason: str) -> None:
        """Free the task's slots; queue it again at once when what it waits for is there already."""
        task = log.task
        self._engine.lifecycle.evict(task, reason)
        now = self._engine.clock.monotonic()
        for entry in log.waiting:
            sent_at = log.delivered.get(entry)
            unseen = sent_at is None or now - sent_at < _CROSSING_SECONDS
            if entry.satisfied and unseen:
                self.restore(task)
                return

    def restore(self, task: Task) -> bool:
        """Queue an evicted task; return whether it was evicted."""
        if task.status is not TaskStatus.EVICTED:
            return False
        self._engine.lifecycle.enqueue(task, event="DURABLE_RESTORING")
        return True

    def branch(self, task: Task, node: int, parent_branch: int | None) -> int:
        """Run a finished task again from a node of a branch (default: the active one); return the new branch's id.

        Raises:
            PreconditionError: not a durable task that ran, unknown branch, or the task is not finished.
        """
        log = task.durable
        if log is None:
            raise PreconditionError(f"task {task.id} has no durable log")
        if not task.status.is_terminal:
            raise PreconditionError(f"task {task.id} is still {task.status.public}: cancel it first")
        parent = parent_branch or log.active
        if parent not in log.branches:
            raise PreconditionError(f"task {task.id} has no branch {parent}")
        branch_id = log.branch_off(parent, node)
        self._engine.runs.replay(task.id)
        return branch_id

    def forget(self, run: Run) -> None:
        """Drop timers and event waits of a run the store forgets."""
        for task in run.tasks.values():
            if task.durable is not None:
                task.durable.cancel_fallback()
                for entry in task.durable.entries.values():
                    self._stop_waiting(entry)
        self._by_child.pop(run.id, None)

    # -- requests of a running invocation ------------------------------------------------------------------------

    def wait_for(self, log: DurableLog, conditions: list[WaitCondition]) -> Entry:
        """Return the entry of a wait: its timers start and stored events are looked through when it is new.

        Raises:
            NonDeterminismError: the log has something else at this node.
            InvalidRequestError: a malformed duration.
        """
        for each in conditions:
            if each.sleep_for is not None:
                parse_duration(each.sleep_for)
        entry, is_new = log.next_entry(EntryKind.WAIT, fingerprint_of(conditions))
        if is_new:
            entry.conditions = conditions
            for each in conditions:
                self._begin(entry, each)
            self._look_back(entry)
            self._check_wait(entry)
        return entry

    def spawn(self, log: DurableLog, trigger: Trigger) -> Entry:
        """Return the entry of a child run: the one this spawn key has on the active branch, or a new one.

        Raises:
            NonDeterminismError: an earlier spawn under the same index was of something else.
            RequestError: the child cannot be started.
        """
        self._engine.runs.check(trigger)
        fingerprint = json.dumps([trigger.name, trigger.input], sort_keys=True).encode()
        key = trigger.child_key or f"#{trigger.child_index or 0}"
        known = log.spawned(key, None if trigger.child_key else fingerprint)
        if known is not None:
            return known
        entry, is_new = log.next_entry(EntryKind.RUN, fingerprint)
        log.spawns[key] = entry
        if is_new:
            try:
                self._start_child(entry, trigger)
            except Exception:
                # The node was not used after all: a retry of the call finds it free.
                del log.spawns[key], log.entries[entry.branch, entry.node]
                log.node -= 1
                raise
        return entry

    def memo(self, log: DurableLog, key: bytes) -> Entry:
        """Return the entry of a memo, satisfied when it has a result.

        Raises:
            NonDeterminismError: the log has something else at this node.
        """
        return log.next_entry(EntryKind.MEMO, key)[0]

    def complete_memo(self, log: DurableLog, branch: int, node: int, payload: bytes) -> None:
        """Store the result of a memo; the first one stays."""
        entry = log.entries.get((branch, node))
        if entry is not None and entry.kind is EntryKind.MEMO and not entry.satisfied:
            entry.satisfied, entry.payload = True, payload

    def waiting_for(self, log: DurableLog, branch: int, node: int) -> None:
        """The worker waits for this entry from now on."""
        entry = log.entries.get((branch, node))
        if entry is not None:
            self._delivery.declared(log, entry)
            self._delivery.advance(log)

    # -- what satisfies entries ----------------------------------------------------------------------------------

    def event_happened(self, event: EventRecord) -> None:
        """Feed an event to the waits that listen to its key."""
        for entry in list(self._by_event.get(event.key, ())):
            for each in entry.conditions:
                if each.data is None and each.accepts(event):
                    each.data = event.payload
            self._check_wait(entry)

    def run_finished(self, run: Run) -> None:
        """Hand a finished child's result to the tasks that spawned it."""
        for entry in self._by_child.pop(run.id, ()):
            entry.payload, entry.error = _child_result(run)
            self._satisfied(entry)

    def _start_child(self, entry: Entry, trigger: Trigger) -> None:
        """Start the child of a new entry; one of a workflow nobody registered is waited for in vain."""
        try:
            child = self._engine.runs.start(trigger)
        except UnknownWorkflowError:
            entry.child_id = self._engine.runs.never(trigger)
            return
        entry.child_id = child.id
        self._by_child.setdefault(child.id, []).append(entry)
        if child.done:
            self.run_finished(child)

    def _begin(self, entry: Entry, condition: WaitCondition) -> None:
        if condition.sleep_for is not None:
            seconds = parse_duration(condition.sleep_for)
            condition.timer = self._engine.clock.later_accelerated(seconds, self._sleep_over, entry, condition)
        if condition.event_key is not None:
            self._by_event.setdefault(condition.event_key, {})[entry] = None

    def _look_back(self, entry: Entry) -> None:
        for each in entry.conditions:
            if each.since is None:
                continue
            for event in self._engine.events.records.values():
                if event.at >= each.since and each.accepts(event):
                    each.data = event.payload
                    break

    def _sleep_over(self, entry: Entry, condition: WaitCondition) -> None:
        # The SDK parses this text: it must be the condition's own.
        condition.timer = None
        condition.data = {"sleep_duration": condition.sleep_for}
        self._check_wait(entry)

    def _check_wait(self, entry: Entry) -> None:
        if not entry.satisfied and is_satisfied(entry.conditions):
            entry.payload = payload_of(entry.conditions)
            self._stop_waiting(entry)
            self._satisfied(entry)

    def _stop_waiting(self, entry: Entry) -> None:
        for each in entry.conditions:
            if each.timer is not None:
                each.timer.cancel()
                each.timer = None
            listeners = self._by_event.get(each.event_key) if each.event_key is not None else None
            if each.event_key is not None and listeners is not None:
                listeners.pop(entry, None)
                if not listeners:
                    del self._by_event[each.event_key]

    def _satisfied(self, entry: Entry) -> None:
        entry.satisfied = True
        log = entry.task.durable
        if log is None:
            return
        self._delivery.satisfied(log, entry)
        if entry.task.status is TaskStatus.RUNNING:
            self._delivery.advance(log)
        elif entry in log.waiting:
            self.restore(entry.task)

    def _send(self, entry: Entry, response: pb.DurableTaskResponse) -> bool:
        worker = entry.task.worker
        stream = self._streams.get(worker.id) if worker is not None else None
        if stream is None:
            # The worker declares what it waits for again when it reconnects.
            return False
        stream.responses.put_nowait(response)
        return True


def _child_result(run: Run) -> tuple[bytes, str | None]:
    if run.status is TaskStatus.COMPLETED:
        return json.dumps(run.output).encode(), None
    return b"", run.error or "task was cancelled"
