"""Which leases' blocks the running code is inside of.

A run may acquire a lock again inside its own block, and a wait counts towards a deadlock only for the leases whose
blocks enclose it. Both need this record. It knows nothing of Redis.
"""

from contextvars import ContextVar

from mageflow.interceptors import Attempt, current_attempt
from mageflow.locks.lease import Lease

__all__ = ["EnclosingLeases"]

_entered: ContextVar[tuple[Lease, ...]] = ContextVar("mageflow_entered_leases", default=())
"""Outermost first. Tasks started inside a block inherit it, because a block is expected to wait for them."""


class EnclosingLeases:
    """The enclosing leases of the running code.

    A lease around a whole task body is recorded with its attempt too: the body of a synchronous task runs in a pooled
    thread, which does not inherit context variables.
    """

    def __init__(self) -> None:
        self._around_body: dict[Attempt, tuple[Lease, ...]] = {}

    def current(self) -> tuple[Lease, ...]:
        """The enclosing leases, outermost first."""
        entered = tuple(each for each in _entered.get() if not each.is_inherited)
        attempt = current_attempt.get()
        around = self._around_body.get(attempt, ()) if attempt is not None else ()
        return (*(each for each in around if each not in entered and not each.is_inherited), *entered)

    def enter(self, lease: Lease, *, is_around_body: bool) -> None:
        """The running code has entered the block of this lease."""
        _entered.set((*_entered.get(), lease))
        attempt = current_attempt.get()
        if is_around_body and attempt is not None:
            self._around_body[attempt] = (*self._around_body.get(attempt, ()), lease)

    def leave(self, lease: Lease, *, is_around_body: bool) -> None:
        """The running code has left the block, in this context or in another."""
        _entered.set(tuple(each for each in _entered.get() if each is not lease))
        attempt = current_attempt.get()
        if is_around_body and attempt is not None:
            remaining = tuple(each for each in self._around_body.get(attempt, ()) if each is not lease)
            if remaining:
                self._around_body[attempt] = remaining
            else:
                self._around_body.pop(attempt, None)

    def forget(self, attempt: Attempt) -> None:
        """The attempt has ended."""
        self._around_body.pop(attempt, None)
