"""The client that programs construct.

`declarations` declares tasks, `operations` are the methods that use Redis, and `mageflow` combines the two with
telemetry and workers.
"""

from mageflow.client.mageflow import HatchetMageflow, Mageflow

__all__ = ["HatchetMageflow", "Mageflow"]
