"""What every peer has in common: an exporter that keeps nothing, and the word that a batch is done."""

import logging
import sys
from collections.abc import Sequence
from typing import Protocol

import redis
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

DONE = "bench:done"
"""The key that says that the last task of a batch has run."""
AT_ONCE = 10
"""Tasks that a sender has in flight."""


class Send(Protocol):
    """Sends a batch of tasks."""

    async def __call__(self, count: int) -> None: ...


class Discard(SpanExporter):
    """Keeps nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Forget the spans."""
        return SpanExportResult.SUCCESS


def recording() -> TracerProvider:
    """A provider whose spans record, and are exported to nowhere as each ends."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Discard()))
    return provider


def log(is_on: bool) -> None:
    """Log as the system does by itself, or warnings only."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO if is_on else logging.WARNING)


class Batch:
    """Counts the tasks of a batch in the worker; one call to Redis at its end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._done = 0

    def note(self, size: int) -> None:
        """One more task of a batch of that size has run."""
        self._done += 1
        if self._done == size:
            self._done = 0
            redis.Redis.from_url(self._url).set(DONE, 1)
