"""Who waits for the result of which run (``SubscribeToWorkflowRuns``)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mageflow.engine.actions import timestamp
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.lifecycle import MAX_ACTION_BYTES
from mageflow.engine.model import Run, TaskStatus

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_TOO_LARGE = '{"__engine_notice__": "output dropped: the result is larger than a client can receive (4 MiB)"}'


class ResultStream:
    """One client's open stream: ids go in, one event per finished run comes out."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[pb.WorkflowRunEvent] = asyncio.Queue()
        self.open_ids: set[str] = set()


class Results:
    """Answers to subscriptions, at once for finished runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[str, set[ResultStream]] = {}

    def subscribe(self, stream: ResultStream, run_id: str) -> None:
        """Answer on ``stream`` as soon as the run is finished; ids may repeat, unknown ids wait for good."""
        run = self._engine.store.runs.get(run_id)
        if run is not None and run.done:
            stream.queue.put_nowait(_result(self._engine, run))
            return
        stream.open_ids.add(run_id)
        self._waiting.setdefault(run_id, set()).add(stream)

    def close(self, stream: ResultStream) -> None:
        """Forget a stream that broke off."""
        for run_id in stream.open_ids:
            streams = self._waiting.get(run_id)
            if streams is not None:
                streams.discard(stream)
                if not streams:
                    del self._waiting[run_id]

    def run_finished(self, run: Run) -> None:
        """Answer everyone who waits for this run."""
        streams = self._waiting.pop(run.id, None)
        if not streams:
            return
        event = _result(self._engine, run)
        for stream in streams:
            stream.open_ids.discard(run.id)
            stream.queue.put_nowait(event)


def _result(engine: Engine, run: Run) -> pb.WorkflowRunEvent:
    event = pb.WorkflowRunEvent(
        workflow_run_id=run.id,
        event_type=pb.WORKFLOW_RUN_EVENT_TYPE_FINISHED,
        event_timestamp=timestamp(run.finished_at or engine.clock.now()),
    )
    for name, task in run.tasks.items():
        if task.step.is_on_failure and task.skipped:
            continue
        result = pb.StepRunResult(task_run_external_id=task.id, task_name=name, job_run_id=task.id)
        if task.status is TaskStatus.COMPLETED:
            result.output = task.output_text
        else:
            result.error = task.error or ""
        event.results.append(result)
    if event.ByteSize() > MAX_ACTION_BYTES:
        for result in event.results:
            if result.output:
                result.output = _TOO_LARGE
    return event
