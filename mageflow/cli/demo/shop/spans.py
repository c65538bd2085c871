"""Spans in a file of JSON lines: the worker's process writes them, the demo reads them."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

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
    """Empty for the root of a trace."""
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
        """The duration."""
        return self.end - self.start

    @classmethod
    def of(cls, line: str) -> Self:
        """Read one line of the exporter's file."""
        span = json.loads(line)
        return cls(
            name=span["name"],
            kind=span["kind"].removeprefix("SpanKind.").lower(),
            trace_id=span["context"]["trace_id"].removeprefix("0x"),
            span_id=span["context"]["span_id"].removeprefix("0x"),
            parent_id=(span["parent_id"] or "").removeprefix("0x"),
            links=tuple(link["context"]["span_id"].removeprefix("0x") for link in span["links"]),
            start=_seconds(span["start_time"]),
            end=_seconds(span["end_time"]),
            status=span["status"]["status_code"].lower(),
            service=span["resource"]["attributes"].get("service.name", ""),
            attributes=span["attributes"],
            events=tuple((event["name"], _seconds(event["timestamp"])) for event in span["events"]),
        )


class JsonLinesExporter(SpanExporter):
    """Appends each span to a file, as one line of JSON in the format of ``ReadableSpan.to_json``.

    Args:
        path: The file.
        limit_bytes: No span is written when the file is larger than this.
    """

    def __init__(self, path: Path, *, limit_bytes: int = 64 * 1024 * 1024) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans."""
        lines = "".join(f"{span.to_json(indent=None)}\n" for span in spans)
        with self._lock:
            if self._file.tell() > self._limit_bytes:
                return SpanExportResult.FAILURE
            self._file.write(lines)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Close the file."""
        self._file.close()


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def read_spans(*paths: Path) -> list[SpanRecord]:
    """All spans in these files, in the order they started. A last line without its end is left out."""
    lines = [line for path in paths if path.exists() for line in path.read_text("utf-8").splitlines(keepends=True)]
    return sorted((SpanRecord.of(line) for line in lines if line.endswith("\n")), key=lambda span: span.start)
