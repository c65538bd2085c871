"""Renders a registry for Prometheus: the metrics of mageflow quickly, everything else as ``prometheus_client`` does.

``prometheus_client`` makes an object of each sample and writes its labels anew in each scrape, which takes 13 µs per
series. Here the text of the labels is made once. This file, ``instruments.py`` and ``collectors.py`` are the only ones
that use private attributes of ``prometheus_client``.
"""

import gzip
import math
import os
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from mageflow.telemetry.collectors import collectors_of
from mageflow.telemetry.guards import Guard
from mageflow.telemetry.instruments import Instruments, find_instruments, label_text
from mageflow.telemetry.names.metrics import Metric

__all__ = ["render"]

_GZIP_LEVEL = 1
"""Higher levels take several times as long for a tenth less."""

_END = b"# EOF\n"
"""The end mark of OpenMetrics. The encoder writes it after each collector, and it may be there once."""

_PROTOBUF = "application/vnd.google.protobuf"


def render(
    registry: CollectorRegistry, *, accept: str, accept_encoding: str, query: str, guard: Guard
) -> tuple[list[tuple[str, str]], bytes]:
    """Render one answer of ``/metrics``.

    Counters and histograms have created timestamps for a client that reads them as such. A Prometheus that stores a
    zero for them asks for protobuf first; any other would store each timestamp as one more series. If
    ``PROMETHEUS_DISABLE_CREATED_SERIES`` is set, its value decides instead.

    Args:
        registry: What is rendered.
        accept: The header ``Accept``: OpenMetrics, with exemplars, for a client that accepts it, else plain text.
        accept_encoding: The header ``Accept-Encoding``.
        query: The query string; ``name[]`` selects metrics.
        guard: Counts and logs each collector of the program that raises. Its metrics are left out of this answer.

    Returns:
        The headers and the body.
    """
    encoder, content_type = choose_encoder(accept)
    is_openmetrics = content_type.startswith("application/openmetrics-text")
    wanted = frozenset(parse_qs(query).get("name[]", ()))
    instruments = find_instruments(registry)
    # The others are read first, so that an error of one is counted in the same answer.
    parts = [
        _encoded(name, collector, encoder, guard)
        for name, collector in collectors_of(registry, wanted)
        if wanted or collector is not instruments
    ]
    if instruments is not None and not wanted:
        own = _Text(is_openmetrics=is_openmetrics, has_created=is_openmetrics and _reads_created(accept))
        parts.insert(0, own.of(instruments))
    if is_openmetrics:
        parts.append(_END)
    body = b"".join(parts)
    headers = [("Content-Type", content_type)]
    if gzip_accepted(accept_encoding):
        headers.append(("Content-Encoding", "gzip"))
        body = gzip.compress(body, _GZIP_LEVEL)
    return headers, body


def _encoded(name: str, collector: Collector, encoder: Callable[[Any], bytes], guard: Guard) -> bytes:
    try:
        return encoder(collector).removesuffix(_END)
    except Exception as error:  # noqa: BLE001 - a collector of the program must not hide the metrics of all others
        guard.count(f"collector {name}", type(error).__name__)
        return b""


def _reads_created(accept: str) -> bool:
    choice = os.environ.get("PROMETHEUS_DISABLE_CREATED_SERIES")
    if choice is not None:
        return choice.lower() not in {"1", "t", "true"}
    return _PROTOBUF in accept


class _Text:
    """The exposition of the instruments in one of the two text formats."""

    def __init__(self, *, is_openmetrics: bool, has_created: bool) -> None:
        self._is_openmetrics = is_openmetrics
        self._has_created = has_created
        self._lines: list[str] = []

    def of(self, instruments: Instruments) -> bytes:
        # Gauges first: they count what they have no room for.
        for metric, values in instruments.gauges.read():
            self._head(metric)
            for label_values, value in values:
                labels = label_text(metric, label_values)
                self._lines.append(f"{metric.name}{_braces(labels)} {_number(value)}\n")
        for metric, series in instruments.by_metric():
            self._head(metric)
            for labels, child in series:
                if metric.kind == "counter":
                    self._counter(metric, labels, child)
                else:
                    self._histogram(metric, labels, child)
        return "".join(self._lines).encode()

    def _head(self, metric: Metric) -> None:
        family = self._family(metric)
        self._lines.append(f"# HELP {family} {metric.help}\n# TYPE {family} {metric.kind}\n")

    def _family(self, metric: Metric) -> str:
        return metric.name.removesuffix("_total") if self._is_openmetrics else metric.name

    def _counter(self, metric: Metric, labels: str, child: Any) -> None:
        braces = _braces(labels)
        self._lines.append(f"{metric.name}{braces} {_number(child._value.get())}\n")
        self._created(metric, braces, child)

    def _histogram(self, metric: Metric, labels: str, child: Any) -> None:
        head = f"{metric.name}_bucket{{{labels}{',' if labels else ''}"
        has_exemplars = self._is_openmetrics and metric.exemplars
        total = 0.0
        for bound, bucket in zip(_bounds(metric), child._buckets, strict=True):
            total += bucket.get()
            exemplar = _exemplar_text(bucket.get_exemplar()) if has_exemplars else ""
            self._lines.append(f"{head}{bound}{total!r}{exemplar}\n")
        braces = _braces(labels)
        self._lines.append(f"{metric.name}_count{braces} {total!r}\n")
        self._lines.append(f"{metric.name}_sum{braces} {_number(child._sum.get())}\n")
        self._created(metric, braces, child)

    def _created(self, metric: Metric, braces: str, child: Any) -> None:
        if self._has_created:
            self._lines.append(f"{self._family(metric)}_created{braces} {child._created!r}\n")


@cache
def _bounds(metric: Metric) -> tuple[str, ...]:
    """The last label of each bucket, and the end of the labels."""
    return tuple(f'le="{floatToGoString(bound)}"}} ' for bound in (*metric.buckets, math.inf))


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _number(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else floatToGoString(value)


def _exemplar_text(exemplar: Any) -> str:
    if exemplar is None:
        return ""
    # Ids of traces and spans are hexadecimal.
    labels = ",".join(f'{key}="{value}"' for key, value in sorted(exemplar.labels.items()))
    return f" # {{{labels}}} {_number(exemplar.value)} {exemplar.timestamp}"
