"""The event stream of a run (``SubscribeToWorkflowEvents``): attempts, ends, and the chunks tasks put.

Every run keeps its newest events, so a subscriber who comes late gets them and then goes live (Hatchet itself is live
only). Chunks of a task are put in the order of their index: each is a separate call and may overtake another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from mageflow.engine.actions import timestamp
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.model import Run, Task, TaskStatus

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

# A chunk that never comes must not hold back the rest for ever.
_GAP_PATIENCE_SECONDS = 1.0
_EVENTS_KEPT_PER_RUN = 10_000
_ENDS = {
    TaskStatus.COMPLETED: pb.RESOURCE_EVENT_TYPE_COMPLETED,
    TaskStatus.FAILED: pb.RESOURCE_EVENT_TYPE_FAILED,
    TaskStatus.CANCELLED: pb.RESOURCE_EVENT_TYPE_CANCELLED,
}


class _Chunks:
    """The reorder buffer of one task's current attempt."""

    def __init__(self) -> None:
        self.next_index = 0
        self.held: dict[int, pb.WorkflowEvent] = {}


class RunEvents:
    """Lists and live subscribers per run, live subscribers per metadata pair."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lists: dict[str, deque[pb.WorkflowEvent]] = {}
        self._live: dict[str, set[asyncio.Queue[pb.WorkflowEvent]]] = {}
        self._by_metadata: dict[tuple[str, str], set[asyncio.Queue[pb.WorkflowEvent]]] = {}
        self._chunks: dict[str, _Chunks] = {}

    def subscribe(self, run: Run) -> asyncio.Queue[pb.WorkflowEvent]:
        """Return a queue with what is kept so far, then live; the last event of a finished run hangs up."""
        queue: asyncio.Queue[pb.WorkflowEvent] = asyncio.Queue()
        for event in self._lists.get(run.id, ()):
            queue.put_nowait(event)
        self._live.setdefault(run.id, set()).add(queue)
        return queue

    def unsubscribe(self, run: Run, queue: asyncio.Queue[pb.WorkflowEvent]) -> None:
        """Forget a subscriber."""
        queues = self._live.get(run.id)
        if queues is not None:
            queues.discard(queue)
            if not queues:
                del self._live[run.id]

    def subscribe_metadata(self, key: str, value: str) -> asyncio.Queue[pb.WorkflowEvent]:
        """Return a live queue of the events of every run that carries this metadata pair."""
        queue: asyncio.Queue[pb.WorkflowEvent] = asyncio.Queue()
        self._by_metadata.setdefault((key, value), set()).add(queue)
        return queue

    def unsubscribe_metadata(self, key: str, value: str, queue: asyncio.Queue[pb.WorkflowEvent]) -> None:
        """Forget a subscriber by metadata."""
        queues = self._by_metadata.get((key, value))
        if queues is not None:
            queues.discard(queue)
            if not queues:
                del self._by_metadata[key, value]

    def attempt_assigned(self, task: Task) -> None:
        """A new attempt: its chunks are counted from 0 again."""
        self._chunks.pop(task.id, None)

    def attempt_started(self, task: Task) -> None:
        """The worker reported the attempt as started."""
        self._emit_step(task, pb.RESOURCE_EVENT_TYPE_STARTED, "")

    def chunk(self, task: Task, index: int | None, text: str) -> None:
        """Take one stream chunk; without an index it goes out as it comes."""
        event = self._step_event(task, pb.RESOURCE_EVENT_TYPE_STREAM, text)
        if index is None:
            self._emit(task.run, event)
            return
        event.event_index = index
        chunks = self._chunks.setdefault(task.id, _Chunks())
        if index < chunks.next_index:
            self._emit(task.run, event)
            return
        chunks.held[index] = event
        self._pass_on(task, chunks)
        if chunks.held:
            self._engine.clock.later(_GAP_PATIENCE_SECONDS, self._give_up_gap, task, chunks, chunks.next_index)

    def task_finished(self, task: Task) -> None:
        """The last event of a task, after all its chunks."""
        chunks = self._chunks.pop(task.id, None)
        if chunks is not None:
            self._flush(task, chunks)
        payload = task.output_text if task.status is TaskStatus.COMPLETED else task.error or ""
        self._emit_step(task, _ENDS[task.status], payload)

    def run_finished(self, run: Run) -> None:
        """The last event of a run; it hangs up."""
        self._emit(
            run,
            pb.WorkflowEvent(
                workflow_run_id=run.id,
                resource_type=pb.RESOURCE_TYPE_WORKFLOW_RUN,
                event_type=_ENDS[run.status],
                resource_id=run.id,
                event_timestamp=timestamp(self._engine.clock.now()),
                hangup=True,
            ),
        )

    def run_reopened(self, run: Run) -> None:
        """A replay begins a new list."""
        self._lists.pop(run.id, None)

    def forget(self, run: Run) -> None:
        """Drop the list of a run the store forgets."""
        self._lists.pop(run.id, None)
        for task in run.tasks.values():
            self._chunks.pop(task.id, None)

    def _pass_on(self, task: Task, chunks: _Chunks) -> None:
        while chunks.next_index in chunks.held:
            self._emit(task.run, chunks.held.pop(chunks.next_index))
            chunks.next_index += 1

    def _give_up_gap(self, task: Task, chunks: _Chunks, index: int) -> None:
        if chunks.held and chunks.next_index == index and self._chunks.get(task.id) is chunks:
            chunks.next_index = min(chunks.held)
            self._pass_on(task, chunks)

    def _flush(self, task: Task, chunks: _Chunks) -> None:
        for index in sorted(chunks.held):
            self._emit(task.run, chunks.held[index])
        chunks.held.clear()

    def _emit_step(self, task: Task, event_type: pb.ResourceEventType, payload: str) -> None:
        self._emit(task.run, self._step_event(task, event_type, payload))

    def _step_event(self, task: Task, event_type: pb.ResourceEventType, payload: str) -> pb.WorkflowEvent:
        return pb.WorkflowEvent(
            workflow_run_id=task.run.id,
            resource_type=pb.RESOURCE_TYPE_STEP_RUN,
            event_type=event_type,
            resource_id=task.id,
            event_timestamp=timestamp(self._engine.clock.now()),
            event_payload=payload,
            task_retries=task.step.retries,
            retry_count=task.retry_count,
        )

    def _emit(self, run: Run, event: pb.WorkflowEvent) -> None:
        kept = self._lists.get(run.id)
        if kept is None:
            kept = self._lists[run.id] = deque(maxlen=_EVENTS_KEPT_PER_RUN)
        kept.append(event)
        for queue in self._live.get(run.id, ()):
            queue.put_nowait(event)
        if self._by_metadata:
            for (key, value), queues in self._by_metadata.items():
                if str(run.metadata.get(key)) == value:
                    for queue in queues:
                        queue.put_nowait(event)
