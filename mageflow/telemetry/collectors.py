"""The collectors of a registry, one by one: one of the program that raises must not hide the metrics of all others."""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

__all__ = ["collectors_of"]


def collectors_of(registry: CollectorRegistry, wanted: frozenset[str] = frozenset()) -> Iterator[tuple[str, Collector]]:
    """What ``registry.collect()`` reads, in its order, each with a name for the log.

    Args:
        registry: Whose collectors are read.
        wanted: Names of metrics; without them all are read.

    Yields:
        The name of a collector's first metric, or of its class if it does not say its metrics, and the collector.
    """
    private: Any = registry
    with private._lock:
        found: list[tuple[Collector, list[str]]] = list(private._collector_to_names.items())
        without_names: list[Any] = list(getattr(private, "_collectors_without_names", ()))
        target = private._target_info_metric() if private._target_info else None
    if target is not None and (not wanted or "target_info" in wanted):
        yield "target_info", _Target(target)
    for collector, names in found:
        name = names[0] if names else type(collector).__name__
        if not wanted:
            yield name, collector
        elif not wanted.isdisjoint(names) or collector in without_names:
            yield name, _Selected(collector, wanted)


class _Target(Collector):
    """What ``set_target_info`` of a registry has set."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def collect(self) -> Iterable[Family]:
        return [self._family]


class _Selected(Collector):
    """The wanted metrics of one collector."""

    def __init__(self, collector: Collector, wanted: frozenset[str]) -> None:
        self._collector = collector
        self._wanted = wanted

    def collect(self) -> Iterator[Family]:
        families: Iterable[Any] = self._collector.collect()
        for family in families:
            selected: Family | None = family._restricted_metric(self._wanted)
            if selected is not None:
                yield selected
