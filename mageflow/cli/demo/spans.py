"""Spans as JSON lines in a file: how the worker's process tells the demo what it saw.

The exporter writes what OpenTelemetry gives it, no more; reading gives back the same facts as plain values.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

__all__ = ["JsonLinesExporter", "SpanRecord", "read_spans"]


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One ended span. Times are seconds since the epoch."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    """Span ids."""
    start: float
    end: float
    status: str
    service: str
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, float], ...]
    """Names and times."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start

    @classmethod
    def of(cls, line: str) -> Self:
        """Read one line of the exporter's file."""
        fields = cast("dict[str, Any]", json.loads(line))
        fields["links"] = tuple(fields["links"])
        fields["events"] = tuple((name, at) for name, at in fields["events"])
        return cls(**fields)


class JsonLinesExporter(SpanExporter):
    """Appends each span to a file as one line of JSON, written at once; a full file takes no more.

    Args:
        path: The file.
        limit_bytes: When the file is full: a demo may be left running over night.
    """

    def __init__(self, path: Path, *, limit_bytes: int = 64 * 1024 * 1024) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans."""
        lines = [json.dumps(_fields(span), default=str) for span in spans]
        with self._lock:
            if self._file.tell() > self._limit_bytes:
                return SpanExportResult.FAILURE
            self._file.write("".join(f"{line}\n" for line in lines))
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        self._file.close()


def _fields(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    if context is None or span.start_time is None or span.end_time is None:
        raise ValueError(f"the span {span.name!r} has not ended")
    return {
        "name": span.name,
        "kind": span.kind.name.lower(),
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
        "links": [f"{link.context.span_id:016x}" for link in span.links],
        "start": span.start_time / 1e9,
        "end": span.end_time / 1e9,
        "status": span.status.status_code.name.lower(),
        "service": str(span.resource.attributes.get("service.name", "")),
        "attributes": dict(span.attributes or {}),
        "events": [(event.name, event.timestamp / 1e9) for event in span.events],
    }


def read_spans(*paths: Path) -> list[SpanRecord]:
    """Every span in these files, in the order they started. A line that is still being written is left out."""
    lines = [line for path in paths if path.exists() for line in path.read_text("utf-8").splitlines(keepends=True)]
    return sorted((SpanRecord.of(line) for line in lines if line.endswith("\n")), key=lambda span: span.start)
