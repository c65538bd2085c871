"""One request for locks on its way to a grant. Facts only."""

import asyncio
from dataclasses import dataclass

from mageflow.interceptors import LockAcquire, ResourceKey
from mageflow.store import LockOwner, LockVerdict

__all__ = ["LockRequest"]


@dataclass(slots=True, eq=False)
class LockRequest:
    """What is asked for by whom, and where the answer will arrive."""

    call: LockAcquire
    run: str
    resources: tuple[ResourceKey, ...]
    owner: LockOwner
    born_ms: int
    priority: int
    under: tuple[int, ...]
    can_wait: bool
    request: str = ""
    """Set each time it is sent."""
    session: str = ""
    """The session it was sent in. What is granted is worth nothing once that has ended."""
    is_queued: bool = False
    """Whether Redis is known to have it in a queue."""
    future: "asyncio.Future[LockVerdict] | None" = None

    def stand_in_line(self, verdict: LockVerdict) -> None:
        """Note on the live request whom it waits for."""
        self.call.waiting_for = verdict.waiting_for
        self.call.holders = (verdict.holder,) if verdict.holder else ()
