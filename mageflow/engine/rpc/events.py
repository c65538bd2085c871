"""``EventsService``: user events, logs, stream chunks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc

from mageflow.engine.actions import timestamp
from mageflow.engine.contracts import events_pb2 as pb
from mageflow.engine.documents import moment_of, parse_object
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.events import EventRecord
from mageflow.engine.model import LogLine
from mageflow.engine.rpc.table import service, unary

if TYPE_CHECKING:
    from mageflow.engine.core import Engine

_LOG_LINES_KEPT_PER_TASK = 1000


class EventsService:
    """The service."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the service's table."""
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
        event = self._engine.events.push(
            request.key,
            parse_object(request.payload, "event payload"),
            metadata=parse_object(request.additional_metadata, "additional_metadata"),
            scope=request.scope if request.HasField("scope") else None,
            priority=request.priority if request.HasField("priority") else None,
            at=moment_of(request.event_timestamp, "event_timestamp") if request.HasField("event_timestamp") else None,
        )
        return self._reply(event)

    def _bulk_push(self, request: pb.BulkPushEventRequest) -> pb.Events:
        return pb.Events(events=[self._push(each) for each in request.events])

    def _put_log(self, request: pb.PutLogRequest) -> pb.PutLogResponse:
        task = self._engine.store.task(request.task_run_external_id)
        task.logs.append(
            LogLine(
                created_at=moment_of(request.created_at, "created_at"),
                message=request.message,
                level=(request.level or "INFO").upper(),
                retry_count=request.task_retry_count,
            )
        )
        del task.logs[:-_LOG_LINES_KEPT_PER_TASK]
        return pb.PutLogResponse()

    def _put_stream_event(self, request: pb.PutStreamEventRequest) -> pb.PutStreamEventResponse:
        task = self._engine.store.task(request.task_run_external_id)
        index = request.event_index if request.HasField("event_index") else None
        self._engine.run_events.chunk(task, index, request.message.decode(errors="replace"))
        return pb.PutStreamEventResponse()

    def _reply(self, event: EventRecord) -> pb.Event:
        reply = pb.Event(
            tenant_id=self._engine.tenant_id,
            event_id=event.id,
            key=event.key,
            payload=json.dumps(event.payload),
            event_timestamp=timestamp(event.at),
            additional_metadata=json.dumps(event.metadata),
        )
        if event.scope is not None:
            reply.scope = event.scope
        return reply
