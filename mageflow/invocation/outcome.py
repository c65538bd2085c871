"""The outcome of an attempt, inferred from what the worker observes. Pure."""

import asyncio
from collections.abc import Callable, Sequence

from mageflow.interceptors import Attempt
from mageflow.types import Outcome

__all__ = ["classify", "failure", "is_uncertain", "worst"]

_TIMEOUT_TOLERANCE_SECONDS = 1.0
_TIMEOUT_TOLERANCE_SHARE = 0.25
_LATE_MARGIN_SECONDS = 0.1
"""Hatchet counts from the assignment: this much earlier than the worker's clock."""


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
        return "timed_out" if cancelled_after >= _earliest_timeout(attempt) else "cancelled"
    if error is None:
        return "succeeded"
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return failure(attempt, is_non_retryable=is_non_retryable(error))


def failure(attempt: Attempt, *, is_non_retryable: bool = False) -> Outcome:
    """The outcome of a failed attempt: ``retried`` if Hatchet makes another one."""
    return "retried" if attempt.attempt_number < attempt.max_attempts and not is_non_retryable else "failed"


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a batch: ``succeeded`` if all its runs did, else the first other one."""
    for each in outcomes:
        if each != "succeeded":
            return each
    return "succeeded"


def is_uncertain(
    attempt: Attempt, *, cancelled_after: float | None, stalled_before: float, stalled_within: float
) -> bool:
    """Whether the worker cannot know how Hatchet ended this attempt, because its clock or the signal may be late.

    - Hatchet did not grant more time: often because it had ended the attempt.
    - No signal arrived, but the timeout may have passed: the event loop was blocked when the run arrived, or still is
      when the function returns.
    - A signal arrived, but it may have been sent on the other side of the timeout.

    Args:
        attempt: The attempt, concluded.
        cancelled_after: Seconds into the attempt at which the cancel signal was seen, or None.
        stalled_before: The longest time that the event loop was blocked shortly before the attempt began.
        stalled_within: The same, for the time since then.
    """
    if attempt.outcome in (None, "skipped") or attempt.evicted:
        return False
    if attempt.refused_extensions:
        return True
    if cancelled_after is None:
        return attempt.elapsed_seconds + stalled_before >= attempt.timeout_seconds - _LATE_MARGIN_SECONDS
    return cancelled_after - stalled_within < _earliest_timeout(attempt) <= cancelled_after + stalled_before


def _earliest_timeout(attempt: Attempt) -> float:
    timeout = attempt.timeout_seconds
    return timeout - min(_TIMEOUT_TOLERANCE_SECONDS, timeout * _TIMEOUT_TOLERANCE_SHARE)
