"""More execution time for a running attempt, whoever asks for it: a stagger, or a lock it waits for."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from mageflow.errors import TimeoutExtensionError
from mageflow.interceptors import Attempt, Interceptor, TimeoutExtension
from mageflow.invocation.host import Host
from mageflow.types import ExtensionReason

__all__ = ["TimeoutExtender"]


class TimeoutExtender:
    """Asks the engine for more time on behalf of the attempts that run in this process.

    Call it with an attempt, seconds and a reason; it answers with what was granted, 0 when refused.

    Args:
        host: Sends the request.
        interceptor: Told of it.
    """

    def __init__(self, host: Host, interceptor: Interceptor) -> None:
        self._host = host
        self._interceptor = interceptor
        self._contexts: dict[Attempt, Any] = {}

    @contextmanager
    def serving(self, attempt: Attempt, ctx: Any) -> Generator[None]:
        """Know the attempt's context for as long as it runs."""
        self._contexts[attempt] = ctx
        try:
            yield
        finally:
            del self._contexts[attempt]

    async def __call__(self, attempt: Attempt, seconds: float, reason: ExtensionReason) -> float:
        """Ask for ``seconds`` more and note what was granted on the attempt.

        A refusal is recorded by the interceptor and reported as 0; it is the caller's to live with. An attempt that
        does not run here (any more) gets nothing.
        """
        ctx = self._contexts.get(attempt)
        if ctx is None:
            return 0.0
        call = TimeoutExtension(attempt, reason, seconds)
        try:
            with self._interceptor.extend_timeout(call):
                call.deadline = await self._host.extend_timeout(ctx, seconds)
                call.granted_seconds = seconds
                attempt.extended_seconds += seconds
        except TimeoutExtensionError:
            return 0.0
        return call.granted_seconds
