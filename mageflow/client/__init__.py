"""The client, assembled from the rooms below it.

`declarations` declares tasks, `state` is the door to what is kept in Redis, `mageflow` puts the two together with
telemetry and workers into the class users make.
"""

from mageflow.client.mageflow import HatchetMageflow, Mageflow

__all__ = ["HatchetMageflow", "Mageflow"]
