"""Spans, samples and log events of the code under test, as values that a test can compare.

A capture only reads. It is added beside the exporters, registries and handlers of the program and is removed at the
end; what they record does not change.
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
    """The spans that ended while the capture was open, in the order they ended.

    `capture_spans` and the fixture ``mageflow_spans`` make one. It is iterable, has a length, and can be read from any
    thread, also after the capture has closed.

    Attributes:
        provider: The captured tracer provider, for arguments such as ``Mageflow(tracer_provider=...)``.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
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
        """The spans so far: a copy, which does not grow."""
        with self._arrived:
            return list(self._spans)

    @property
    def names(self) -> list[str]:
        """The names of the spans so far, in the order they ended."""
        return [span.name for span in self.spans]

    def named(self, name: str) -> list[ReadableSpan]:
        """The spans with this name so far, in the order they ended.

        Args:
            name: The name of the spans.

        Returns:
            A list, which is empty if there are none.
        """
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only span with this name.

        Args:
            name: The name of the span.

        Raises:
            AssertionError: There is none, or more than one. The message lists the names of all spans.
        """
        found = self.named(name)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} spans are called {name!r}; there are: {self.names}")
        return found[0]

    def wait_for(self, name: str, count: int = 1, timeout_seconds: float = 10.0) -> list[ReadableSpan]:
        """Wait until there are ``count`` spans with this name. Blocks the calling thread, not an event loop in another.

        Args:
            name: The name of the spans.
            count: How many to wait for.
            timeout_seconds: The longest time to wait.

        Returns:
            All spans with this name, at least ``count``.

        Raises:
            AssertionError: There were fewer after ``timeout_seconds``. The message lists the names of all spans.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._count(name) >= count, timeout_seconds):
                there = [span.name for span in self._spans]
                raise AssertionError(f"waited {timeout_seconds} s for {count} spans {name!r}; there are: {there}")
        return self.named(name)

    def _count(self, name: str) -> int:
        return sum(1 for span in self._spans if span.name == name)

    def clear(self) -> None:
        """Remove the spans so far. The capture stays open."""
        with self._arrived:
            self._spans.clear()


class _Fanout(SpanProcessor):
    """The one processor that a provider gets: OpenTelemetry has no way to remove a processor."""

    def __init__(self) -> None:
        self.listeners: tuple[Callable[[ReadableSpan], None], ...] = ()

    def on_end(self, span: ReadableSpan) -> None:
        for listener in self.listeners:
            listener(span)


_fanouts: WeakKeyDictionary[TracerProvider, _Fanout] = WeakKeyDictionary()
_fanouts_lock = threading.Lock()


@contextmanager
def capture_spans(provider: TracerProvider | None = None) -> Generator[SpanCapture]:
    """Capture the spans that end in this process while the block runs, in any thread.

    Captures may be nested and may overlap; each gets all spans.

    Args:
        provider: The tracer provider. None is the process-wide one. If the program has set none, an SDK provider
            becomes the process-wide one. OpenTelemetry allows that once per process and never undoes it.

    Yields:
        The capture. It stays readable after the block.

    Raises:
        TypeError: The process-wide provider is not a ``TracerProvider`` of ``opentelemetry.sdk``.
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
            f"the process-wide tracer provider is a {type(provider).__qualname__}, which has no span processors: "
            "call capture_spans() with the opentelemetry.sdk TracerProvider of the code under test"
        )
    return provider


_Key = tuple[str, frozenset[tuple[str, str]]]


class Samples(Mapping[_Key, float]):
    """The Prometheus samples of a registry or of a ``/metrics`` body at one moment.

    `samples` makes one. It is an immutable mapping from ``(name, frozenset(labels.items()))`` to the value. Names are
    as exposed: counters end in ``_total``, histograms in ``_bucket``, ``_count`` and ``_sum``.
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
        """The increase of each sample since an earlier moment. A series that did not exist then counts from 0.

        Args:
            earlier: The samples at that moment, of the same source.

        Returns:
            New samples. Values of gauges are differences too.
        """
        return Samples(self._values, dict(earlier))

    def value(self, name: str, /, **labels: str) -> float:
        """The sample with this name and exactly these labels.

        Args:
            name: The name as exposed, such as ``mageflow_task_runs_total``.
            labels: All labels of the series.

        Raises:
            AssertionError: There is none. The message lists the labels of the series with this name.
        """
        key = (name, frozenset(labels.items()))
        if key not in self._values:
            there = sorted(str(dict(sorted(each))) for sample, each in self._values if sample == name)
            raise AssertionError(f"no sample {name}{labels}; {name} has: {', '.join(there) or 'no series at all'}")
        return self[key]

    def total(self, name: str, /, **labels: str) -> float:
        """The sum of all samples with this name that have at least these labels. 0.0 if there are none.

        Args:
            name: The name as exposed, such as ``mageflow_task_runs_total``.
            labels: Labels that a series must have. Without any, all series with the name are added.
        """
        wanted = labels.items()
        return sum(self[key] for key in self._values if key[0] == name and wanted <= dict(key[1]).items())

    def by(self, label: str, name: str, /, **labels: str) -> dict[str, float]:
        """The sum of the samples with this name and at least these labels, for each value of one label.

        Args:
            label: The label whose values are the keys of the result.
            name: The name as exposed, such as ``mageflow_task_runs_total``.
            labels: Labels that a series must have.

        Returns:
            Sums by label value. Empty if no series has the label.
        """
        wanted = labels.items()
        sums: dict[str, float] = {}
        for key in self._values:
            has = dict(key[1])
            if key[0] == name and label in has and wanted <= has.items():
                sums[has[label]] = sums.get(has[label], 0.0) + self[key]
        return sums

    def names(self) -> set[str]:
        """The names of all samples."""
        return {name for name, _ in self._values}


def samples(source: CollectorRegistry | str = REGISTRY) -> Samples:
    """The samples of a registry or of a ``/metrics`` body.

    Args:
        source: A registry, which is read now, or a body in the text format of Prometheus. The default is the
            process-wide registry.

    Raises:
        ValueError: The body is not in the text format of Prometheus.
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

    `capture_logs` and the fixture ``mageflow_logs`` make one. ``event`` is the name of the event, ``level`` its level
    in lower case, ``logger`` the name of the logger; the other keys are the event's fields. A plain ``logging`` record
    has its formatted message as ``event``. The capture is iterable, has a length, and stays readable after it closed.
    """

    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self._events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record as an event. `logging` calls it."""
        self._events.append({"level": record.levelname.lower(), "logger": record.name, **_fields(record)})

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self._events)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events so far: a copy, which does not grow."""
        return list(self._events)

    @property
    def names(self) -> list[str]:
        """The names of the events so far, oldest first."""
        return [str(event["event"]) for event in self.events]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events with this name so far, oldest first.

        Args:
            name: The name of the events.

        Returns:
            A list, which is empty if there are none.
        """
        return [event for event in self.events if event["event"] == name]

    def one(self, name: str) -> dict[str, Any]:
        """The only event with this name.

        Args:
            name: The name of the event.

        Raises:
            AssertionError: There is none, or more than one. The message lists the names of all events.
        """
        found = self.named(name)
        if len(found) != 1:
            raise AssertionError(f"{len(found)} events are called {name!r}; there are: {self.names}")
        return found[0]

    def wait_for(self, name: str, count: int = 1, timeout_seconds: float = 10.0) -> list[dict[str, Any]]:
        """Wait until there are ``count`` events with this name. Blocks the calling thread.

        Args:
            name: The name of the events.
            count: How many to wait for.
            timeout_seconds: The longest time to wait.

        Returns:
            All events with this name, at least ``count``.

        Raises:
            AssertionError: There were fewer after ``timeout_seconds``. The message lists the names of all events.
        """
        deadline = time.monotonic() + timeout_seconds
        while len(found := self.named(name)) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout_seconds} s for {count} events {name!r}; there are: {self.names}")
            time.sleep(0.01)
        return found

    def clear(self) -> None:
        """Remove the events so far. The capture stays open."""
        self._events.clear()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    # structlog gives a stdlib logger the event dictionary itself (ProcessorFormatter.wrap_for_formatter) or a rendered
    # line. A JSON line is parsed; any other line is a message.
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
    """Capture what a logger and its children log while the block runs, at every level and in any thread.

    The logger's level is ``DEBUG`` for the length of the block and then what it was before. A child with a level of its
    own keeps it.

    Args:
        logger: The name of a ``logging`` logger. An empty string captures all loggers.

    Yields:
        The capture. It stays readable after the block.
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
