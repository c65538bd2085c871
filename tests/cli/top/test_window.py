"""Rates and percentiles of counters, also when a worker restarts."""

import pytest

from mageflow.cli.top.sources.window import WINDOW_SECONDS, CounterWindow, quantile
from mageflow.telemetry.names import metrics

RUNS = metrics.TASK_RUNS.name


def runs(succeeded: float, failed: float = 0.0):
    return {
        RUNS: {
            frozenset({("task", "t"), ("outcome", "succeeded")}): succeeded,
            frozenset({("task", "t"), ("outcome", "failed")}): failed,
        }
    }


def test_a_quantile_is_that_of_prometheus():
    """Linear in the bucket; the highest finite bound above it; None without an observation."""
    buckets = {0.1: 10.0, 1.0: 90.0, 2.0: 100.0, float("inf"): 100.0}

    assert quantile(0.5, buckets) == pytest.approx(0.1 + 0.9 * 40 / 80)
    assert quantile(0.95, buckets) == pytest.approx(1.5)
    assert quantile(0.95, {1.0: 0.0, float("inf"): 4.0}) == 1.0
    assert quantile(0.95, {1.0: 0.0, float("inf"): 0.0}) is None
    assert quantile(0.95, {}) is None


def test_an_increase_is_that_of_the_last_minute():
    """Readings that are older are left out."""
    window = CounterWindow()
    for second in range(0, 121, 5):
        window.add("a", float(second), runs(second * 2.0))

    assert window.seconds == pytest.approx(WINDOW_SECONDS, abs=5)
    assert sum(window.increase(RUNS).values()) == pytest.approx(2 * window.seconds)
    assert sum(window.total(RUNS).values()) == 240


def test_a_series_that_begins_later_is_counted_from_nothing():
    """The first failure of a task is an increase."""
    window = CounterWindow()
    window.add("a", 0.0, {})
    window.add("a", 10.0, runs(0, 3))

    assert sum(window.increase(RUNS).values()) == 3


def test_a_worker_that_restarts_never_gives_a_negative_increase():
    """Its counters begin at 0 again: what it counted since is the increase."""
    window = CounterWindow()
    window.add("a", 0.0, runs(100))
    window.add("a", 10.0, runs(110))
    window.add("a", 20.0, runs(4))

    assert sum(window.increase(RUNS).values()) == 4
    assert window.seconds == 10


def test_workers_are_added_up_and_a_lost_one_is_left_out():
    """Two endpoints with the same task."""
    window = CounterWindow()
    for url in ("a", "b"):
        window.add(url, 0.0, runs(10))
        window.add(url, 10.0, runs(15))
    assert sum(window.increase(RUNS).values()) == 10

    window.forget("b")
    assert sum(window.increase(RUNS).values()) == 5
    assert sum(window.total(RUNS).values()) == 15
