"""The guards: failures are counted, logged once a minute, and after a hundred the signal is off for a minute."""

import asyncio
import json
import logging
import sys

import pytest

from mageflow.telemetry.guards import LOG_EVERY_SECONDS, REST_SECONDS, TRIP_AFTER, Guards
from mageflow.telemetry.names import events
from mageflow.testing import capture_logs
from tests.telemetry.conftest import Bench, Stopwatch


@pytest.fixture
def clock() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def counted() -> list[str]:
    return []


@pytest.fixture
def guards(clock: Stopwatch, counted: list[str]) -> Guards:
    return Guards(counted.append, monotonic=clock)


def fail(guards: Guards, times: int = 1) -> None:
    for _ in range(times):
        with guards.trace.catching("site"):
            raise ValueError("secret")


def test_a_failure_ends_at_the_guard(guards: Guards, counted: list[str]):
    """It is counted by signal and does not get out; cancellation does."""
    fail(guards)
    with pytest.raises(asyncio.CancelledError), guards.trace.catching("site"):
        raise asyncio.CancelledError

    assert counted == ["traces"]


def test_failures_are_logged_once_a_minute_per_site(guards: Guards, clock: Stopwatch):
    """The next record says how many were suppressed; the words of the exception are not in it."""
    with capture_logs() as logs:
        fail(guards, 3)
        with guards.metric.catching("elsewhere"):
            raise KeyError("secret")
        clock.now += LOG_EVERY_SECONDS
        fail(guards)

    recorded = [(event["signal"], event["site"], event["error_type"], event["suppressed"]) for event in logs.events]
    assert recorded == [("traces", "site", "ValueError", 0), ("metrics", "elsewhere", "KeyError", 0),
                    ("traces", "site", "ValueError", 2)]  # fmt: skip
    assert {event["event"] for event in logs.events} == {"mageflow.telemetry.error"}
    assert "secret" not in repr(logs.events)


def test_a_signal_rests_after_a_hundred_failures_in_a_row(guards: Guards, clock: Stopwatch):
    """Other signals go on; after a minute it is tried again, and one failure is enough to rest once more."""
    fail(guards, TRIP_AFTER - 1)
    assert guards.trace.may_record
    fail(guards)
    assert not guards.trace.may_record
    assert guards.metric.may_record
    clock.now += REST_SECONDS
    assert guards.trace.may_record
    fail(guards)
    assert not guards.trace.may_record


def test_a_success_ends_the_row(guards: Guards, clock: Stopwatch):
    """Only an unbroken row of failures trips the breaker."""
    fail(guards, TRIP_AFTER - 1)
    with guards.trace.catching("site"):
        pass
    fail(guards, TRIP_AFTER - 1)

    assert guards.trace.may_record


def test_a_guard_whose_own_means_fail_does_not_raise(
    clock: Stopwatch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Neither a broken counter nor a broken logger gets out. The report goes to stderr, if there is one."""

    def broken(*arguments: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(logging.getLogger("mageflow"), "handle", broken)
    guards = Guards(broken, monotonic=clock)
    fail(guards)
    fail(guards)

    assert guards.trace.total == 2
    [line] = capsys.readouterr().err.splitlines()
    report = json.loads(line)
    assert report["event"] == "mageflow.telemetry.error"
    assert (report["signal"], report["error_type"]) == ("traces", "ValueError")

    monkeypatch.setattr(sys, "stderr", None)
    clock.now += 61
    fail(guards)
    assert guards.trace.total == 3


def test_a_handler_of_the_program_that_raises_is_reported(bench: Bench, capsys: pytest.CaptureFixture[str]):
    """It costs the events, as logging calls no handler after it; the task goes on, and stderr says why."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise BrokenPipeError

    handler = Broken()
    logging.getLogger("mageflow").addHandler(handler)
    try:
        bench.telemetry.recorder.log.emit(events.SIGNATURE_MISSING, kind="task", signature_id="one")
    finally:
        logging.getLogger("mageflow").removeHandler(handler)
    assert bench.samples.value("mageflow_telemetry_errors_total", signal="logs") == 1.0
    report = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (report["site"], report["error_type"]) == ("mageflow.signature.missing", "BrokenPipeError")
