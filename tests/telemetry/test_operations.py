"""Stagger, timeout extensions, signatures and Redis: what each records."""

import asyncio
import contextvars

import pytest
from opentelemetry.trace import StatusCode

from mageflow.errors import StoreError, StoreUnavailableError, TimeoutExtensionError
from mageflow.interceptors import (
    PendingSettlements,
    RedisCall,
    RedisOutage,
    SignatureLoad,
    SignatureWrite,
    Stagger,
    TimeoutExtension,
)
from tests.telemetry.conftest import STAGGERED, Bench


def test_a_stagger_records_its_delay_and_its_extension(bench: Bench):
    """One span with delay and window, the extension as its event, the granted time as a sample."""
    attempt = bench.attempt(STAGGERED)
    with bench.interceptor.attempt(attempt):
        call = Stagger(attempt, 3.0, 1.25)
        with bench.interceptor.stagger(call):
            extension = TimeoutExtension(attempt, "stagger", 1.35)
            with bench.interceptor.extend_timeout(extension):
                extension.granted_seconds, extension.deadline = 1.35, 99.0
            call.slept_seconds = 1.25

    span = bench.spans.one("stagger crowd")
    assert span.attributes["mageflow.stagger.delay_s"] == 1.25
    assert span.attributes["mageflow.stagger.window_s"] == 3.0
    assert [(event.name, dict(event.attributes)) for event in span.events] == [
        (
            "mageflow.timeout.extended",
            {
                "mageflow.timeout.reason": "stagger",
                "mageflow.timeout.requested_s": 1.35,
                "mageflow.timeout.result": "ok",
                "mageflow.timeout.deadline": 99.0,
            },
        )
    ]
    seen = bench.samples
    assert seen.value("mageflow_stagger_delay_seconds_sum", task="crowd") == 1.25
    assert seen.value("mageflow_timeout_extensions_total", task="crowd", reason="stagger", result="ok") == 1.0
    assert seen.value("mageflow_timeout_extension_seconds_sum", task="crowd", reason="stagger") == 1.35
    assert seen.value("mageflow_timeout_extension_request_duration_seconds_count", result="ok") == 1.0
    started = bench.logs.one("mageflow.stagger.started")
    assert (started["delay_s"], started["window_s"], started["task"]) == (1.25, 3.0, "crowd")
    assert bench.logs.one("mageflow.timeout.extended")["by_s"] == 1.35


def test_an_extension_that_is_granted_late_is_an_event_of_the_attempt(bench: Bench, caplog: pytest.LogCaptureFixture):
    """A wait for a lock may end before Hatchet answers. A span that has ended takes no event, and warns of it."""
    attempt = bench.attempt(STAGGERED)
    extension = TimeoutExtension(attempt, "lock", 1.35)
    with bench.interceptor.attempt(attempt):
        with bench.interceptor.stagger(Stagger(attempt, 3.0, 1.25)):
            during_the_stage = contextvars.copy_context()
        late = bench.interceptor.extend_timeout(extension)
        during_the_stage.run(late.__enter__)
        extension.granted_seconds = 1.35
        during_the_stage.run(late.__exit__, None, None, None)
    assert [event.name for event in bench.spans.one("process crowd").events] == ["mageflow.timeout.extended"]

    during_the_stage.run(late.__exit__, None, None, None)  # nor does it warn after the end of the attempt
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


def test_a_refused_extension_is_an_error_everywhere(bench: Bench):
    """Span, counter and log agree; no granted time is recorded."""
    attempt = bench.attempt(STAGGERED)
    with bench.interceptor.attempt(attempt):
        call = Stagger(attempt, 3.0, 1.0)
        with bench.interceptor.stagger(call):
            refused = TimeoutExtension(attempt, "stagger", 1.1)
            with pytest.raises(TimeoutExtensionError), bench.interceptor.extend_timeout(refused):
                raise TimeoutExtensionError("no")
            call.extension_failed = True

    assert bench.spans.one("stagger crowd").status.status_code is StatusCode.ERROR
    seen = bench.samples
    assert seen.by("outcome", "mageflow_staggers_total") == {
        "completed": 0.0, "cancelled": 0.0, "extension_failed": 1.0,
    }  # fmt: skip
    assert seen.value("mageflow_timeout_extensions_total", task="crowd", reason="stagger", result="error") == 1.0
    assert seen.total("mageflow_timeout_extension_seconds_count") == 0.0
    event = bench.logs.one("mageflow.timeout.extension_failed")
    assert (event["level"], event["reason"], event["error_type"]) == ("error", "stagger", "TimeoutExtensionError")


def test_a_cancelled_stagger_says_how_long_it_slept(bench: Bench):
    """A cancellation is no error."""
    attempt = bench.attempt(STAGGERED)
    call = Stagger(attempt, 3.0, 2.0, slept_seconds=0.5)
    with pytest.raises(asyncio.CancelledError), bench.interceptor.attempt(attempt), bench.interceptor.stagger(call):
        raise asyncio.CancelledError

    assert bench.samples.value("mageflow_staggers_total", task="crowd", outcome="cancelled") == 1.0
    assert bench.logs.one("mageflow.stagger.cancelled")["slept_s"] == 0.5
    assert bench.spans.one("stagger crowd").status.status_code is StatusCode.UNSET


def test_windows_and_timeouts_are_gauges_of_what_a_worker_serves(bench: Bench):
    """Configured values, for the panels that compare with them."""
    bench.telemetry.recorder.live.served = (STAGGERED,)
    bench.run(bench.attempt(STAGGERED), outcome="succeeded")

    assert bench.samples.value("mageflow_stagger_window_seconds", task="crowd") == 3.0
    assert bench.samples.value("mageflow_task_timeout_seconds", task="crowd") == 30.0


@pytest.mark.parametrize(
    ("result", "event", "status"),
    [
        ("hit", None, StatusCode.UNSET),
        ("missing", "mageflow.signature.missing", StatusCode.UNSET),
        ("invalid", "mageflow.signature.invalid", StatusCode.ERROR),
        ("error", None, StatusCode.ERROR),
    ],
)
def test_a_load_is_counted_by_its_result(bench: Bench, result: str, event: str | None, status: StatusCode):
    """Time and result by kind; what is missing or invalid is also said."""
    call = SignatureLoad("chain", "sig-1")
    with bench.interceptor.load_signature(call):
        call.result = result

    assert bench.samples.by("result", "mageflow_signature_loads_total", kind="chain")[result] == 1.0
    assert bench.samples.value("mageflow_signature_load_duration_seconds_count", kind="chain") == 1.0
    assert bench.spans.one("load signature").status.status_code is status
    logged = [name for name in bench.logs.names if name.startswith("mageflow.signature.")]
    assert logged == ([event] if event else [])


def test_a_write_is_counted_with_its_size(bench: Bench):
    """By kind and operation; a failed one too."""
    call = SignatureWrite("swarm", "create", "sig-1")
    with bench.interceptor.write_signature(call):
        call.size_bytes = 2048
    delete = SignatureWrite("swarm", "delete", "sig-1")
    with pytest.raises(OSError, match="gone"), bench.interceptor.write_signature(delete):
        raise OSError("gone")

    seen = bench.samples
    assert seen.value("mageflow_signature_writes_total", kind="swarm", operation="create", result="ok") == 1.0
    assert seen.value("mageflow_signature_writes_total", kind="swarm", operation="delete", result="error") == 1.0
    assert seen.value("mageflow_signature_size_bytes_sum", kind="swarm") == 2048.0


def test_a_redis_error_is_called_by_the_drivers_name(bench: Bench):
    """The store wraps it, the label says what happened; a cancelled round trip is no error."""
    with bench.interceptor.redis(RedisCall("admit")):
        pass
    with pytest.raises(StoreUnavailableError), bench.interceptor.redis(RedisCall("admit")):
        raise StoreUnavailableError("admit", "down") from ConnectionRefusedError()
    with pytest.raises(asyncio.CancelledError), bench.interceptor.redis(RedisCall("admit")):
        raise asyncio.CancelledError

    assert bench.samples.by("error", "mageflow_redis_errors_total", operation="admit") == {
        "ConnectionRefusedError": 1.0
    }
    event = bench.logs.one("mageflow.redis.error")
    assert (event["operation"], event["error_type"], event["level"]) == ("admit", "ConnectionRefusedError", "debug")


def test_an_error_of_redis_outside_of_an_outage_is_a_warning(bench: Bench):
    """An outage has its own events; a refusal of one call has none."""
    with pytest.raises(StoreError), bench.interceptor.redis(RedisCall("admit")):
        raise StoreError("admit", "WRONGTYPE") from ValueError()
    event = bench.logs.one("mageflow.redis.error")
    assert (event["operation"], event["error_type"], event["level"]) == ("admit", "ValueError", "warning")


def test_an_outage_is_counted_once_and_told_at_both_ends(bench: Bench):
    """By its reason, with what to do, and with how long it took."""
    bench.interceptor.event(RedisOutage(False, "full", "settle", "raise maxmemory"))
    bench.interceptor.event(RedisOutage(True, "full", "settle", "raise maxmemory", seconds=2.5, failures=7))

    assert bench.samples.value("mageflow_redis_outages_total", reason="full") == 1.0
    begin, end = bench.logs.one("mageflow.redis.outage"), bench.logs.one("mageflow.redis.recovered")
    assert (begin["level"], begin["reason"], begin["operation"], begin["advice"]) == (
        "warning", "full", "settle", "raise maxmemory",
    )  # fmt: skip
    assert (end["level"], end["reason"], end["duration_s"], end["failures"]) == ("warning", "full", 2.5, 7)


def test_settlements_that_wait_for_redis_are_a_gauge(bench: Bench):
    """The number of this process; 0 when none waits."""
    bench.interceptor.event(PendingSettlements(3))
    bench.interceptor.event(RedisOutage(False, "full", "settle", "raise maxmemory"))
    assert bench.samples.value("mageflow_settlements_pending") == 3.0
    bench.interceptor.event(PendingSettlements(0))
    assert bench.samples.value("mageflow_settlements_pending") == 0.0
