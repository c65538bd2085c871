"""The holds and waits of one session, as this process knows them.

This file owns that belief, and how answers of Redis correct it. It does not talk to Redis.
"""

from collections.abc import Collection

from mageflow.locks.lease import Grant
from mageflow.locks.notifier import EventPublisher
from mageflow.locks.request import LockRequest
from mageflow.locks.session_lease import SessionLease
from mageflow.store import LockReply, LockVerdict

__all__ = ["LocalState"]


class LocalState:
    """Grants and waiting requests of one session, by request id.

    Args:
        session_lease: The session they belong to.
        events: Publishes leases that are lost.
    """

    def __init__(self, session_lease: SessionLease, events: EventPublisher) -> None:
        self._session_lease = session_lease
        self._events = events
        self.grants: dict[str, Grant] = {}
        self.waiting: dict[str, LockRequest] = {}

    def grants_of(self, attempt_id: str) -> list[Grant]:
        """The holds of an attempt. May be called from another thread."""
        return [each for each in list(self.grants.values()) if each.request.attempt_id == attempt_id]

    def waiting_of(self, attempt_id: str) -> list[LockRequest]:
        """The waits of an attempt. May be called from another thread."""
        return [each for each in list(self.waiting.values()) if each.attempt_id == attempt_id]

    def resolve(self, request_id: str, verdict: LockVerdict) -> None:
        """Deliver the verdict on a waiting request. The first verdict counts."""
        request = self.waiting.get(request_id)
        if request is not None and request.verdict is not None and not request.verdict.done():
            request.verdict.set_result(verdict)

    def cancel_waiting(self, attempt_id: str) -> None:
        """Cancel what an attempt waits for: the attempt has ended."""
        for request in self.waiting_of(attempt_id):
            if request.verdict is not None and not request.verdict.done():
                request.verdict.cancel()

    def mark_lost(self, grant: Grant, tokens: Collection[int] | None = None) -> None:
        """Locks of a grant are no longer held: those of ``tokens``, or all. Publish it and call its callbacks."""
        every = {each.token for each in grant.holds}
        newly_lost = (every if tokens is None else every.intersection(tokens)) - grant.lost_tokens
        grant.lost_tokens |= newly_lost
        for hold in grant.holds:
            if hold.token in newly_lost:
                self._events.lease_lost(hold)
        if newly_lost:
            for callback in list(grant.on_lost):
                callback()

    def mark_ended(self, grant: Grant) -> None:
        """The grant is released, or is being released: leave the interceptors around its holds."""
        if grant.is_ended:
            return
        for hold in grant.holds:
            hold.is_lost = grant.is_lost(hold.token)
            if hold.is_lost and hold.token not in grant.lost_tokens:
                # The block ends before a renewal has noticed it, as after a pause of the process.
                grant.lost_tokens.add(hold.token)
                self._events.lease_lost(hold)
        grant.is_ended = True
        grant.hold_scopes.close()

    def end_session(self) -> None:
        """The session has ended: every grant is lost, every waiting request must be sent again."""
        self._session_lease.start_next()
        for grant in list(self.grants.values()):
            self.mark_lost(grant)
        for request in list(self.waiting.values()):
            self.resolve(request.request_id, LockVerdict("gone"))

    def end_expired_session(self) -> None:
        """End the session if Redis may have ended it."""
        if self._session_lease.may_have_ended:
            self.end_session()

    def apply_renewal(self, reply: LockReply) -> None:
        """Correct what is believed by the answer to a renewal."""
        for grant in list(self.grants.values()):
            self.mark_lost(grant, reply.gone_tokens)
        for request_id, verdict in reply.waits.items():
            request = self.waiting.get(request_id)
            if request is not None and verdict.kind == "queued":
                request.note_queued(verdict)
            elif request is not None:
                self.resolve(request_id, verdict)
