"""The session of one process: its id, and until when Redis is known to keep it.

A lock lives as long as the session it was taken in. A session that may have ended is never used again: the next one
has another id, so locks of the old one cannot be mistaken for locks of the new one.

This file owns the id and the deadline. It does not talk to Redis.
"""

import uuid
from collections.abc import Callable
from typing import Final

__all__ = ["SessionLease"]

_RENEWALS_PER_LEASE: Final = 3
_RETRIES_PER_LEASE: Final = 15


class SessionLease:
    """The sessions of one process on one event loop, one after the other.

    Args:
        lease_seconds: How long Redis keeps a session after its last renewal.
        monotonic: The clock, in seconds. It must not stop while the process is stopped.

    Attributes:
        lease_seconds: As given.
        renewal_seconds: Time between renewals: a third of the lease.
        retry_seconds: Time until a call that Redis did not answer is repeated: a fifteenth of the lease.
        monotonic: As given.
        wake_id: Unique to this object: verdicts on its queued requests arrive on the wake list of this id.
        session_id: The id of the current session.
        is_open: Whether Redis is known to have the session.
    """

    def __init__(self, lease_seconds: float, monotonic: Callable[[], float]) -> None:
        self.wake_id = uuid.uuid4().hex[:16]
        self.is_open = False
        self.lease_seconds = lease_seconds
        self.renewal_seconds = lease_seconds / _RENEWALS_PER_LEASE
        self.retry_seconds = lease_seconds / _RETRIES_PER_LEASE
        self.monotonic = monotonic
        self.session_id = f"{self.wake_id}.0"
        self._number = 0
        self._deadline = 0.0

    @property
    def may_have_ended(self) -> bool:
        """Whether Redis may have ended the current session, by the clock of this process alone."""
        return self.is_open and self.monotonic() >= self._deadline

    def extend(self, sent_at: float) -> None:
        """Redis has answered a call sent at that time, so it keeps the session for a whole lease from then."""
        self.is_open = True
        self._deadline = max(self._deadline, sent_at + self.lease_seconds)

    def start_next(self) -> None:
        """Leave the current session for a new one."""
        self._number += 1
        self.session_id = f"{self.wake_id}.{self._number}"
        self.is_open = False
        self._deadline = 0.0

    def has_expired(self, session_id: str) -> bool:
        """Whether Redis may have ended this session. Needs no round trip, so it is right just after a pause."""
        return session_id != self.session_id or self.monotonic() >= self._deadline
