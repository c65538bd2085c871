"""The outcome of an attempt is inferred from what the worker observes, timeouts included."""

import asyncio

import pytest

from mageflow.interceptors import Attempt, TaskInfo
from mageflow.invocation import classify


def outcome(
    error: BaseException | None,
    *,
    cancelled_after: float | None = None,
    timeout: float = 10.0,
    extended: float = 0.0,
    number: int = 1,
    max_attempts: int = 1,
    is_cancelled: bool = False,
) -> str:
    subject = Attempt(
        TaskInfo("t", "t", timeout, max_attempts - 1), "r", "s", "w", number, max_attempts, {}, lambda: is_cancelled
    )
    subject.extended_seconds = extended
    return classify(
        subject,
        error,
        cancelled_after=cancelled_after,
        is_non_retryable=lambda each: isinstance(each, PermissionError),
    )


CANCELLED = asyncio.CancelledError()


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("succeeded", outcome(None)),
        ("failed", outcome(ValueError())),
        ("retried", outcome(ValueError(), max_attempts=3)),
        ("failed", outcome(ValueError(), number=3, max_attempts=3)),
        ("failed", outcome(PermissionError(), max_attempts=3)),
        ("cancelled", outcome(CANCELLED, cancelled_after=3.0)),
        ("cancelled", outcome(CANCELLED)),
        ("timed_out", outcome(CANCELLED, cancelled_after=9.8)),
        ("timed_out", outcome(CANCELLED, cancelled_after=10.2, max_attempts=3)),
        ("cancelled", outcome(CANCELLED, cancelled_after=10.2, extended=5.0)),
        ("timed_out", outcome(CANCELLED, cancelled_after=14.9, extended=5.0)),
        ("timed_out", outcome(CANCELLED, cancelled_after=1.6, timeout=2.0)),
        ("cancelled", outcome(CANCELLED, cancelled_after=0.5, timeout=2.0)),
        ("timed_out", outcome(None, cancelled_after=10.0, is_cancelled=True)),
        ("timed_out", outcome(ValueError(), cancelled_after=10.0)),
    ],
)
def test_outcomes(expected: str, actual: str) -> None:
    """The order is: timed out, cancelled, retried, failed. Extensions count towards the timeout."""
    assert actual == expected
