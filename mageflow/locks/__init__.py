"""Locks on named resources. They show who waits for whom, and detect a deadlock at the moment it closes.

This package owns requests, leases, their renewal and the report of all locks. ``mageflow.store`` talks to Redis,
``mageflow.telemetry`` names metrics and spans; this package does neither, and does not know Hatchet.

Names are imported on first use (``docs/architecture.md``).
"""

from typing import TYPE_CHECKING

from mageflow._lazy import lazy_names

if TYPE_CHECKING:
    from mageflow.locks.block import LockBlock
    from mageflow.locks.exclusive import ExclusiveMark, exclusive_mark
    from mageflow.locks.lease import Lease
    from mageflow.locks.report import CycleMember, Holder, LocksReport, Waiter, shown_key
    from mageflow.locks.request import OnLost
    from mageflow.locks.resource import Resource
    from mageflow.locks.service import LockService
    from mageflow.locks.waitgraph import WaitGraph

__all__ = [
    "CycleMember",
    "ExclusiveMark",
    "Holder",
    "Lease",
    "LockBlock",
    "LockService",
    "LocksReport",
    "OnLost",
    "Resource",
    "WaitGraph",
    "Waiter",
    "exclusive_mark",
    "shown_key",
]

_HOMES = {
    "mageflow.locks.block": ("LockBlock",),
    "mageflow.locks.exclusive": ("ExclusiveMark", "exclusive_mark"),
    "mageflow.locks.lease": ("Lease",),
    "mageflow.locks.report": ("CycleMember", "Holder", "LocksReport", "Waiter", "shown_key"),
    "mageflow.locks.request": ("OnLost",),
    "mageflow.locks.resource": ("Resource",),
    "mageflow.locks.service": ("LockService",),
    "mageflow.locks.waitgraph": ("WaitGraph",),
}

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
