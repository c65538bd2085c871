"""Chains, swarms and callbacks: creating them, running them, and sending what follows.

Every decision is taken by a script in ``mageflow.store``. This package sends what the scripts decide, and its
reconcilers send it again when a worker dies.

Names are imported on first use (``docs/architecture.md``).
"""

from typing import TYPE_CHECKING

from mageflow._lazy import lazy_names

if TYPE_CHECKING:
    from mageflow.flows.flows import Flows
    from mageflow.flows.reconciler import Reconciler, Sweep

__all__ = ["Flows", "Reconciler", "Sweep"]

_HOMES = {
    "mageflow.flows.flows": ("Flows",),
    "mageflow.flows.reconciler": ("Reconciler", "Sweep"),
}

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
