"""Chains, swarms and callbacks: what they are made of, how what follows is sent, and who comes back for the rest.

Every decision is taken by a script in ``mageflow.store``; this room names things and delivers.
"""

from mageflow.flows.flows import Flows, Settlement
from mageflow.flows.reconciler import Reconciler, Sweep

__all__ = ["Flows", "Reconciler", "Settlement", "Sweep"]
