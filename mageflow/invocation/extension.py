"""More execution time for a running attempt: for a stagger, or for a lock it waits for."""

from mageflow.errors import TimeoutExtensionError
from mageflow.forks import when_forked
from mageflow.interceptors import Attempt, Interceptor, TimeoutExtension
from mageflow.invocation.context import AttemptContext
from mageflow.types import ExtensionReason

__all__ = ["TimeoutExtender"]


class TimeoutExtender:
    """Requests more execution time from the engine, for the attempts that run in this process.

    It is a `mageflow.interceptors.ExtendTimeout`: call it with an attempt, seconds and a reason.

    Args:
        interceptor: Enters `Interceptor.extend_timeout` around each request.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self._contexts: dict[Attempt, AttemptContext] = {}
        when_forked(self._begin_in_child)

    def _begin_in_child(self) -> None:
        self._contexts = {}  # the attempts run in the parent, and so does their connection to the engine

    def begin(self, attempt: Attempt, context: AttemptContext) -> None:
        """Accept requests for this attempt, until `end`."""
        self._contexts[attempt] = context

    def end(self, attempt: Attempt) -> None:
        """Refuse requests for this attempt from now on."""
        self._contexts.pop(attempt, None)

    async def __call__(self, attempt: Attempt, seconds: float, reason: ExtensionReason) -> float:
        """Request ``seconds`` more and add what is granted to `Attempt.extended_seconds`.

        Returns:
            The seconds granted. 0 when the engine refused, and for an attempt that does not run in this process.
        """
        context = self._contexts.get(attempt)
        if context is None:
            return 0.0
        call = TimeoutExtension(attempt, reason, seconds)
        try:
            with self._interceptor.extend_timeout(call):
                call.deadline = await context.extend_timeout(seconds)
                call.granted_seconds = seconds
                attempt.extended_seconds += seconds
        except TimeoutExtensionError:
            attempt.refused_extensions += 1
            return 0.0
        return call.granted_seconds
