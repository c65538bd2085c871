"""How an attempt ended, told from what the worker can see. Pure."""

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
    """Name the outcome. Precedence: skipped, timed_out, cancelled, retried, failed, succeeded.

    Execution timeouts are enforced by the engine and reach the worker as a plain cancel signal (SDK 1.43.1,
    ``worker/runner/runner.py``), so a timeout is inferred: the signal came when the attempt had used up its timeout,
    extensions included. The engine counts from assignment and the worker from the wrapper's entry, so a signal up to
    one second (a quarter of a short timeout) early still counts.

    Args:
        attempt: The attempt, with `Attempt.extended_seconds` up to date.
        error: What left the attempt, or None.
        cancelled_after: Seconds into the attempt at which the cancel signal arrived, or None.
        is_non_retryable: Whether the engine will not try again after an error.
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
