"""The claim of one process to be alive: which session it is in, and until when Redis is known to keep that session.

Every lock stands as long as the session it was taken in does. A session that may have ended is never used again: its
successor has another name, so the old one's locks can never be mistaken for the new one's.

This file owns the name and the deadline of a session. It refuses to talk to Redis, and to know what is held.
"""

import uuid
from collections.abc import Callable

__all__ = ["SessionLease"]


class SessionLease:
    """One process's sessions, one after the other, on one event loop.

    Args:
        lease_seconds: How long Redis keeps a session after it was heard of.
        monotonic: Measures that; must keep counting while the process is stopped.

    Attributes:
        process: Unique to this object: verdicts for its queued requests are sent there.
        is_open: Whether Redis is known to have the session.
    """

    def __init__(self, lease_seconds: float, monotonic: Callable[[], float]) -> None:
        self.process = uuid.uuid4().hex[:16]
        self.is_open = False
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._epoch = 0
        self._deadline = 0.0

    @property
    def session(self) -> str:
        """The name of the session that is used now."""
        return f"{self.process}.{self._epoch}"

    @property
    def may_have_ended(self) -> bool:
        """Whether Redis may have given this session up, by the clock of this process alone."""
        return self.is_open and self._monotonic() >= self._deadline

    def prolong(self, sent: float) -> None:
        """Redis has answered a call that was sent then, and keeps the session for a lease from that moment at least."""
        self.is_open = True
        self._deadline = max(self._deadline, sent + self._lease_seconds)

    def end(self) -> None:
        """Go on to the next session."""
        self._epoch += 1
        self.is_open = False
        self._deadline = 0.0

    def deadline_of(self, session: str) -> Callable[[], float]:
        """Until when a session is known to stand, asked again and again; 0 once another one has taken its place."""
        return lambda: self._deadline if session == self.session else 0.0
