"""The client that programs construct.

`declarations` declares tasks, `creation` and `stored` have the methods that use Redis, `connected` decides when the
services behind them are made, and `mageflow` combines all of it with telemetry and workers.
"""

from mageflow.client.mageflow import HatchetMageflow, Mageflow

__all__ = ["HatchetMageflow", "Mageflow"]
