"""Locks on named resources that show who waits for whom, and see a deadlock in the moment it closes.

The room owns requests, leases, their renewal and the picture of all locks. It refuses to speak Redis (that is
``mageflow.store``), to know Hatchet, and to name metrics or spans (that is ``mageflow.telemetry``).
"""

from mageflow.locks.block import LockBlock, OnLost
from mageflow.locks.exclusive import ExclusiveMark, exclusive_mark
from mageflow.locks.lease import Lease
from mageflow.locks.report import CycleMember, Holder, LocksReport, Waiter, shown_key
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
