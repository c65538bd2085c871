"""Chains, swarms and callbacks: creating them, running them, and sending what follows.

Every decision is taken by a script in ``mageflow.store``. This package sends what the scripts decide, and its
reconcilers send it again when a worker dies.
"""

from mageflow.flows.flows import Flows
from mageflow.flows.reconciler import Reconciler, Sweep

__all__ = ["Flows", "Reconciler", "Sweep"]
