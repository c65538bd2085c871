"""Notices at the caller that an awaited swarm will not end: all its items have ended, and it was not closed."""

import time

from mageflow.interceptors import Interceptor, SwarmLeftOpen
from mageflow.signatures import Signature, Status, SwarmSignature

__all__ = ["OpenSwarmWatch"]


class OpenSwarmWatch:
    """Watches one wait for a flow. Reports at most once.

    Args:
        interceptor: Gets a `SwarmLeftOpen`.
        after_seconds: How long the swarm must have had nothing to run. 0 turns the watch off.
    """

    def __init__(self, interceptor: Interceptor, after_seconds: float) -> None:
        self._interceptor = interceptor
        self._after_seconds = after_seconds
        self._idle: tuple[int, float] | None = None
        self._is_done = not after_seconds

    def look(self, flow: Signature) -> None:
        """Look at the flow as it was just read."""
        if self._is_done or not isinstance(flow, SwarmSignature):
            return
        if flow.is_closed or flow.pending or flow.running or flow.status is not Status.ACTIVE:
            self._idle = None
            return
        now = time.monotonic()
        if self._idle is None or self._idle[0] != flow.total:
            self._idle = (flow.total, now)
        elif now - self._idle[1] >= self._after_seconds:
            self._is_done = True
            advice = (
                "every item has ended and the swarm is not closed, so it does not end: call await swarm.close() after "
                "the last add, or create it with closed=True"
            )
            self._interceptor.event(SwarmLeftOpen(flow.key, flow.name, flow.total, advice))
