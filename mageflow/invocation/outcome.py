"""The outcome of an attempt, inferred from what the worker observes. Pure."""

import asyncio
from collections.abc import Callable

from mageflow.interceptors import Attempt
from mageflow.types import Outcome

__all__ = ["classify"]

_TIMEOUT_TOLERANCE_SECONDS = 1.0
_TIMEOUT_TOLERANCE_SHARE = 0.25


def classify(
    attempt: Attempt,
    error: BaseException | None,
    *,
    cancelled_after: float | None,
    is_non_retryable: Callable[[BaseException], bool],
) -> Outcome:
    """The outcome. Precedence: skipped, timed_out, cancelled, retried, failed, succeeded.

    The engine enforces execution timeouts and sends the worker a plain cancel signal (SDK 1.43.1,
    ``worker/runner/runner.py``). So a timeout is inferred: the signal arrived when the attempt had used up its timeout,
    extensions included. The engine counts from the assignment and the worker from the start of the attempt, so a signal
    that is one second (or a quarter of a short timeout) early counts as a timeout.

    Args:
        attempt: The attempt, with `Attempt.extended_seconds` up to date.
        error: The exception that left the attempt, or None.
        cancelled_after: Seconds into the attempt at which the cancel signal arrived, or None.
        is_non_retryable: Whether the engine makes no further attempt after an error.
    """
    if attempt.outcome == "skipped":
        return "skipped"
    if cancelled_after is not None and (error is not None or attempt.is_cancelled()):
        tolerance = min(_TIMEOUT_TOLERANCE_SECONDS, attempt.timeout_seconds * _TIMEOUT_TOLERANCE_SHARE)
        return "timed_out" if cancelled_after >= attempt.timeout_seconds - tolerance else "cancelled"
    if error is None:
        return "succeeded"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    may_retry = attempt.attempt_number < attempt.max_attempts and not is_non_retryable(error)
    return "retried" if may_retry else "failed"
