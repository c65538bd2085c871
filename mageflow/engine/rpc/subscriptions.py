"""The ``Dispatcher`` methods of clients that wait: for the results of runs, and for the events of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.repository import Repository
from mageflow.engine.results import Results, ResultStream
from mageflow.engine.rpc.table import Handler, bidirectional, server_stream
from mageflow.engine.run_events import RunEvents


class SubscriptionMethods:
    """Methods that stream to clients.

    Args:
        repository: where runs are found.
        results: sends the results of finished runs.
        run_events: sends the events of runs.
    """

    def __init__(self, repository: Repository, results: Results, run_events: RunEvents) -> None:
        self._repository = repository
        self._results = results
        self._run_events = run_events

    def table(self) -> dict[str, Handler]:
        """Return the methods by name."""
        return {
            "SubscribeToWorkflowRuns": bidirectional(pb.SubscribeToWorkflowRunsRequest, self._stream_results),
            "SubscribeToWorkflowEvents": server_stream(pb.SubscribeToWorkflowEventsRequest, self._stream_events),
        }

    async def _stream_results(
        self, requests: AsyncIterator[pb.SubscribeToWorkflowRunsRequest]
    ) -> AsyncIterator[pb.WorkflowRunEvent]:
        stream = ResultStream()
        reader = asyncio.ensure_future(self._read_ids(stream, requests))
        try:
            while True:
                yield await stream.queue.get()
        finally:
            reader.cancel()
            self._results.close(stream)

    async def _read_ids(self, stream: ResultStream, requests: AsyncIterator[pb.SubscribeToWorkflowRunsRequest]) -> None:
        # A client may close its side and still wait for answers, so the end of its ids does not end the stream.
        async for request in requests:
            self._results.subscribe(stream, request.workflow_run_id)

    async def _stream_events(self, request: pb.SubscribeToWorkflowEventsRequest) -> AsyncIterator[pb.WorkflowEvent]:
        if request.workflow_run_id:
            run = self._repository.run(request.workflow_run_id)
            queue = self._run_events.subscribe(run)
            try:
                while True:
                    event = await queue.get()
                    yield event
                    if event.hangup:
                        return
            finally:
                self._run_events.unsubscribe(run, queue)
        key, value = request.additional_meta_key, request.additional_meta_value
        if not key:
            raise InvalidRequestError("subscribe with a workflow_run_id, or with additional_meta_key and its value")
        queue = self._run_events.subscribe_metadata(key, value)
        try:
            while True:
                yield await queue.get()
        finally:
            self._run_events.unsubscribe_metadata(key, value, queue)
