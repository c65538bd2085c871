"""Other shapes of the metrics that are sent by OTLP: what was added since the last push, and exponential histograms.

Both are made of the cumulative values with explicit buckets that ``prometheus_client`` keeps.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

__all__ = ["Deltas", "exponential"]

_FINEST_SCALE: Final = 3
"""Buckets of 9 %. A value is at most 12 % from the middle of its explicit bucket, so a quantile stays within 25 %."""
_MOST_BUCKETS: Final = 160
"""The default of the specification; a receiver would merge more of them."""
_DELTA: Final = AggregationTemporality.DELTA

_Series = tuple[str, tuple[tuple[str, object], ...]]
_Seen = tuple[float, tuple[int, ...]]
"""The value of a counter, or the sum of a histogram and its counts by bucket."""


class Deltas:
    """Turns cumulative metrics into what was added since the last push that was accepted.

    A push that the collector does not accept loses nothing: the next one covers its time too. Gauges stay as they are.
    A series without an addition is sent once, when it appears, and then left out.
    """

    def __init__(self, started_ns: int) -> None:
        self._since_ns = started_ns
        self._accepted: dict[_Series, _Seen] = {}
        self._pushed: dict[_Series, _Seen] = {}

    def of(self, metrics: Iterable[Metric]) -> list[Metric]:
        """The additions. Call `accept` when they have arrived."""
        self._pushed = {}
        found: list[Metric] = []
        for metric in metrics:
            data = metric.data
            if isinstance(data, Sum):
                sums = [new for each in data.data_points if (new := self._number(metric.name, each)) is not None]
                if sums:
                    found.append(replace(metric, data=Sum(sums, _DELTA, data.is_monotonic)))
            elif isinstance(data, Histogram):
                points = [new for each in data.data_points if (new := self._histogram(metric.name, each)) is not None]
                if points:
                    found.append(replace(metric, data=Histogram(points, _DELTA)))
            else:
                found.append(metric)
        return found

    def accept(self, now_ns: int) -> None:
        """What `of` has answered last was accepted: the next additions are since then."""
        self._accepted, self._since_ns = self._pushed, now_ns

    def _number(self, name: str, point: NumberDataPoint) -> NumberDataPoint | None:
        series = _series(name, point)
        self._pushed[series] = point.value, ()
        before = self._accepted.get(series)
        added = point.value - before[0] if before is not None else point.value
        if before is not None and added == 0:
            return None
        if added < 0:  # the program has cleared the metric
            added = point.value
        return replace(
            point, start_time_unix_nano=self._since_ns, value=added,
            exemplars=[each for each in point.exemplars if each.time_unix_nano > self._since_ns],
        )  # fmt: skip

    def _histogram(self, name: str, point: HistogramDataPoint) -> HistogramDataPoint | None:
        series = _series(name, point)
        counts = tuple(point.bucket_counts)
        self._pushed[series] = point.sum, counts
        before = self._accepted.get(series)
        if before is None or len(before[1]) != len(counts) or any(map(int.__lt__, counts, before[1])):
            before = 0.0, (0,) * len(counts)
        elif before[1] == counts:
            return None
        added = [now - then for now, then in zip(counts, before[1], strict=True)]
        return replace(
            point, start_time_unix_nano=self._since_ns, count=sum(added), sum=point.sum - before[0],
            bucket_counts=added,
            exemplars=[each for each in point.exemplars if each.time_unix_nano > self._since_ns],
        )  # fmt: skip


def _series(name: str, point: NumberDataPoint | HistogramDataPoint) -> _Series:
    return name, tuple((point.attributes or {}).items())


def exponential(metric: Metric) -> Metric:
    """A histogram with explicit buckets as an exponential one; any other metric as it is.

    Each explicit bucket is counted at its geometric middle; what is below the first bound at that bound, and what is
    above the last one just above it. Count and sum are exact.
    """
    data = metric.data
    if not isinstance(data, Histogram):
        return metric
    points = [_exponential_point(each) for each in data.data_points]
    return replace(metric, data=ExponentialHistogram(points, data.aggregation_temporality))


def _exponential_point(point: HistogramDataPoint) -> ExponentialHistogramDataPoint:
    bounds = list(point.explicit_bounds)
    positive: list[tuple[float, int]] = []
    zeros, negative = 0, list[tuple[float, int]]()
    for number, count in enumerate(point.bucket_counts):
        value = _middle(bounds, number)
        if not count:
            continue
        if value == 0.0:
            zeros += count
        else:
            (positive if value > 0.0 else negative).append((abs(value), count))
    scale = _FINEST_SCALE
    while any(_width(each, scale) > _MOST_BUCKETS for each in (positive, negative)):
        scale -= 1
    return ExponentialHistogramDataPoint(
        attributes=point.attributes,
        start_time_unix_nano=point.start_time_unix_nano,
        time_unix_nano=point.time_unix_nano,
        count=point.count,
        sum=point.sum,
        scale=scale,
        zero_count=zeros,
        positive=_buckets(positive, scale),
        negative=_buckets(negative, scale),
        flags=0,
        min=point.min,
        max=point.max,
        exemplars=point.exemplars,
    )


def _middle(bounds: list[float], number: int) -> float:
    """The value at which a bucket is counted."""
    if not bounds:
        return 0.0
    if number == 0:
        return bounds[0]
    if number == len(bounds):
        return math.nextafter(bounds[-1], math.inf)
    low, high = bounds[number - 1], bounds[number]
    if low > 0.0 or high < 0.0:
        return math.copysign(math.sqrt(low * high), high)
    return (low + high) / 2


def _index(value: float, scale: int) -> int:
    """The bucket of a positive value: its upper bound belongs to it."""
    return math.ceil(math.ldexp(math.log2(value), scale)) - 1


def _width(values: list[tuple[float, int]], scale: int) -> int:
    indexes = [_index(value, scale) for value, _ in values]
    return max(indexes) - min(indexes) + 1 if indexes else 0


def _buckets(values: list[tuple[float, int]], scale: int) -> Buckets:
    if not values:
        return Buckets(0, [])
    counts: dict[int, int] = {}
    for value, count in values:
        index = _index(value, scale)
        counts[index] = counts.get(index, 0) + count
    offset = min(counts)
    return Buckets(offset, [counts.get(index, 0) for index in range(offset, max(counts) + 1)])
