"""Readings of the whole cluster, made by one elected worker.

This room owns the election and the readings. It refuses to name metrics (`mageflow.telemetry` does), to talk to Redis
(`mageflow.store` does), and to scan keys.
"""

from mageflow.cluster.observer import ClusterObserver
from mageflow.cluster.queue_observer import QueueObserver

__all__ = ["ClusterObserver", "QueueObserver"]
