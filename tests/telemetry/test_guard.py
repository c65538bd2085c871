"""The guard: failures are counted, told once a minute, and stop costing anything after a hundred."""

import asyncio
import logging

import pytest

from mageflow.telemetry.guard import LOG_EVERY_SECONDS, REST_SECONDS, TRIP_AFTER, Guard
from mageflow.testing import capture_logs
from tests.telemetry.conftest import Stopwatch


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def counted() -> list[str]:
    return []


@pytest.fixture
def guard(clock: Stopwatch, counted: list[str]) -> Guard:
    return Guard(counted.append, monotonic=clock)


def fail(guard: Guard, times: int = 1) -> None:
    for _ in range(times):
        with guard.traces.at("site"):
            raise ValueError("secret")


def test_a_failure_ends_at_the_guard(guard: Guard, counted: list[str]):
    """It is counted by signal and does not get out; cancellation does."""
    fail(guard)
    with pytest.raises(asyncio.CancelledError), guard.traces.at("site"):
        raise asyncio.CancelledError

    assert counted == ["traces"]


def test_failures_are_told_once_a_minute_per_site(guard: Guard, clock: Stopwatch):
    """The next record says how many were suppressed; the words of the exception are not in it."""
    with capture_logs() as logs:
        fail(guard, 3)
        with guard.metrics.at("elsewhere"):
            raise KeyError("secret")
        clock.now += LOG_EVERY_SECONDS
        fail(guard)

    told = [(event["signal"], event["site"], event["error_type"], event["suppressed"]) for event in logs.events]
    assert told == [("traces", "site", "ValueError", 0), ("metrics", "elsewhere", "KeyError", 0),
                    ("traces", "site", "ValueError", 2)]  # fmt: skip
    assert {event["event"] for event in logs.events} == {"mageflow.telemetry.error"}
    assert "secret" not in repr(logs.events)


def test_a_signal_rests_after_a_hundred_failures_in_a_row(guard: Guard, clock: Stopwatch):
    """Other signals go on; after a minute it is tried again, and one failure is enough to rest once more."""
    fail(guard, TRIP_AFTER - 1)
    assert guard.traces.closed
    fail(guard)
    assert not guard.traces.closed
    assert guard.metrics.closed
    clock.now += REST_SECONDS
    assert guard.traces.closed
    fail(guard)
    assert not guard.traces.closed


def test_a_success_ends_the_row(guard: Guard, clock: Stopwatch):
    """Only an unbroken row of failures trips the breaker."""
    fail(guard, TRIP_AFTER - 1)
    with guard.traces.at("site"):
        pass
    fail(guard, TRIP_AFTER - 1)

    assert guard.traces.closed


def test_a_guard_whose_own_means_fail_stays_silent(clock: Stopwatch, monkeypatch: pytest.MonkeyPatch):
    """Neither a broken counter nor a broken logger gets out."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(logging.getLogger("mageflow"), "handle", broken)
    guard = Guard(broken, monotonic=clock)
    fail(guard)

    assert guard.traces.total == 1
