"""The clock of a worker is compared with that of Redis: a clock that is ahead makes every queue wait too long."""

import time

import pytest

from mageflow.testing.capture import capture_logs
from mageflow.testing.valkey import EmbeddedValkey
from tests.cluster.conftest import MakeProcess, Process, until
from tests.store.proxy import Proxy

SKEW = "mageflow_clock_skew_seconds"
_now = time.time


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    """Set the clock of this process, not that of Redis."""
    monkeypatch.setattr(time, "time", lambda: _now() + ahead)


def errors(process: Process) -> float:
    return process.samples.total("mageflow_telemetry_errors_total", signal="clock")


@pytest.mark.parametrize("ahead", [30.0, -30.0])
async def test_a_skewed_clock_is_shown_counted_and_logged_once(
    process: MakeProcess, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """By the worker that leads and by the others: each reading counts, the first one is logged."""
    leader, follower = process(), process()
    set_clock(monkeypatch, ahead)
    with capture_logs() as logs:
        for _ in range(3):
            assert await leader.observer.observe()
            assert not await follower.observer.observe()
        for each in (leader, follower):
            assert each.samples.value(SKEW) == pytest.approx(ahead, abs=0.5)
            assert errors(each) == 3.0
        first, second = logs.named("mageflow.clock.skewed")
        assert first["level"] == second["level"] == "warning"
        assert first["skew_s"] == pytest.approx(ahead, abs=0.5)
        assert 0.0 <= first["error_s"] <= 0.5

        set_clock(monkeypatch, 0.0)
        await leader.observer.observe()
        assert leader.samples.value(SKEW) == pytest.approx(0.0, abs=0.5)
        assert errors(leader) == 3.0
        set_clock(monkeypatch, ahead)
        await leader.observer.observe()
        assert len(logs.named("mageflow.clock.skewed")) == 3, "the clocks had agreed, so this is another skew"


async def test_a_small_skew_is_shown_and_no_error(process: MakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the tolerance of one second, as a negative queue wait is."""
    leader = process()
    set_clock(monkeypatch, 0.45)
    with capture_logs() as logs:
        await leader.observer.observe()
    assert leader.samples.value(SKEW) == pytest.approx(0.45, abs=0.45)
    assert errors(leader) == 0.0
    assert not logs.named("mageflow.clock.skewed")


async def test_a_slow_network_is_no_skew(process: MakeProcess, mageflow_redis: EmbeddedValkey) -> None:
    """A reading that a slow round trip has made inexact is left out: nothing is shown instead of a wrong number."""
    with Proxy(mageflow_redis.port) as network:
        leader = process(url=f"redis://127.0.0.1:{network.port}/0")
        network.delay_seconds = 0.6
        assert await leader.observer.observe()
        assert not leader.shows(SKEW)
        network.delay_seconds = 0.0
        assert await leader.observer.observe()
        assert leader.samples.value(SKEW) == pytest.approx(0.0, abs=0.5)


async def test_without_redis_the_gauge_falls_silent(process: MakeProcess) -> None:
    """A reading is shown for the length of a lease, then it is too old."""
    own = EmbeddedValkey().start()
    try:
        leader = process(lease_seconds=1.0, interval_seconds=0.1, url=own.url)
        leader.start()
        await until(lambda: leader.shows(SKEW))
        own.kill()
        await until(lambda: not leader.shows(SKEW))
        own.start()
        await until(lambda: leader.shows(SKEW))
        await leader.stop()
    finally:
        own.stop()
