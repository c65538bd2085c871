"""The event stream of a run (``SubscribeToWorkflowEvents``): attempts, ends, and the stream chunks of tasks.

A run keeps its newest events. A late subscriber gets those first and then live events; Hatchet itself sends live events
only. Each chunk is a separate call and may overtake another one, so the chunks of a task are sorted by their index.
"""

from __future__ import annotations

import asyncio
from collections import deque

from mageflow.engine.clock import Clock
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.formats import timestamp
from mageflow.engine.model import Run, Task, TaskStatus

# After this time, later chunks are sent although one before them is missing.
_GAP_TIMEOUT_SECONDS = 1.0
_EVENTS_KEPT_PER_RUN = 10_000
_ENDS = {
    TaskStatus.COMPLETED: pb.RESOURCE_EVENT_TYPE_COMPLETED,
    TaskStatus.FAILED: pb.RESOURCE_EVENT_TYPE_FAILED,
    TaskStatus.CANCELLED: pb.RESOURCE_EVENT_TYPE_CANCELLED,
}


class _Chunks:
    """The chunks of one attempt that wait for one with a lower index."""

    def __init__(self) -> None:
        self.next_index = 0
        self.held: dict[int, pb.WorkflowEvent] = {}


class RunEvents:
    """The kept events of each run, its subscribers, and the subscribers to metadata pairs.

    Args:
        clock: timestamps, and the timeout for a missing chunk.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, deque[pb.WorkflowEvent]] = {}
        self._by_run: dict[str, set[asyncio.Queue[pb.WorkflowEvent]]] = {}
        self._by_metadata: dict[tuple[str, str], set[asyncio.Queue[pb.WorkflowEvent]]] = {}
        self._chunks: dict[str, _Chunks] = {}

    def subscribe(self, run: Run) -> asyncio.Queue[pb.WorkflowEvent]:
        """Return a queue of the kept events and all later ones. The event of the run's end has ``hangup`` set."""
        queue: asyncio.Queue[pb.WorkflowEvent] = asyncio.Queue()
        for event in self._kept.get(run.id, ()):
            queue.put_nowait(event)
        self._by_run.setdefault(run.id, set()).add(queue)
        return queue

    def unsubscribe(self, run: Run, queue: asyncio.Queue[pb.WorkflowEvent]) -> None:
        """Forget a subscriber."""
        queues = self._by_run.get(run.id)
        if queues is not None:
            queues.discard(queue)
            if not queues:
                del self._by_run[run.id]

    def subscribe_metadata(self, key: str, value: str) -> asyncio.Queue[pb.WorkflowEvent]:
        """Return a queue of the coming events of every run with this metadata pair."""
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
        """Expect the chunks of a new attempt, which are numbered from 0 again."""
        self._chunks.pop(task.id, None)

    def attempt_started(self, task: Task) -> None:
        """Send that the worker started the attempt."""
        self._send_task_event(task, pb.RESOURCE_EVENT_TYPE_STARTED, "")

    def chunk(self, task: Task, index: int | None, text: str) -> None:
        """Send one stream chunk. A chunk without an index is sent at once."""
        event = self._task_event(task, pb.RESOURCE_EVENT_TYPE_STREAM, text)
        if index is None:
            self._send(task.run, event)
            return
        event.event_index = index
        chunks = self._chunks.setdefault(task.id, _Chunks())
        if index < chunks.next_index:
            self._send(task.run, event)
            return
        chunks.held[index] = event
        self._send_ready(task, chunks)
        if chunks.held:
            self._clock.later(_GAP_TIMEOUT_SECONDS, self._skip_gap, task, chunks, chunks.next_index)

    def task_finished(self, task: Task) -> None:
        """Send the chunks that still wait, then the end of the task."""
        chunks = self._chunks.pop(task.id, None)
        if chunks is not None:
            self._send_all(task, chunks)
        payload = task.output_text if task.status is TaskStatus.COMPLETED else task.error or ""
        self._send_task_event(task, _ENDS[task.status], payload)

    def run_finished(self, run: Run) -> None:
        """Send the end of the run, with ``hangup`` set."""
        self._send(
            run,
            pb.WorkflowEvent(
                workflow_run_id=run.id,
                resource_type=pb.RESOURCE_TYPE_WORKFLOW_RUN,
                event_type=_ENDS[run.status],
                resource_id=run.id,
                event_timestamp=timestamp(self._clock.now()),
                hangup=True,
            ),
        )

    def run_reopened(self, run: Run) -> None:
        """Drop the kept events: a replay begins anew."""
        self._kept.pop(run.id, None)

    def forget(self, run: Run) -> None:
        """Drop what is kept of a run that the repository forgot."""
        self._kept.pop(run.id, None)
        for task in run.tasks.values():
            self._chunks.pop(task.id, None)

    def _send_ready(self, task: Task, chunks: _Chunks) -> None:
        while chunks.next_index in chunks.held:
            self._send(task.run, chunks.held.pop(chunks.next_index))
            chunks.next_index += 1

    def _skip_gap(self, task: Task, chunks: _Chunks, index: int) -> None:
        if chunks.held and chunks.next_index == index and self._chunks.get(task.id) is chunks:
            chunks.next_index = min(chunks.held)
            self._send_ready(task, chunks)

    def _send_all(self, task: Task, chunks: _Chunks) -> None:
        for index in sorted(chunks.held):
            self._send(task.run, chunks.held[index])
        chunks.held.clear()

    def _send_task_event(self, task: Task, event_type: pb.ResourceEventType, payload: str) -> None:
        self._send(task.run, self._task_event(task, event_type, payload))

    def _task_event(self, task: Task, event_type: pb.ResourceEventType, payload: str) -> pb.WorkflowEvent:
        return pb.WorkflowEvent(
            workflow_run_id=task.run.id,
            resource_type=pb.RESOURCE_TYPE_STEP_RUN,
            event_type=event_type,
            resource_id=task.id,
            event_timestamp=timestamp(self._clock.now()),
            event_payload=payload,
            task_retries=task.definition.retries,
            retry_count=task.retry_count,
        )

    def _send(self, run: Run, event: pb.WorkflowEvent) -> None:
        kept = self._kept.get(run.id)
        if kept is None:
            kept = self._kept[run.id] = deque(maxlen=_EVENTS_KEPT_PER_RUN)
        kept.append(event)
        for queue in self._by_run.get(run.id, ()):
            queue.put_nowait(event)
        if self._by_metadata:
            for (key, value), queues in self._by_metadata.items():
                if str(run.metadata.get(key)) == value:
                    for queue in queues:
                        queue.put_nowait(event)
