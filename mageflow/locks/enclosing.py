"""Which leases' blocks the running code is inside of.

A run may acquire a lock again inside its own block, and a wait counts towards a deadlock only for the leases whose
blocks enclose it. Both need this record. It knows nothing of Redis.
"""

from contextvars import ContextVar

from mageflow.locks.lease import Lease

__all__ = ["current", "enter", "leave"]

_entered: ContextVar[tuple[Lease, ...]] = ContextVar("mageflow_entered_leases", default=())
"""Outermost first. Tasks started inside a block inherit it, because a block is expected to wait for them.

A synchronous function runs in a copy of its attempt's context, so it is inside the blocks of its decorators.
"""


def current() -> tuple[Lease, ...]:
    """The enclosing leases of the running code, outermost first."""
    return tuple(each for each in _entered.get() if not each.is_inherited)


def enter(lease: Lease) -> None:
    """The running code has entered the block of this lease."""
    _entered.set((*_entered.get(), lease))


def leave(lease: Lease) -> None:
    """The running code has left the block, in this context or in another."""
    _entered.set(tuple(each for each in _entered.get() if each is not lease))
