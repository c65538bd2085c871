"""The recording rules: what alerts compare over hours and days, and common quantiles."""

from collections.abc import Mapping
from typing import Literal

from dashboards.generator.queries import increase_from_zero
from dashboards.generator.rules import Recording, RecordingGroup, Thresholds


def _p95(by: str, buckets: str) -> str:
    # `rate` does not see the first run of a task: its buckets appear with it.
    return f"histogram_quantile(0.95, sum by (job, {by}, le) ({increase_from_zero(buckets, '', '5m', '300')}))"


OBJECTIVE = "mageflow:task_objective:ratio"
"""The recording rule with the objective. ``mageflow dashboards export --slo`` changes its number and nothing else."""

_ATTEMPTS: Mapping[str, str] = {
    "settled": 'mageflow_task_runs_total{outcome=~"succeeded|failed|timed_out"}',
    "errors": 'mageflow_task_runs_total{outcome=~"failed|timed_out"}',
}
"""What a burn rate compares. Retried, cancelled and skipped attempts say nothing about whether a task works."""

_FAST_WINDOWS = ("30m", "1h", "2h", "6h")
_SLOW_WINDOWS = ("1d", "3d")


def attempts(which: Literal["settled", "errors"], window: str) -> str:
    """The recorded number of attempts of each task that ended in a window."""
    return f"task:mageflow_task_{which}:increase{window}"


def _attempts_in_5m(which: Literal["settled", "errors"]) -> Recording:
    counted = increase_from_zero(_ATTEMPTS[which], "", "5m", "300")
    return Recording(attempts(which, "5m"), f"sum by (job, task) ({counted})", ("job", "task"))


def _attempts_in(which: Literal["settled", "errors"], window: str) -> Recording:
    # Built from the five minutes, once a minute: three days of raw counters would be too much to read each time. Each
    # attempt is in five of these windows.
    expr = f"sum_over_time({attempts(which, '5m')}[{window}:1m]) / 5"
    return Recording(attempts(which, window), expr, ("job", "task"))


def recordings(limits: Thresholds) -> tuple[Recording, ...]:
    """The recording rules with these thresholds, except those of `slow_recordings`."""
    return (
        Recording(OBJECTIVE, f"vector({limits.objective_ratio:g})", ()),
        Recording(
            "task:mageflow_task_runs:rate5m",
            "sum by (job, task, outcome) (rate(mageflow_task_runs_total[5m]))",
            ("job", "task", "outcome"),
        ),
        _attempts_in_5m("settled"),
        _attempts_in_5m("errors"),
        *(_attempts_in(which, window) for window in _FAST_WINDOWS for which in ("settled", "errors")),
        Recording(
            "task:mageflow_task_run_duration_seconds:p95_5m",
            _p95("task", "mageflow_task_run_duration_seconds_bucket"),
            ("job", "task"),
        ),
        Recording(
            "task:mageflow_task_queue_wait_seconds:p95_5m",
            _p95("task", "mageflow_task_queue_wait_seconds_bucket"),
            ("job", "task"),
        ),
        Recording(
            "lock:mageflow_lock_wait_seconds:p95_5m", _p95("lock", "mageflow_lock_wait_seconds_bucket"), ("job", "lock")
        ),
        Recording(
            "pool:mageflow_worker_slots:used_ratio",
            "sum by (job, pool) (mageflow_worker_slots_used) / sum by (job, pool) (mageflow_worker_slots)",
            ("job", "pool"),
        ),
    )


def slow_recordings() -> tuple[Recording, ...]:
    """The recording rules over days. They read many samples, so they are evaluated less often."""
    return tuple(_attempts_in(which, window) for window in _SLOW_WINDOWS for which in ("settled", "errors"))


RECORDINGS: tuple[Recording, ...] = (*recordings(Thresholds()), *slow_recordings())


def recording_groups(limits: Thresholds) -> tuple[RecordingGroup, ...]:
    """The groups of the rule file."""
    return (
        RecordingGroup("mageflow", "30s", recordings(limits)),
        RecordingGroup("mageflow-days", "2m", slow_recordings()),
    )
