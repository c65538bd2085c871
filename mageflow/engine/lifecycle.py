"""The state machine of a task: every change of status happens here.

::

    PENDING -> QUEUED -> RUNNING -> COMPLETED | FAILED | CANCELLED
                 ^          |
                 +-- retry -+              durable only: RUNNING -> EVICTED -> QUEUED

Four functions, ``enqueue``, ``assign``, ``requeue`` and ``finish`` (and ``evict`` for durable tasks), take and release
what a task holds: slots, admission, timers. None awaits, so nothing can happen between a check and its change. All
are called on the engine's one event loop.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import TYPE_CHECKING

from mageflow.engine.actions import cancel_action, start_action
from mageflow.engine.documents import check_no_nul
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.model import Json, Task, TaskEvent, TaskStatus, Worker

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_log = logging.getLogger("mageflow.engine.lifecycle")

# Attempts that are not the first go ahead of everything; clients may ask for 1 to 3.
REQUEUED_PRIORITY = 4
# Hatchet's default.
_MAX_REASSIGNMENTS = 10
_DEFAULT_BACKOFF_MAX = 86_400.0
_EVENTS_KEPT_PER_TASK = 1000
# A client's gRPC channel receives at most 4 MiB; the rest of the action needs a little room.
MAX_ACTION_BYTES = 4 * 1024 * 1024 - 4096


class Lifecycle:
    """Transitions of tasks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._finished: deque[Task] = deque()
        self._settling = False

    # -- the four functions ------------------------------------------------------------------------------------

    def enqueue(self, task: Task, *, delay: float = 0.0, event: str = "QUEUED", message: str = "") -> None:
        """PENDING, EVICTED or a retry -> QUEUED. ``delay`` in seconds is shortened by the engine's speed."""
        clock = self._engine.clock
        task.status = TaskStatus.QUEUED
        task.created = True
        task.queued_at = clock.now()
        self.record(task, event, message)
        if delay > 0:
            task.timers["delay"] = clock.later_accelerated(delay, self.offer, task)
        else:
            self.offer(task)

    def assign(self, task: Task, worker: Worker) -> None:
        """QUEUED -> RUNNING on a worker with room: takes slots, starts the deadline, sends the action."""
        task.cancel_timers()
        worker.take(task.step.slots)
        task.holds_slots = True
        self._start(task, worker)
        action = start_action(self._engine, task)
        if action.ByteSize() > MAX_ACTION_BYTES:
            self.finish(
                task,
                TaskStatus.FAILED,
                error=f"action of {action.ByteSize()} bytes exceeds the {MAX_ACTION_BYTES} bytes a worker can receive: "
                "make the input or the parents' outputs smaller",
            )
            return
        worker.send(action)

    def requeue(
        self, task: Task, *, delay: float = 0.0, event: str = "RETRYING", message: str = "", error: str | None = None
    ) -> None:
        """RUNNING -> QUEUED as a new attempt: frees everything, counts the attempt."""
        self.record(task, event, message, error)
        self._release(task)
        task.retry_count += 1
        task.acknowledged = False
        task.priority = REQUEUED_PRIORITY
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
        """Any live status -> terminal: frees everything, tells the worker of a cancellation, wakes who waits."""
        if task.status.is_terminal:
            return
        if status is TaskStatus.CANCELLED:
            self.signal_cancel(task)
        self.record(task, event or _EVENT_OF[status], message, error)
        self._release(task)
        task.status = status
        task.output_text, task.output, task.error, task.skipped = output_text, output, error, skipped
        task.finished_at = self._engine.clock.now()
        if not skipped:
            self._engine.run_events.task_finished(task)
        self._finished.append(task)
        self._settle()

    def evict(self, task: Task, reason: str) -> None:
        """RUNNING -> EVICTED: frees slots and deadline; the task's durable log waits for what it waited for."""
        self.record(task, "DURABLE_EVICTED", reason)
        self._release(task, keep_admission=True)
        task.status = TaskStatus.EVICTED

    # -- batches share the same two ends -------------------------------------------------------------------------

    def assign_in_batch(self, task: Task, worker: Worker) -> None:
        """QUEUED -> RUNNING as an item of a batch, which holds the slots and sends the action."""
        task.cancel_timers()
        self._start(task, worker)

    # -- ends of an attempt --------------------------------------------------------------------------------------

    def attempt_started(self, task: Task) -> None:
        """Take a STARTED event; workers send two per attempt."""
        if not task.acknowledged:
            task.acknowledged = True
            self.record(task, "STARTED")
            self._engine.run_events.attempt_started(task)

    def attempt_completed(self, task: Task, payload: str) -> None:
        """Take a COMPLETED event. Output that is not JSON, or holds a NUL, fails the task for good, as in Hatchet."""
        try:
            check_no_nul(payload, "task output")
            output = json.loads(payload) if payload else {}
        except InvalidRequestError as error:
            self.attempt_failed(task, str(error), retryable=False)
            return
        except ValueError:
            self.attempt_failed(task, "task output is not valid JSON", retryable=False)
            return
        if output is None:
            output = {}
        self.finish(task, TaskStatus.COMPLETED, output_text=payload or "{}", output=output)

    def attempt_failed(
        self,
        task: Task,
        error: str,
        *,
        retryable: bool = True,
        retry_after: float | None = None,
        event: str = "FAILED",
    ) -> None:
        """Take a failed attempt: retry with backoff while retries are left, else fail for good.

        Args:
            task: the running task.
            error: text of the failure; kept only if final.
            retryable: False ends the task whatever retries are left.
            retry_after: seconds the worker asked for; replaces the backoff.
            event: history line of the failure itself.
        """
        if "\0" in error:
            _log.warning(
                "an attempt of task %s (%s) failed with a text that holds the character NUL; Hatchet cannot store it, "
                "and keeps such a run RUNNING until its timeout",
                task.id,
                task.step.action,
            )
        if not retryable or task.app_retries >= task.step.retries:
            self.finish(task, TaskStatus.FAILED, error=error, event=event)
            return
        task.app_retries += 1
        delay = _backoff(task) if retry_after is None else retry_after
        self.record(task, event, "", error)
        self.requeue(task, delay=delay, message=f"retry {task.app_retries} of {task.step.retries}")

    def worker_lost(self, task: Task, reason: str) -> None:
        """Move a task off a worker that is gone; not a failure of the task's own until it happened too often."""
        if task.lost_count >= _MAX_REASSIGNMENTS:
            self.finish(task, TaskStatus.FAILED, error="Task reached its maximum reassignment count")
            return
        task.lost_count += 1
        self.requeue(task, event="REASSIGNED", message=reason)

    # -- pieces --------------------------------------------------------------------------------------------------

    def signal_cancel(self, task: Task) -> None:
        """Tell the task's worker, if it has one, to stop the current attempt."""
        if task.status is TaskStatus.RUNNING and task.worker is not None and task.batch is None:
            # Workers know batches only as a whole: an item of one cannot be stopped.
            task.worker.send(cancel_action(self._engine, task))

    def start_deadline(self, task: Task, seconds: float) -> None:
        """(Re)start the execution timeout, counted from now."""
        task.cancel_timer("deadline")
        task.deadline = self._engine.clock.monotonic() + seconds
        task.timers["deadline"] = self._engine.clock.later(seconds, self._deadline_passed, task)

    def release_slots(self, task: Task) -> None:
        """Free the slots of a task, running or not."""
        if task.holds_slots and task.worker is not None:
            task.worker.give_back(task.step.slots)
            task.holds_slots = False
            self._engine.scheduler.wake()

    def offer(self, task: Task) -> None:
        """Start the schedule timeout of a QUEUED task and ask for admission."""
        task.cancel_timer("delay")
        task.timers["schedule"] = self._engine.clock.later(
            task.step.schedule_timeout, self._schedule_timeout_passed, task
        )
        self._engine.admission.request(task)

    def record(self, task: Task, event: str, message: str = "", error: str | None = None) -> None:
        """Add a line to the task's history, which keeps its newest lines."""
        task.events.append(
            TaskEvent(
                id=self._engine.store.next_number(),
                type=event,
                timestamp=self._engine.clock.now(),
                message=message,
                retry_count=task.retry_count,
                error=error,
                worker_id=task.worker.id if task.worker else None,
            )
        )
        del task.events[:-_EVENTS_KEPT_PER_TASK]

    def _start(self, task: Task, worker: Worker) -> None:
        clock = self._engine.clock
        task.status = TaskStatus.RUNNING
        task.worker = worker
        worker.tasks.add(task)
        task.acknowledged = False
        task.started_at = clock.now()
        task.finished_at = None
        if task.step.is_durable:
            self._engine.durable.invocation_started(task)
        if task.run.started_at is None:
            task.run.started_at = task.started_at
        if task.run.sticky_worker_id is None:
            task.run.sticky_worker_id = worker.id
        self.record(task, "ASSIGNED", f"assigned to worker {worker.name}")
        self._engine.run_events.attempt_assigned(task)
        self.start_deadline(task, task.step.timeout)

    def _release(self, task: Task, *, keep_admission: bool = False) -> None:
        task.cancel_timers()
        task.deadline = None
        self._engine.graph.release(task)
        self._engine.scheduler.remove(task)
        self.release_slots(task)
        if not keep_admission:
            self._engine.admission.release(task)
        if task.worker is not None:
            task.worker.tasks.discard(task)
            task.worker = None

    def _settle(self) -> None:
        """Let the consequences of finished tasks happen, one task after the other instead of recursively."""
        if self._settling:
            return
        self._settling = True
        try:
            while self._finished:
                task = self._finished.popleft()
                self._engine.graph.task_finished(task)
                self._engine.runs.task_finished(task)
        finally:
            self._settling = False

    def _deadline_passed(self, task: Task) -> None:
        self.signal_cancel(task)
        error = f"Task exceeded timeout of {task.step.timeout_text}"
        if task.batch is not None:
            self._engine.batches.timed_out(task.batch, error)
            return
        self.attempt_failed(task, error, event="TIMED_OUT")

    def _schedule_timeout_passed(self, task: Task) -> None:
        task.expired = True
        self.finish(
            task,
            TaskStatus.CANCELLED,
            event="SCHEDULING_TIMED_OUT",
            message="no worker took the task within its schedule timeout",
        )


_EVENT_OF = {
    TaskStatus.COMPLETED: "FINISHED",
    TaskStatus.FAILED: "FAILED",
    TaskStatus.CANCELLED: "CANCELLED",
}


def _backoff(task: Task) -> float:
    """Return the seconds to wait before this retry; counted after the increment of ``app_retries``."""
    factor = task.step.backoff_factor
    if not factor:
        return 0.0
    limit = task.step.backoff_max or _DEFAULT_BACKOFF_MAX
    try:
        return min(limit, factor**task.app_retries)
    except OverflowError:
        return limit
