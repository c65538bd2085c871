"""Traces of runs: the spans that the SDK exports over OTLP, together with spans of the engine itself.

The engine does not record its own spans (``hatchet.engine.*``) while tasks run. It makes them from a run's history when
a trace is read. Their ids are derived from run, task and attempt, so each reading gives the same ids.

A run belongs to the trace of the ``traceparent`` in its metadata. Like Hatchet, the engine adds one to runs that were
sent without a valid one. It names the root span of the run, so that every worker has a trace to join.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mageflow.engine.model import Run, Task, TaskEvent
from mageflow.engine.repository import Repository
from mageflow.engine.values import JsonObject

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

_SPANS_KEPT = 200_000
_SPANS_KEPT_PER_TRACE = 5_000
_ENDS = {"FINISHED", "FAILED", "CANCELLED", "TIMED_OUT", "SCHEDULING_TIMED_OUT"}
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span as REST shows it. Ids are lower-case hex."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str
    service: str
    status: str
    status_message: str | None
    started_at: datetime
    duration_ns: int
    resource: dict[str, str] = field(default_factory=dict[str, str])
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    scope_name: str | None = None
    scope_version: str | None = None
    retry_count: int = 0


class Traces:
    """The spans of the newest traces: at most 200,000 exported spans, and 5,000 per trace.

    Args:
        repository: the events that started runs.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._exported: dict[str, dict[str, Span]] = {}
        self._spans = 0
        self._runs: dict[str, dict[str, Run]] = {}

    def run_started(self, run: Run) -> None:
        """Note the trace of a run."""
        self._runs.setdefault(trace_id_of(run), {})[run.id] = run

    def forget(self, run: Run) -> None:
        """Forget a run, and the spans of its trace with the last run of the trace."""
        trace_id = trace_id_of(run)
        runs = self._runs.get(trace_id)
        if runs is None:
            return
        runs.pop(run.id, None)
        if not runs:
            del self._runs[trace_id]
            self._drop(trace_id)

    def export(self, request: ExportTraceServiceRequest) -> None:
        """Keep exported spans, each once. The spans of the oldest traces are dropped when there are too many."""
        for span in _decode(request):
            spans = self._exported.setdefault(span.trace_id, {})
            if span.span_id in spans or len(spans) < _SPANS_KEPT_PER_TRACE:
                self._spans += span.span_id not in spans
                spans[span.span_id] = span
        while self._spans > _SPANS_KEPT:
            self._drop(next(iter(self._exported)))

    def of(self, run: Run) -> list[Span]:
        """Return all spans of the run's trace, oldest first. Other runs of the same trace are included."""
        trace_id = trace_id_of(run)
        spans = list(self._exported.get(trace_id, {}).values())
        for each in list(self._runs.get(trace_id, {}).values()):
            spans += self._engine_spans(trace_id, each)
        return sorted(spans, key=lambda span: span.started_at)

    def _drop(self, trace_id: str) -> None:
        self._spans -= len(self._exported.pop(trace_id, ()))

    def _engine_spans(self, trace_id: str, run: Run) -> Iterator[Span]:
        event = self._repository.events.get(run.trigger.event_id) if run.trigger.event_id else None
        parent = _parent_span_id(run)
        if event is not None:
            event_span_id = _derive(event.id, run.id, "event")
            attributes = {"hatchet.event_key": event.key, "hatchet.event_id": event.id}
            yield _engine_span(
                trace_id, event_span_id, parent, "event", event.occurred_at, event.occurred_at, attributes
            )
            parent = event_span_id
        attributes = {
            "hatchet.workflow_run_id": run.id,
            "hatchet.workflow_id": run.workflow.id,
            "hatchet.workflow_name": run.workflow.name,
        }
        root = _root_span_id(run.id)
        yield _engine_span(trace_id, root, parent, "workflow_run", run.created_at, run.created_at, attributes)
        for task in run.tasks.values():
            yield from _attempt_spans(trace_id, root, task)


def trace_id_of(run: Run) -> str:
    """Return the id of the run's trace."""
    return _traceparent(run.metadata)[0]


def with_traceparent(metadata: JsonObject, run_id: str) -> JsonObject:
    """Return the metadata with a valid ``traceparent``: its own, or one that names the root span of the run.

    Runs with the same parent or source run and no ``traceparent`` of their own share a trace.
    """
    if all(_traceparent(metadata)):
        return metadata
    owner = metadata.get("hatchet__parent_workflow_run_id") or metadata.get("hatchet__source_workflow_run_id") or run_id
    header = f"00-{_derive(str(owner), 'trace', size=16)}-{_root_span_id(run_id)}-01"
    return {**metadata, "traceparent": header}


def _traceparent(metadata: JsonObject) -> tuple[str, str]:
    parts = str(metadata.get("traceparent", "")).split("-")
    if len(parts) == 4 and len(parts[1]) == 32 and len(parts[2]) == 16:  # noqa: PLR2004 - W3C trace context
        return parts[1], parts[2]
    return "", ""


def _root_span_id(run_id: str) -> str:
    return _derive(run_id, "workflow_run")


def _parent_span_id(run: Run) -> str | None:
    if run.parent is not None:
        return _derive(run.parent.task_id, str(run.parent.retry_count), "start_step_run")
    sender = _traceparent(run.metadata)[1]
    return sender if sender != _root_span_id(run.id) else None


def _attempt_spans(trace_id: str, root: str, task: Task) -> Iterator[Span]:
    """Yield a span for the wait and one for the execution of each attempt, as far as they have ended."""
    attempts: dict[int, list[TaskEvent]] = {}
    for event in task.events:
        attempts.setdefault(event.retry_count, []).append(event)
    for retry_count, events in attempts.items():
        attributes = {
            "hatchet.step_run_id": task.id,
            "hatchet.workflow_run_id": task.run.id,
            "hatchet.step_name": task.name,
            "hatchet.task_name": task.name,
            "hatchet.retry_count": str(retry_count),
            "hatchet.action_id": task.definition.action,
            "hatchet.workflow_id": task.run.workflow.id,
            "hatchet.workflow_version_id": task.run.version.id,
            "hatchet.step_id": task.definition.id,
        }
        queued, assigned, started = (_first(events, (name,)) for name in ("QUEUED", "ASSIGNED", "STARTED"))
        ended = _first(events, _ENDS)
        if queued is not None and assigned is not None:
            span_id = _derive(task.id, str(retry_count), "queued")
            yield _engine_span(
                trace_id, span_id, root, "queued", queued.timestamp, assigned.timestamp, attributes, retry=retry_count
            )
        begun = started or assigned
        if begun is not None and ended is not None:
            span_id = _derive(task.id, str(retry_count), "start_step_run")
            failure = None if ended.type == "FINISHED" else ended.error or ended.message or ended.type.lower()
            yield _engine_span(
                trace_id,
                span_id,
                root,
                "start_step_run",
                min(begun.timestamp, ended.timestamp),
                ended.timestamp,
                attributes,
                status="OK" if failure is None else "ERROR",
                message=failure,
                retry=retry_count,
            )


def _first(events: Iterable[TaskEvent], types: Iterable[str]) -> TaskEvent | None:
    return next((event for event in events if event.type in types), None)


def _engine_span(
    trace_id: str,
    span_id: str,
    parent: str | None,
    name: str,
    start: datetime,
    end: datetime,
    attributes: dict[str, str],
    *,
    status: str = "OK",
    message: str | None = None,
    retry: int = 0,
) -> Span:
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent,
        name=f"hatchet.engine.{name}",
        kind="INTERNAL",
        service="hatchet.engine",
        status=status,
        status_message=message,
        started_at=start,
        duration_ns=int((end - start) / timedelta(microseconds=1)) * 1000,
        attributes={"hatchet.span_source": "engine", **attributes},
        retry_count=retry,
    )


def _derive(*parts: str, size: int = 8) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[: 2 * size]


def _decode(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                attributes = _attributes(span.attributes)
                retry_count = attributes.get("hatchet.retry_count", "")
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_span_id=span.parent_span_id.hex() or None,
                    name=span.name,
                    kind=_KINDS[span.kind] if span.kind < len(_KINDS) else _KINDS[0],
                    service=resource.get("service.name", ""),
                    status=_STATUSES[span.status.code] if span.status.code < len(_STATUSES) else _STATUSES[0],
                    status_message=span.status.message or None,
                    started_at=datetime.fromtimestamp(span.start_time_unix_nano / 1e9, UTC),
                    duration_ns=max(0, span.end_time_unix_nano - span.start_time_unix_nano),
                    resource=resource,
                    attributes=attributes,
                    scope_name=scope.scope.name or None,
                    scope_version=scope.scope.version or None,
                    retry_count=int(retry_count) if retry_count.isdigit() else 0,
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: _text(pair.value) for pair in pairs}


def _text(value: AnyValue) -> str:
    """Return an attribute as text, the only type of the API."""
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    if kind == "array_value":
        return "[" + ", ".join(_text(each) for each in value.array_value.values) + "]"
    return str(getattr(value, kind))
