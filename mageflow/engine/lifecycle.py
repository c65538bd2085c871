"""The state machine of a task. Every change of a task's status happens here.

::

    PENDING -> QUEUED -> RUNNING -> COMPLETED | FAILED | CANCELLED
                 ^          |
                 +-- retry -+              durable tasks only: RUNNING -> EVICTED -> QUEUED

No method awaits, and all are called on the engine's one event loop, so nothing happens between a check and the change
that follows it.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import timedelta

from mageflow.engine.actions import Actions
from mageflow.engine.clock import Clock
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import Batch, Task, TaskEvent, TaskStatus, Worker
from mageflow.engine.parsing import check_no_nul
from mageflow.engine.run_events import RunEvents
from mageflow.engine.signals import Signal
from mageflow.engine.values import Json
from mageflow.engine.worker_pool import WorkerPool

_log = logging.getLogger("mageflow.engine.lifecycle")

# Later attempts go before everything else. Clients may ask for 1 to 3.
_RETRY_PRIORITY = 4
# Hatchet's default.
_MAX_REASSIGNMENTS = 10
_DEFAULT_BACKOFF_MAX = 86_400.0
_EVENTS_KEPT_PER_TASK = 1000
# A client's gRPC channel receives at most 4 MiB.
_MAX_ACTION_BYTES = 4 * 1024 * 1024


class Lifecycle:
    """The transitions of tasks, and the signals with which other parts react to them.

    Args:
        clock: for times and the delay before a retry.
        pool: the slots of workers.
        run_events: the event stream that clients subscribe to.
        actions: builds the messages to workers.

    Attributes:
        queued: a QUEUED task needs everything that it must be granted before it may start.
        assigned: a task became RUNNING; its action is not sent yet.
        released: a task ended or begins a new attempt; every part gives back what the task holds there.
        finished: a task reached a terminal status. Sent for one task at a time: what a receiver finishes is reported
            after all receivers have been called.
    """

    def __init__(self, clock: Clock, pool: WorkerPool, run_events: RunEvents, actions: Actions) -> None:
        self.queued = Signal[[Task]]()
        self.assigned = Signal[[Task]]()
        self.released = Signal[[Task]]()
        self.finished = Signal[[Task]]()
        self._clock = clock
        self._pool = pool
        self._run_events = run_events
        self._actions = actions
        self._event_ids = itertools.count(1)
        self._unreported: deque[Task] = deque()
        self._reporting = False

    # -- transitions ---------------------------------------------------------------------------------------------

    def enqueue(self, task: Task, *, delay: float = 0.0, event: str = "QUEUED") -> None:
        """Change PENDING, EVICTED or a new attempt to QUEUED.

        Args:
            task: the task.
            delay: seconds before the task asks for admission, shortened by the engine's speed.
            event: type of the line in the task's history.
        """
        task.status = TaskStatus.QUEUED
        self.create(task)
        task.queued_at = self._clock.now()
        if delay > 0:
            task.timers["delay"] = self._clock.later_accelerated(delay, self._ask_for_admission, task, event)
        else:
            self._ask_for_admission(task, event)

    def assign(self, task: Task, worker: Worker) -> None:
        """Change QUEUED to RUNNING on a worker with enough free slots: occupy the slots and send the action."""
        task.cancel_timers()
        self._pool.occupy(worker, task.definition.slots)
        task.holds_slots = True
        self._start(task, worker)
        self._send_start(worker, self._actions.start(task), [task])

    def assign_batch(self, batch: Batch, worker: Worker) -> None:
        """Change all items of a batch from QUEUED to RUNNING. The batch occupies the slots of one task."""
        self._pool.occupy(worker, batch.definition.slots)
        for task in batch.items.values():
            task.cancel_timers()
            self._start(task, worker)
        self._send_start(worker, self._actions.start_batch(batch), list(batch.items.values()))

    def requeue(self, task: Task, *, delay: float = 0.0, event: str = "RETRYING", message: str = "") -> None:
        """Change RUNNING to QUEUED as a new attempt. The task gives back everything it holds.

        Args:
            task: the task.
            delay: seconds before the new attempt asks for admission.
            event: type of the line in the task's history, which belongs to the new attempt.
            message: text of that line.
        """
        self._release(task)
        task.retry_count += 1
        self.record(task, event, message)
        task.acknowledged = False
        task.priority = _RETRY_PRIORITY
        self.enqueue(task, delay=delay)

    def finish(
        self,
        task: Task,
        status: TaskStatus,
        *,
        output_text: str = "",
        output: Json = None,
        error: str | None = None,
        event: str | None = None,
        message: str = "",
        skipped: bool = False,
    ) -> None:
        """Change any live status to a terminal one. A task that has ended stays as it is.

        Args:
            task: the task.
            status: COMPLETED, FAILED or CANCELLED. The worker of a cancelled task is sent a cancellation.
            output_text: the output as JSON text; empty for None.
            output: the same as a value.
            error: text of the failure.
            event: type of the line in the task's history; by default it follows from ``status``.
            message: text of that line.
            skipped: whether the task ended without running. Its end is not in the run's event stream.
        """
        if task.status.is_terminal:
            return
        if status is TaskStatus.CANCELLED:
            self.send_cancel(task)
        self._record_end(task, event or _EVENT_TYPES[status], message, error, output_text)
        self._release(task)
        task.status = status
        task.output_text, task.output, task.error, task.skipped = output_text, output, error, skipped
        task.finished_at = self._clock.now()
        if not skipped:
            self._run_events.task_finished(task)
        self._unreported.append(task)
        self._report()

    def cancel(self, tasks: Iterable[Task], message: str) -> list[Task]:
        """Cancel those of the tasks that are live, and return them.

        The on_failure task is cancelled last: it sees that the others ended without a failure and skips itself.
        """
        live = [task for task in tasks if not task.status.is_terminal]
        for task in sorted(live, key=lambda each: each.definition.is_on_failure):
            self.finish(task, TaskStatus.CANCELLED, message=message)
        return live

    def evict(self, task: Task, reason: str) -> None:
        """Change RUNNING to EVICTED: free slots and deadline. The task keeps what admission granted."""
        self.record(task, "DURABLE_EVICTED", reason)
        self._leave_worker(task)
        task.status = TaskStatus.EVICTED

    def reset(self, task: Task) -> None:
        """Change a terminal status to PENDING, for a replay: a new attempt with all retries."""
        self.record(task, "RETRIED_BY_USER", "Task was replayed, resetting task result.")
        task.retry_count += 1
        task.failures = task.reassignments = 0
        task.status = TaskStatus.PENDING
        task.output, task.output_text, task.error, task.skipped = None, "", None, False
        task.expired = False
        task.finished_at = task.started_at = None
        task.acknowledged = False
        task.condition_data = {}
        task.queued_at = None
        task.created = not task.definition.is_on_failure

    # -- reports about an attempt --------------------------------------------------------------------------------

    def attempt_started(self, task: Task) -> None:
        """Note that the worker started the attempt. Workers report it twice."""
        if not task.acknowledged:
            task.acknowledged = True
            self.record(task, "STARTED")
            self._run_events.attempt_started(task)

    def attempt_completed(self, task: Task, output_text: str) -> None:
        """Finish a task with its output; empty text and ``null`` are None.

        Output that is not JSON, or holds a NUL, fails the task for good, as in Hatchet.
        """
        try:
            check_no_nul(output_text, "task output")
            output = json.loads(output_text) if output_text else None
        except InvalidRequestError as error:
            self.attempt_failed(task, str(error), retryable=False)
            return
        except ValueError:
            self.attempt_failed(task, "task output is not valid JSON", retryable=False)
            return
        self.finish(task, TaskStatus.COMPLETED, output_text="" if output is None else output_text, output=output)

    def attempt_failed(
        self,
        task: Task,
        error: str,
        *,
        retryable: bool = True,
        retry_after: float | None = None,
        event: str = "FAILED",
    ) -> None:
        """Retry a task with backoff while retries are left, else fail it.

        Args:
            task: the running task.
            error: text of the failure. The task keeps it only when no retry follows.
            retryable: False fails the task although retries are left.
            retry_after: seconds that the worker asked for, instead of the backoff.
            event: type of the line in the task's history.
        """
        if "\0" in error:
            _log.warning(
                "an attempt of task %s (%s) failed with a text that holds the character NUL; Hatchet cannot store it, "
                "and keeps such a run RUNNING until its timeout",
                task.id,
                task.definition.action,
            )
        if not retryable or task.failures >= task.definition.retries:
            self.finish(task, TaskStatus.FAILED, error=error, event=event)
            return
        task.failures += 1
        delay = _backoff(task) if retry_after is None else retry_after
        self._record_end(task, event, "", error)
        message = f"This is retry number {task.failures}."
        if delay > 0:
            due = self._clock.now() + timedelta(seconds=delay)
            message += f" Retrying in {delay:g}s ({due:%Y-%m-%dT%H:%M:%SZ})."
        self.requeue(task, delay=delay, message=message)

    def worker_lost(self, task: Task, reason: str) -> None:
        """Requeue a task whose worker is gone. This costs no retry, but fails the task after 10 times."""
        if task.reassignments >= _MAX_REASSIGNMENTS:
            self.finish(task, TaskStatus.FAILED, error="Task reached its maximum reassignment count")
            return
        task.reassignments += 1
        self.requeue(task, event="REASSIGNED", message=reason)

    # -- what the other parts need ---------------------------------------------------------------------------------

    def create(self, task: Task) -> None:
        """List a task from now on, if it is not listed yet. In Hatchet a task exists when its parents have ended."""
        if not task.created:
            task.created = True
            task.inserted_at = self._clock.now()

    def resume(self, task: Task) -> None:
        """Let a QUEUED task go on whose workflow is not paused any more."""
        task.cancel_timer("pause")
        self.queued.send(task)

    def send_cancel(self, task: Task) -> None:
        """Ask the task's worker, if it has one, to stop the current attempt."""
        # A worker cannot stop one item of a batch.
        if task.status is TaskStatus.RUNNING and task.worker is not None and task.batch is None:
            task.worker.send(self._actions.cancel(task))

    def release_slots(self, task: Task) -> None:
        """Free the slots of a task, which may go on running."""
        if task.holds_slots and task.worker is not None:
            task.holds_slots = False
            self._pool.free(task.worker, task.definition.slots)

    def record(self, task: Task, event: str, message: str = "", error: str | None = None) -> None:
        """Add a line to the task's history, which keeps the newest 1,000 lines."""
        task.events.append(
            TaskEvent(
                id=next(self._event_ids),
                type=event,
                timestamp=self._clock.now(),
                message=message,
                retry_count=task.retry_count,
                error=error,
                worker_id=task.worker.id if task.worker and event not in _WITHOUT_WORKER else None,
            )
        )
        del task.events[:-_EVENTS_KEPT_PER_TASK]

    def _record_end(self, task: Task, event: str, message: str, error: str | None, output: str = "") -> None:
        """Add the line of the end of an attempt. Hatchet writes the text of a timeout as message, not as error."""
        if event == "TIMED_OUT":
            self.record(task, event, error or "")
        else:
            self.record(task, event, message, error)
        if event == "FINISHED":
            task.events[-1].output = output

    def _ask_for_admission(self, task: Task, event: str) -> None:
        task.cancel_timer("delay")
        task.queued_at = self._clock.now()
        self.record(task, event)
        self.queued.send(task)

    def _start(self, task: Task, worker: Worker) -> None:
        task.status = TaskStatus.RUNNING
        task.worker = worker
        worker.tasks.add(task)
        task.acknowledged = False
        task.started_at = self._clock.now()
        task.finished_at = None
        if task.run.started_at is None:
            task.run.started_at = task.started_at
        if task.run.sticky_worker_id is None:
            task.run.sticky_worker_id = worker.id
        self.record(task, "ASSIGNED")
        self.record(task, "SENT_TO_WORKER", "Sent task run to the assigned worker")
        self._run_events.attempt_assigned(task)
        self.assigned.send(task)

    def _send_start(self, worker: Worker, action: pb.AssignedAction, tasks: list[Task]) -> None:
        """Send an action that starts these tasks. Fail them if it is too large: it would break the worker's stream."""
        size = action.ByteSize()
        if size <= _MAX_ACTION_BYTES:
            worker.send(action)
            return
        error = (
            f"action of {size} bytes exceeds the {_MAX_ACTION_BYTES} bytes a worker can receive: make the input or the "
            "parents' outputs smaller"
        )
        for task in tasks:
            self.finish(task, TaskStatus.FAILED, error=error)

    def _release(self, task: Task) -> None:
        self._leave_worker(task)
        self.released.send(task)

    def _leave_worker(self, task: Task) -> None:
        task.cancel_timers()
        task.deadline = None
        self.release_slots(task)
        if task.worker is not None:
            task.worker.tasks.discard(task)
            task.worker = None

    def _report(self) -> None:
        """Send ``finished`` for one task after the other, instead of recursively."""
        if self._reporting:
            return
        self._reporting = True
        try:
            while self._unreported:
                self.finished.send(self._unreported.popleft())
        finally:
            self._reporting = False


# In Hatchet these lines name no worker, although the attempt had one.
_WITHOUT_WORKER = frozenset({"CANCELLED", "FAILED", "TIMED_OUT", "SLOT_RELEASED"})

_EVENT_TYPES: Mapping[TaskStatus, str] = {
    TaskStatus.COMPLETED: "FINISHED",
    TaskStatus.FAILED: "FAILED",
    TaskStatus.CANCELLED: "CANCELLED",
}


def _backoff(task: Task) -> float:
    """Return the seconds to wait before the next attempt, after ``failures`` was counted."""
    factor = task.definition.backoff_factor
    if not factor:
        return 0.0
    limit = task.definition.backoff_max or _DEFAULT_BACKOFF_MAX
    try:
        return min(limit, factor**task.failures)
    except OverflowError:
        return limit
