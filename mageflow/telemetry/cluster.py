"""Gauges of the whole cluster, on the one process that leads; the others say that they do not."""

import time
from collections.abc import Iterable

from mageflow.interceptors import ClusterView
from mageflow.telemetry.gauges import Sample
from mageflow.telemetry.names import metrics

__all__ = ["ClusterGauges"]


class ClusterGauges:
    """What the leader last read of the whole cluster; nothing at all on the others.

    A reading whose lease has ended is not shown: nobody knows whether it still holds. A
    `mageflow.telemetry.gauges.GaugeSource`.
    """

    def __init__(self) -> None:
        self._view: ClusterView | None = None

    def show(self, view: ClusterView) -> bool:
        """Take a new reading; returns whether leadership changed with it."""
        was_leader = self._view is not None and self._view.is_leader
        self._view = view
        return was_leader != view.is_leader

    def samples(self) -> Iterable[Sample]:
        """See `mageflow.telemetry.gauges.GaugeSource`."""
        view = self._view
        if view is None:
            return
        leads = view.is_leader and time.monotonic() < view.believed_until
        yield metrics.CLUSTER_LEADER, (), float(leads)
        if leads:
            yield from _samples(view)


def _samples(view: ClusterView) -> Iterable[Sample]:
    for (kind, status), count in view.signatures.items():
        yield metrics.SIGNATURES, (kind, status), count
    for kind in metrics.FLOW_KINDS:
        yield metrics.FLOWS_ACTIVE, (kind,), view.active.get(kind, 0.0)
        yield metrics.FLOW_OLDEST_ACTIVE, (kind,), view.oldest_seconds.get(kind, 0.0)
    for state in metrics.ITEM_STATES:
        yield metrics.SWARM_ITEMS, (state,), view.items.get(state, 0.0)
    for lock, count in view.orphaned.items():
        yield metrics.LOCKS_ORPHANED, (lock,), count
    for element in metrics.GRAPH_ELEMENTS:
        yield metrics.WAIT_GRAPH_SIZE, (element,), view.wait_graph.get(element, 0.0)
