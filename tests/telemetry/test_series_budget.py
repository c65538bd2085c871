"""How many series a worker has, what goes first at the limit, and what a scrape of many tasks costs."""

import re
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from mageflow.config import Settings
from mageflow.telemetry import names
from mageflow.telemetry.instruments import Instruments
from mageflow.testing import samples
from tests.benchmarks.bench_scrape import SIZES, cost_of, worker_with

PAGE = Path(__file__).parents[2] / "docs/telemetry.md"
DROPPED = "mageflow_telemetry_dropped_label_values_total"


def test_a_plain_task_has_few_series_until_it_runs():
    """At most 40, gauges included, with any number of tasks; 1,000 tasks stay far below the limit."""
    costs = [cost_of(tasks, has_run=False) for tasks in (10, 1000)]

    assert [cost.per_task for cost in costs] == [24.0, 24.0]
    assert costs[1].series < Settings().metrics_max_series / 2
    assert costs[1].refused == 0


def test_a_hundred_tasks_that_have_all_run_keep_every_series():
    """Each has been sent, has succeeded and has failed."""
    cost = cost_of(100, has_run=True)

    assert cost.per_task <= 240
    assert (cost.refused, cost.series < Settings().metrics_max_series) == (0, True)


def test_the_page_says_how_many_series_a_worker_has():
    """The table of ``docs/telemetry.md``: every size, idle and after work, within two percent."""
    table = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| [^|]+ \| ([\d,]+)[^|]* \| [^|]+ \|$", table, re.MULTILINE)
    stated = {int(size.replace(",", "")): [int(each.replace(",", "")) for each in series] for size, *series in rows}

    assert set(stated) == set(SIZES)
    for tasks, series in stated.items():
        counted = [cost_of(tasks, has_run=has_run).series for has_run in (False, True)]
        assert series == pytest.approx(counted, rel=0.02), f"{tasks} tasks: bench_scrape.py counts {counted}"


def test_no_task_is_lost_at_the_limit():
    """A thousand tasks that have all run: every one has its counters and gauges; what has no room is histograms."""
    registry, telemetry = worker_with(1000, has_run=True)
    seen = samples(registry)

    assert len(seen) <= Settings().metrics_max_series
    for name, expected in (
        ("mageflow_task_runs_total", 2.0), ("mageflow_task_failures_total", 1.0),
        ("mageflow_tasks_enqueued_total", 1.0), ("mageflow_task_timeout_seconds", 60.0),
        ("mageflow_tasks_in_flight", 0.0),
    ):  # fmt: skip
        by_task = seen.by("task", name)
        assert {by_task.get(f"shop.task-{number}") for number in range(1000)} == {expected}, name
    of_one = seen.by("task", "mageflow_task_run_duration_seconds_count")
    assert seen.total("mageflow_task_run_duration_seconds_count") == 2000.0, "a sum over all tasks is right"
    assert 50 < len(of_one) < 1000
    assert of_one["__other__"] > 1000.0
    assert seen.value(DROPPED, label="__series__") > 0.0
    del telemetry


def test_a_merged_histogram_counts_each_observation_as_lost(registry: CollectorRegistry):
    """While detail is missing the counter grows, so the alert stays."""
    instruments = Instruments(registry, max_series=200)
    for task in ("one", "two"):
        instruments.allow_task(task)
        for _ in range(3):
            instruments.observe(names.metrics.TASK_QUEUE_WAIT, 1.0, task)

    seen = samples(registry)
    assert seen.by("task", "mageflow_task_queue_wait_seconds_count") == {"one": 3.0, "two": 3.0}
    for number in range(3):
        instruments.allow_task(f"three-{number}")
        for _ in range(4):
            instruments.observe(names.metrics.TASK_QUEUE_WAIT, 1.0, f"three-{number}")
    seen = samples(registry)
    assert seen.by("task", "mageflow_task_queue_wait_seconds_count") == {"one": 3.0, "two": 3.0, "__other__": 12.0}
    assert seen.value(DROPPED, label="__series__") == 12.0


def test_attempts_are_counted_above_any_limit(registry: CollectorRegistry):
    """Other counters stop, and that is counted; what exists goes on counting."""
    instruments = Instruments(registry, max_series=100)
    for number in range(200):
        task = f"task-{number}"
        instruments.allow_task(task)
        instruments.inc(names.metrics.TASK_STAGE_SECONDS, task, "body", by=2.0)
        instruments.inc(names.metrics.TASK_RUNS, task, "succeeded")
    instruments.inc(names.metrics.TASK_STAGE_SECONDS, "task-0", "body", by=2.0)

    seen = samples(registry)
    assert len(seen.by("task", "mageflow_task_runs_total")) == 200
    assert len(seen.by("task", "mageflow_task_stage_seconds_total")) < 100
    assert seen.value("mageflow_task_stage_seconds_total", task="task-0", stage="body") == 4.0
    assert seen.value(DROPPED, label="__series__") > 100.0


@pytest.mark.parametrize("has_run", [False, True])
def test_a_scrape_of_a_thousand_tasks_is_cheap(*, has_run: bool):
    """About 42 ms and 67 ms of CPU on the machine where it was measured; six times that is a regression anywhere."""
    assert cost_of(1000, has_run=has_run).cpu_seconds < 0.4
    assert time.thread_time() > 0.0


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()
