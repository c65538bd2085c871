"""Captures of spans, samples and log events, as plain values for assertions.

A capture changes nothing that is recorded: it works beside the exporters, registries and handlers of the program, and
removes itself at the end.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["LogCapture", "Samples", "SpanCapture", "capture_logs", "capture_spans", "samples"]


class SpanCapture:
    """The spans that ended while the capture was open, in the order they ended. Safe to read from any thread."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        """The provider that is listened to: pass it on to what takes a ``tracer_provider``."""
        self._spans: list[ReadableSpan] = []
        self._arrived = threading.Condition()

    def _add(self, span: ReadableSpan) -> None:
        with self._arrived:
            self._spans.append(span)
            self._arrived.notify_all()

    def __iter__(self) -> Iterator[ReadableSpan]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def spans(self) -> list[ReadableSpan]:
        """A copy of the list as it is now."""
        with self._arrived:
            return list(self._spans)

    @property
    def names(self) -> list[str]:
        """The names of the spans, in the order they ended."""
        return [span.name for span in self.spans]

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans of this name, in the order they ended."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only span of this name.

        Raises:
            AssertionError: There is none, or more than one; the message lists what there is.
        """
        found = self.named(name)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans are called {name!r}; there are: {self.names}")
        return found[0]

    def wait_for(self, name: str, count: int = 1, timeout_seconds: float = 10.0) -> list[ReadableSpan]:
        """The spans of this name, as soon as there are ``count`` of them. Blocks the calling thread.

        Raises:
            AssertionError: There were fewer within ``timeout_seconds``; the message lists what there is.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._count(name) >= count, timeout_seconds):
                there = [span.name for span in self._spans]
                raise AssertionError(f"waited {timeout_seconds} s for {count} spans {name!r}; there are: {there}")
        return self.named(name)

    def _count(self, name: str) -> int:
        return sum(1 for span in self._spans if span.name == name)

    def clear(self) -> None:
        """Forget what was captured so far."""
        with self._arrived:
            self._spans.clear()


class _Fanout(SpanProcessor):
    """The one processor a provider gets: OpenTelemetry offers no way to take a processor off again."""

    def __init__(self) -> None:
        self.listeners: tuple[Callable[[ReadableSpan], None], ...] = ()

    def on_end(self, span: ReadableSpan) -> None:
        for listener in self.listeners:
            listener(span)


_fanouts: WeakKeyDictionary[TracerProvider, _Fanout] = WeakKeyDictionary()
_fanouts_lock = threading.Lock()


@contextmanager
def capture_spans(provider: TracerProvider | None = None) -> Generator[SpanCapture]:
    """Capture the spans that end while the block runs.

    Args:
        provider: Whose spans to capture. By default the process-wide provider; when the program has set none, an
            SDK provider is made the process-wide one, which OpenTelemetry allows once per process and for good.

    Raises:
        TypeError: The process-wide provider is not one of ``opentelemetry.sdk``, so it cannot be listened to.
    """
    listened = provider or _process_provider()
    with _fanouts_lock:
        fanout = _fanouts.get(listened)
        if fanout is None:
            fanout = _fanouts[listened] = _Fanout()
            listened.add_span_processor(fanout)
    capture = SpanCapture(listened)
    listener = capture._add  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the capture is ours
    with _fanouts_lock:
        fanout.listeners = (*fanout.listeners, listener)
    try:
        yield capture
    finally:
        with _fanouts_lock:
            fanout.listeners = tuple(each for each in fanout.listeners if each != listener)


def _process_provider() -> TracerProvider:
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        trace.set_tracer_provider(TracerProvider())
        provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        raise TypeError(
            f"the process-wide tracer provider is a {type(provider).__qualname__}, which cannot be listened to: "
            "give capture_spans() the opentelemetry.sdk TracerProvider the code under test uses"
        )
    return provider


_Key = tuple[str, frozenset[tuple[str, str]]]


class Samples(Mapping[_Key, float]):
    """The samples of a registry or an exposition at one moment: an immutable copy.

    Sample names are as exposed, so counters end in ``_total`` and histograms in ``_bucket``, ``_count``, ``_sum``.
    """

    def __init__(self, values: Mapping[_Key, float], since: Mapping[_Key, float] | None = None) -> None:
        self._values = dict(values)
        self._since = dict(since or {})

    def __getitem__(self, key: _Key) -> float:
        return self._values[key] - self._since.get(key, 0.0)

    def __iter__(self) -> Iterator[_Key]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def since(self, earlier: "Samples") -> "Samples":
        """The same samples as differences to an earlier moment; a series that was not there counts from 0."""
        return Samples(self._values, dict(earlier))

    def value(self, name: str, /, **labels: str) -> float:
        """The one sample with this name and exactly these labels.

        Raises:
            AssertionError: There is none; the message lists the label sets the name has.
        """
        key = (name, frozenset(labels.items()))
        if key not in self._values:
            there = sorted(str(dict(sorted(each))) for sample, each in self._values if sample == name)
            raise AssertionError(f"no sample {name}{labels}; {name} has: {', '.join(there) or 'no series at all'}")
        return self[key]

    def total(self, name: str, /, **labels: str) -> float:
        """The sum of all samples with this name whose labels include these; 0.0 when there are none."""
        wanted = labels.items()
        return sum(self[key] for key in self._values if key[0] == name and wanted <= dict(key[1]).items())

    def by(self, label: str, name: str, /, **labels: str) -> dict[str, float]:
        """What `total` says, for each value of one label."""
        wanted = labels.items()
        sums: dict[str, float] = {}
        for key in self._values:
            has = dict(key[1])
            if key[0] == name and label in has and wanted <= has.items():
                sums[has[label]] = sums.get(has[label], 0.0) + self[key]
        return sums

    def names(self) -> set[str]:
        """Every sample name there is."""
        return {name for name, _ in self._values}


def samples(source: CollectorRegistry | str = REGISTRY) -> Samples:
    """The samples of a registry, or of an exposition in Prometheus' text format, as they are now.

    Args:
        source: A registry (the process-wide one by default) or the body of a ``/metrics`` response.
    """
    families: Any = text_string_to_metric_families(source) if isinstance(source, str) else source.collect()
    return Samples(
        {
            (sample.name, frozenset(sample.labels.items())): float(sample.value)
            for family in cast("Iterator[Metric]", families)
            for sample in family.samples
        }
    )


class LogCapture(logging.Handler):
    """The events that were logged while the capture was open, oldest first, each as a dictionary.

    ``event`` is the event's name, ``level`` the level in lower case and ``logger`` the logger's name; the rest is
    what was bound or given. A plain ``logging`` record has its formatted message as ``event``.
    """

    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self._events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record as an event."""
        self._events.append({"level": record.levelname.lower(), "logger": record.name, **_fields(record)})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self._events)

    @property
    def events(self) -> list[dict[str, Any]]:
        """A copy of the list as it is now."""
        return list(self._events)

    @property
    def names(self) -> list[str]:
        """The names of the events, oldest first."""
        return [str(event["event"]) for event in self.events]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events of this name, oldest first."""
        return [event for event in self.events if event["event"] == name]

    def one(self, name: str) -> dict[str, Any]:
        """The only event of this name.

        Raises:
            AssertionError: There is none, or more than one; the message lists what there is.
        """
        found = self.named(name)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} events are called {name!r}; there are: {self.names}")
        return found[0]

    def wait_for(self, name: str, count: int = 1, timeout_seconds: float = 10.0) -> list[dict[str, Any]]:
        """The events of this name, as soon as there are ``count`` of them. Blocks the calling thread.

        Raises:
            AssertionError: There were fewer within ``timeout_seconds``; the message lists what there is.
        """
        deadline = time.monotonic() + timeout_seconds
        while len(found := self.named(name)) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout_seconds} s for {count} events {name!r}; there are: {self.names}")
            time.sleep(0.01)
        return found

    def clear(self) -> None:
        """Forget what was captured so far."""
        self._events.clear()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    # structlog hands a stdlib logger either the event dictionary itself (ProcessorFormatter.wrap_for_formatter)
    # or a rendered line; a JSON line is read back, anything else is a message.
    if isinstance(record.msg, dict):
        return dict(cast("dict[str, Any]", record.msg))
    message = record.getMessage()
    if message.startswith("{"):
        try:
            read = json.loads(message)
        except ValueError:
            return {"event": message}
        if isinstance(read, dict) and "event" in read:
            return cast("dict[str, Any]", read)
    return {"event": message}


@contextmanager
def capture_logs(logger: str = "mageflow") -> Generator[LogCapture]:
    """Capture what a logger and its children log, at every level, while the block runs.

    Args:
        logger: The name of a ``logging`` logger; an empty string for everything.
    """
    target = logging.getLogger(logger)
    capture = LogCapture()
    level_before = target.level
    target.addHandler(capture)
    target.setLevel(logging.DEBUG)
    try:
        yield capture
    finally:
        target.removeHandler(capture)
        target.setLevel(level_before)
