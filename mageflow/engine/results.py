"""Subscriptions to the results of runs (``SubscribeToWorkflowRuns``)."""

from __future__ import annotations

import asyncio

from mageflow.engine.clock import Clock
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.formats import timestamp
from mageflow.engine.model import Run, TaskStatus
from mageflow.engine.repository import Repository

# A client's gRPC channel receives at most 4 MiB.
_MAX_RESULT_BYTES = 4 * 1024 * 1024
_TOO_LARGE = '{"__engine_notice__": "output dropped: the result is larger than a client can receive (4 MiB)"}'


class ResultStream:
    """One client's open stream: run ids come in, and one event per finished run goes out."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[pb.WorkflowRunEvent] = asyncio.Queue()
        self.open_ids: set[str] = set()


class Results:
    """Sends the result of a run to every stream that asked for it.

    Args:
        repository: the runs that have finished already.
        clock: timestamps.
    """

    def __init__(self, repository: Repository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock
        self._waiting: dict[str, set[ResultStream]] = {}

    def subscribe(self, stream: ResultStream, run_id: str) -> None:
        """Send the result on ``stream`` as soon as the run has finished. Ids may repeat; an unknown id waits."""
        run = self._repository.runs.get(run_id)
        if run is not None and run.done:
            stream.queue.put_nowait(self._result(run))
            return
        stream.open_ids.add(run_id)
        self._waiting.setdefault(run_id, set()).add(stream)

    def close(self, stream: ResultStream) -> None:
        """Forget a stream that ended."""
        for run_id in stream.open_ids:
            streams = self._waiting.get(run_id)
            if streams is not None:
                streams.discard(stream)
                if not streams:
                    del self._waiting[run_id]

    def run_finished(self, run: Run) -> None:
        """Send the result to the streams that wait for this run."""
        streams = self._waiting.pop(run.id, None)
        if not streams:
            return
        event = self._result(run)
        for stream in streams:
            stream.open_ids.discard(run.id)
            stream.queue.put_nowait(event)

    def _result(self, run: Run) -> pb.WorkflowRunEvent:
        event = pb.WorkflowRunEvent(
            workflow_run_id=run.id,
            event_type=pb.WORKFLOW_RUN_EVENT_TYPE_FINISHED,
            event_timestamp=timestamp(run.finished_at or self._clock.now()),
        )
        for name, task in run.tasks.items():
            result = pb.StepRunResult(task_run_external_id=task.id, task_name=name, job_run_id=task.id)
            if task.status is TaskStatus.COMPLETED:
                # For None it stays unset: the SDK then leaves the task out of the result.
                if task.output_text:
                    result.output = task.output_text
            else:
                result.error = task.error or ""
            event.results.append(result)
        if event.ByteSize() > _MAX_RESULT_BYTES:
            for result in event.results:
                if result.output:
                    result.output = _TOO_LARGE
        return event
