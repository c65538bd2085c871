"""Counters of many endpoints over a short window: increases, rates and percentiles."""

from collections import deque
from collections.abc import Iterable, Mapping

from mageflow.cli.top.sources.endpoints import Labels, Samples, label
from mageflow.telemetry.names import metrics

__all__ = ["WINDOW_SECONDS", "CounterWindow", "quantile"]

WINDOW_SECONDS = 60.0
_SPACING_SECONDS = 4.0
"""Between two kept readings: a window has at most 16 of them."""

_KEPT = frozenset(
    {
        metrics.TASK_RUNS.name,
        f"{metrics.TASK_RUN_DURATION.name}_bucket",
        f"{metrics.TASK_QUEUE_WAIT.name}_bucket",
    }
)

Buckets = Mapping[float, float]
"""Cumulative counts by upper bound."""


class CounterWindow:
    """The counters of every endpoint in the last minute."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[tuple[float, Samples]]] = {}
        self._now: dict[str, tuple[float, Samples]] = {}

    def add(self, url: str, at: float, samples: Samples) -> None:
        """Take a reading of an endpoint, at this reading of a monotonic clock."""
        counters = {name: values for name, values in samples.items() if name in _KEPT}
        kept = self._kept.setdefault(url, deque())
        if url in self._now and _has_restarted(self._now[url][1], counters):
            kept.clear()  # its counters began again; what they were before is not in the new ones
            kept.append((self._now[url][0], {}))
        if not kept or at - kept[-1][0] >= _SPACING_SECONDS:
            kept.append((at, counters))
        while len(kept) > 1 and at - kept[1][0] >= WINDOW_SECONDS:
            kept.popleft()
        self._now[url] = (at, counters)

    def forget(self, url: str) -> None:
        """Leave out an endpoint that does not answer any more."""
        self._kept.pop(url, None)
        self._now.pop(url, None)

    @property
    def seconds(self) -> float:
        """The length of the window now; 0 before an endpoint was read twice."""
        return max((at - self._kept[url][0][0] for url, (at, _) in self._now.items()), default=0.0)

    def total(self, metric: str) -> dict[Labels, float]:
        """The last values, summed over endpoints."""
        return _sum((labels, value) for _, last in self._now.values() for labels, value in last.get(metric, {}).items())

    def increase(self, metric: str) -> dict[Labels, float]:
        """The increases in the window, summed over endpoints."""
        return _sum(
            (labels, value - self._kept[url][0][1].get(metric, {}).get(labels, 0.0))
            for url, (_, last) in self._now.items()
            for labels, value in last.get(metric, {}).items()
        )


def _has_restarted(before: Samples, after: Samples) -> bool:
    runs = metrics.TASK_RUNS.name
    later = after.get(runs, {})
    return any(later.get(labels, 0.0) < value for labels, value in before.get(runs, {}).items())


def _sum(values: Iterable[tuple[Labels, float]]) -> dict[Labels, float]:
    sums: dict[Labels, float] = {}
    for labels, value in values:
        sums[labels] = sums.get(labels, 0.0) + value
    return sums


def buckets_of(values: Mapping[Labels, float], task: str) -> Buckets:
    """Buckets of one task, over its other labels."""
    found: dict[float, float] = {}
    for labels, count in values.items():
        if label(labels, "task") == task:
            bound = float(label(labels, "le"))
            found[bound] = found.get(bound, 0.0) + count
    return found


def quantile(share: float, buckets: Buckets) -> float | None:
    """What ``histogram_quantile`` of Prometheus computes; None for an empty histogram.

    Args:
        share: Between 0 and 1.
        buckets: Cumulative counts by upper bound, with one for infinity.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    wanted = share * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below) if count > below else bound
        lower, below = bound, count
    return lower
