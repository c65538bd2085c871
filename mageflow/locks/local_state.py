"""What one process believes to hold and to wait for.

This file owns that belief, and how it is corrected by what Redis says. It refuses to talk to Redis.
"""

from collections.abc import Collection

from mageflow.locks.lease import Grant
from mageflow.locks.notifier import EventPublisher
from mageflow.locks.request import LockRequest
from mageflow.store import LockReply, LockVerdict

__all__ = ["LocalState"]


class LocalState:
    """Grants and pending_requests of one session, by request.

    Args:
        events: Told of leases that are lost.
    """

    def __init__(self, events: EventPublisher) -> None:
        self._events = events
        self.grants: dict[str, Grant] = {}
        self.waiting: dict[str, LockRequest] = {}

    def grants_of(self, run: str) -> list[Grant]:
        """What a run holds."""
        return [each for each in self.grants.values() if each.run == run]

    def petitions_of(self, run: str) -> list[LockRequest]:
        """What a run waits for."""
        return [each for each in self.waiting.values() if each.run == run]

    def settle(self, request: str, verdict: LockVerdict) -> None:
        """Answer a request that waits; the first answer counts."""
        pending = self.waiting.get(request)
        if pending is not None and pending.future is not None and not pending.future.done():
            pending.future.set_result(verdict)

    def lose(self, grant: Grant, tokens: Collection[int] | None = None) -> None:
        """Note that locks of a grant (all, unless some are named) are no longer held, and tell whoever holds them."""
        every = {each.token for each in grant.locks}
        fresh = (every if tokens is None else every.intersection(tokens)) - grant.lost
        grant.lost |= fresh
        for held in grant.locks:
            if held.token in fresh:
                self._events.lost(held.hold)
        if fresh:
            for callback in list(grant.on_lost):
                callback()

    def lose_everything(self) -> None:
        """The session has ended: what is held is lost, what is waited for must be asked for again."""
        for grant in list(self.grants.values()):
            self.lose(grant)
        for pending in list(self.waiting.values()):
            self.settle(pending.request, LockVerdict("gone"))

    def conclude(self, grant: Grant) -> None:
        """It is given back, or on its way to be."""
        if not grant.is_ended:
            grant.lost.update(each.token for each in grant.locks if grant.is_lost(each.token))
            grant.is_ended = True
            grant.close()

    def compare(self, reply: LockReply) -> None:
        """Bring what is believed in line with what a renewal found."""
        for grant in list(self.grants.values()):
            self.lose(grant, reply.gone_tokens)
        for request, verdict in reply.waits.items():
            pending = self.waiting.get(request)
            if pending is not None and verdict.kind == "queued":
                pending.stand_in_line(verdict)
            elif pending is not None:
                self.settle(request, verdict)
