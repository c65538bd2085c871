"""What a durable task can request: waits, child runs, memos and eviction; and what brings an evicted task back."""

from __future__ import annotations

import asyncio
import json

from mageflow.engine.clock import Clock
from mageflow.engine.contracts import v1_dispatcher_pb2 as pb
from mageflow.engine.durable.delivery import Delivery
from mageflow.engine.durable.log import DurableLog, Entry, EntryKind
from mageflow.engine.durable.waits import WaitCondition, fingerprint_of, is_satisfied, payload_of
from mageflow.engine.durations import parse_duration
from mageflow.engine.errors import UnknownWorkflowError
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.model import Run, Task, TaskStatus, UserEvent
from mageflow.engine.repository import Repository
from mageflow.engine.runs import Runs
from mageflow.engine.trigger import Trigger

# The worker may not have received a completion that was sent this shortly before its request for eviction.
_IN_FLIGHT_SECONDS = 1.0


class DurableStream:
    """One worker's open stream: the responses that are to be written."""

    def __init__(self) -> None:
        self.responses: asyncio.Queue[pb.DurableTaskResponse | None] = asyncio.Queue()


class DurableTasks:
    """The logs of all durable tasks, and the streams of their workers.

    Args:
        clock: for sleeps.
        repository: the tasks, and the events that a wait looks back at.
        lifecycle: evicts tasks and queues them again.
        runs: starts child runs.
    """

    def __init__(self, clock: Clock, repository: Repository, lifecycle: Lifecycle, runs: Runs) -> None:
        self._clock = clock
        self._repository = repository
        self._lifecycle = lifecycle
        self._runs = runs
        self._delivery = Delivery(clock, self._send)
        self._streams: dict[str, DurableStream] = {}
        self._logs: dict[Task, DurableLog] = {}
        self._by_child: dict[str, list[Entry]] = {}
        self._by_event_key: dict[str, dict[Entry, None]] = {}

    # -- streams -------------------------------------------------------------------------------------------------

    def bind(self, worker_id: str, stream: DurableStream) -> None:
        """Make this the stream of a worker. It replaces an older one."""
        self._streams[worker_id] = stream

    def close(self, stream: DurableStream) -> None:
        """Forget a stream that ended."""
        for worker_id in [each for each, bound in self._streams.items() if bound is stream]:
            del self._streams[worker_id]

    # -- invocations ---------------------------------------------------------------------------------------------

    def task_assigned(self, task: Task) -> None:
        """Begin a new invocation of a durable task, at node 0 of its log."""
        if task.definition.is_durable:
            task.invocation += 1
            self._logs.setdefault(task, DurableLog(task=task)).begin_invocation()

    def log_of(self, task: Task) -> DurableLog | None:
        """Return the log of a task, or None if it is not durable or never ran."""
        return self._logs.get(task)

    def current_log(self, task_id: str, invocation: int) -> DurableLog | None:
        """Return the task's log if this is its running invocation, else None: the worker must give it up."""
        task = self._repository.tasks.get(task_id)
        if task is None or task.invocation != invocation or task.status is not TaskStatus.RUNNING:
            return None
        return self._logs.get(task)

    def evict(self, log: DurableLog, reason: str) -> None:
        """Free the task's slots. Queue it again at once if something that it waits for is there already."""
        task = log.task
        self._lifecycle.evict(task, reason)
        now = self._clock.monotonic()
        for entry in log.waiting:
            sent_at = log.delivered.get(entry)
            unseen = sent_at is None or now - sent_at < _IN_FLIGHT_SECONDS
            if entry.satisfied and unseen:
                self.restore(task)
                return

    def restore(self, task: Task) -> bool:
        """Queue an evicted task; return whether it was evicted."""
        if task.status is not TaskStatus.EVICTED:
            return False
        self._lifecycle.enqueue(task, event="DURABLE_RESTORING")
        return True

    def forget(self, run: Run) -> None:
        """Drop the logs, timers and event waits of a run that the repository forgot."""
        for task in run.tasks.values():
            log = self._logs.pop(task, None)
            if log is not None:
                log.cancel_fallback()
                for entry in log.entries.values():
                    self._stop_waiting(entry)
        self._by_child.pop(run.id, None)

    # -- requests of a running invocation ------------------------------------------------------------------------

    def wait_for(self, log: DurableLog, conditions: list[WaitCondition]) -> Entry:
        """Return the entry of a wait. A new one starts its timers and looks at stored events.

        Raises:
            NonDeterminismError: the log has something else at this node.
            InvalidRequestError: a duration is malformed.
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
        """Return the entry of a child run: the one that this child key has on the active branch, or a new one.

        Raises:
            NonDeterminismError: an earlier spawn under the same index was of something else.
            RequestError: the child cannot be started.
        """
        self._runs.check(trigger)
        fingerprint = json.dumps([trigger.workflow_name, trigger.input], sort_keys=True).encode()
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
                # The node was not used: a retry of the request finds it free.
                del log.spawns[key], log.entries[entry.branch, entry.node]
                log.node -= 1
                raise
        return entry

    def memo(self, log: DurableLog, key: bytes) -> Entry:
        """Return the entry of a memo. It is satisfied if it has a result.

        Raises:
            NonDeterminismError: the log has something else at this node.
        """
        return log.next_entry(EntryKind.MEMO, key)[0]

    def complete_memo(self, log: DurableLog, branch: int, node: int, payload: bytes) -> None:
        """Store the result of a memo. The first result stays."""
        entry = log.entries.get((branch, node))
        if entry is not None and entry.kind is EntryKind.MEMO and not entry.satisfied:
            entry.satisfied, entry.payload = True, payload

    def waiting_for(self, log: DurableLog, branch: int, node: int) -> None:
        """Note that the worker waits for this entry, and send what can be sent."""
        entry = log.entries.get((branch, node))
        if entry is not None:
            self._delivery.declared(log, entry)
            self._delivery.advance(log)

    # -- what satisfies entries ----------------------------------------------------------------------------------

    def event_pushed(self, event: UserEvent) -> None:
        """Evaluate the waits that listen to this event key."""
        for entry in list(self._by_event_key.get(event.key, ())):
            for each in entry.conditions:
                if each.data is None and each.accepts(event):
                    each.data = event.payload
            self._check_wait(entry)

    def run_finished(self, run: Run) -> None:
        """Give the result of a finished child run to the tasks that started it."""
        for entry in self._by_child.pop(run.id, ()):
            entry.payload, entry.error = _child_result(run)
            self._satisfied(entry)

    def _start_child(self, entry: Entry, trigger: Trigger) -> None:
        """Start the child of a new entry. A child of an unregistered workflow never ends."""
        try:
            child = self._runs.start(trigger)
        except UnknownWorkflowError:
            entry.child_id = self._runs.id_of_unknown_workflow(trigger)
            return
        entry.child_id = child.id
        self._by_child.setdefault(child.id, []).append(entry)
        if child.done:
            self.run_finished(child)

    def _begin(self, entry: Entry, condition: WaitCondition) -> None:
        if condition.sleep_for is not None:
            seconds = parse_duration(condition.sleep_for)
            condition.timer = self._clock.later_accelerated(seconds, self._sleep_over, entry, condition)
        if condition.event_key is not None:
            self._by_event_key.setdefault(condition.event_key, {})[entry] = None

    def _look_back(self, entry: Entry) -> None:
        for each in entry.conditions:
            if each.since is None:
                continue
            for event in self._repository.events.values():
                if event.occurred_at >= each.since and each.accepts(event):
                    each.data = event.payload
                    break

    def _sleep_over(self, entry: Entry, condition: WaitCondition) -> None:
        condition.timer = None
        # The SDK parses this text, so it must be the one that it sent.
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
            listeners = self._by_event_key.get(each.event_key) if each.event_key is not None else None
            if each.event_key is not None and listeners is not None:
                listeners.pop(entry, None)
                if not listeners:
                    del self._by_event_key[each.event_key]

    def _satisfied(self, entry: Entry) -> None:
        entry.satisfied = True
        log = self._logs.get(entry.task)
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
            # After it has reconnected, the worker declares again what it waits for.
            return False
        stream.responses.put_nowait(response)
        return True


def _child_result(run: Run) -> tuple[bytes, str | None]:
    if run.status is TaskStatus.COMPLETED:
        return json.dumps(run.output).encode(), None
    return b"", run.error or "task was cancelled"
