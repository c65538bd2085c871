"""Readings of the whole cluster, made by one elected worker.

This room owns the election and the readings. It refuses to name metrics (`mageflow.telemetry` does), to talk to Redis
(`mageflow.store` does), and to scan keys.

Names are imported on first use (``docs/architecture.md``).
"""

from typing import TYPE_CHECKING

from mageflow._lazy import lazy_names

if TYPE_CHECKING:
    from mageflow.cluster.observer import ClusterObserver
    from mageflow.cluster.queue_observer import QueueObserver

__all__ = ["ClusterObserver", "QueueObserver"]

_HOMES = {
    "mageflow.cluster.observer": ("ClusterObserver",),
    "mageflow.cluster.queue_observer": ("QueueObserver",),
}

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
