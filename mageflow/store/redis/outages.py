"""Notices when Redis goes away or begins to refuse, and when it answers again. One event for each."""

import threading
import time
from typing import Final, cast

from mageflow.errors import StoreError, StoreUnavailableError
from mageflow.forks import when_forked
from mageflow.interceptors import Interceptor, RedisOutage
from mageflow.types import OutageReason

__all__ = ["OutageWatch"]

_OPTIONAL: Final = frozenset({"server"})
"""Operations that an ACL may forbid for good: a worker examines its server and works without an answer."""


class OutageWatch:
    """The outages of one client: at most one for each reason. Safe to use from several threads.

    Args:
        interceptor: Gets a `RedisOutage` at the begin and at the end of each.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self._lock = threading.Lock()
        self._outages: dict[OutageReason, _Outage] = {}
        when_forked(self._begin_in_child)

    def _begin_in_child(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it

    def failed(self, error: StoreError) -> None:
        """A round trip failed. Begins an outage if a repetition may heal the error, and none of its reason goes on."""
        if not isinstance(error, StoreUnavailableError) or error.operation in _OPTIONAL:
            return
        reason = cast("OutageReason", error.outage)
        with self._lock:
            outage = self._outages.get(reason)
            if outage is not None:
                outage.failures += 1
                outage.operations.add(error.operation)
                return
            self._outages[reason] = _Outage(error)
        self._interceptor.event(RedisOutage(False, reason, error.operation, error.advice))

    def answered(self, operation: str) -> None:
        """A round trip succeeded. Ends outages, except those in which Redis answers this operation all the time."""
        if not self._outages:
            return  # the usual case takes no lock
        with self._lock:
            over: dict[OutageReason, _Outage] = {
                reason: outage
                for reason, outage in self._outages.items()
                # A full server still answers reads: only what it refused shows that it accepts again.
                if reason in ("unreachable", "loading") or operation in outage.operations
            }
            for reason in over:
                del self._outages[reason]
        for reason, outage in over.items():
            seconds = time.monotonic() - outage.started_at
            self._interceptor.event(
                RedisOutage(True, reason, operation, outage.advice, seconds=seconds, failures=outage.failures)
            )


class _Outage:
    def __init__(self, error: StoreUnavailableError) -> None:
        self.advice = error.advice
        self.operations = {error.operation}
        self.failures = 1
        self.started_at = time.monotonic()
