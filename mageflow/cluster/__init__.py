"""The cluster view: one elected worker reads what all workers together have stored and locked.

This package contains the election and the reading. The names of the metrics are in ``mageflow.telemetry``, the commands
of Redis in ``mageflow.store``. Nothing here scans keys.
"""

from mageflow.cluster.observer import ClusterObserver

__all__ = ["ClusterObserver"]
