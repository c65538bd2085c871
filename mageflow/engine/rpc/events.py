"""``EventsService``: user events, logs, stream chunks."""

from __future__ import annotations

import json

import grpc

from mageflow.engine.contracts import events_pb2 as pb
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.events import Events
from mageflow.engine.formats import timestamp
from mageflow.engine.model import LogLine, UserEvent
from mageflow.engine.parsing import parse_object, utc_time
from mageflow.engine.repository import Repository
from mageflow.engine.rpc.table import service, unary
from mageflow.engine.run_events import RunEvents

_LOG_LINES_KEPT_PER_TASK = 1000


class EventsService:
    """The service.

    Args:
        tenant_id: the id of the one tenant.
        repository: where tasks are found.
        events: takes user events.
        run_events: takes stream chunks.
    """

    def __init__(self, tenant_id: str, repository: Repository, events: Events, run_events: RunEvents) -> None:
        self._tenant_id = tenant_id
        self._repository = repository
        self._events = events
        self._run_events = run_events

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service."""
        return service(
            "EventsService",
            {
                "Push": unary(pb.PushEventRequest, self._push),
                "BulkPush": unary(pb.BulkPushEventRequest, self._bulk_push),
                "PutLog": unary(pb.PutLogRequest, self._put_log),
                "PutStreamEvent": unary(pb.PutStreamEventRequest, self._put_stream_event),
            },
        )

    def _push(self, request: pb.PushEventRequest) -> pb.Event:
        if not request.key:
            raise InvalidRequestError("an event needs a key")
        has_time = request.HasField("event_timestamp")
        event = self._events.push(
            request.key,
            parse_object(request.payload, "event payload"),
            metadata=parse_object(request.additional_metadata, "additional_metadata"),
            scope=request.scope if request.HasField("scope") else None,
            priority=request.priority if request.HasField("priority") else None,
            occurred_at=utc_time(request.event_timestamp, "event_timestamp") if has_time else None,
        )
        return self._reply(event)

    def _bulk_push(self, request: pb.BulkPushEventRequest) -> pb.Events:
        return pb.Events(events=[self._push(each) for each in request.events])

    def _put_log(self, request: pb.PutLogRequest) -> pb.PutLogResponse:
        task = self._repository.task(request.task_run_external_id)
        task.logs.append(
            LogLine(
                created_at=utc_time(request.created_at, "created_at"),
                message=request.message,
                level=(request.level or "INFO").upper(),
                retry_count=request.task_retry_count,
            )
        )
        del task.logs[:-_LOG_LINES_KEPT_PER_TASK]
        return pb.PutLogResponse()

    def _put_stream_event(self, request: pb.PutStreamEventRequest) -> pb.PutStreamEventResponse:
        task = self._repository.task(request.task_run_external_id)
        index = request.event_index if request.HasField("event_index") else None
        self._run_events.chunk(task, index, request.message.decode(errors="replace"))
        return pb.PutStreamEventResponse()

    def _reply(self, event: UserEvent) -> pb.Event:
        reply = pb.Event(
            tenant_id=self._tenant_id,
            event_id=event.id,
            key=event.key,
            payload=json.dumps(event.payload),
            event_timestamp=timestamp(event.occurred_at),
            additional_metadata=json.dumps(event.metadata),
        )
        if event.scope is not None:
            reply.scope = event.scope
        return reply
