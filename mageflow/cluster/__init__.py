"""What is true of all workers together, told by one of them.

The room owns the election and the reading. It refuses to name metrics (that is ``mageflow.telemetry``), to speak Redis
(that is ``mageflow.store``), and to scan keys.
"""

from mageflow.cluster.observer import ClusterObserver

__all__ = ["ClusterObserver"]
