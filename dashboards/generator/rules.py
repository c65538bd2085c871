"""The recording rules, the data types of the alerts, and the YAML of both.

No rule selects a job name, so the rules work under any. Thresholds and the addresses in annotations are options of
the generator. The alerts themselves are in `dashboards.generator.alerts`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dashboards.generator.queries import increase_from_zero

Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The limits from which alerts fire. Ratios are from 0 to 1, times in seconds."""

    objective_ratio: float = 0.99
    """The share of settled attempts of a task that shall succeed; the rest is its error budget."""
    least_runs: float = 12
    """A burn rate is judged from this many settled attempts in its long window."""
    least_failures: float = 3
    """A ratio of failures is judged from this many failures: one failure of a rare task is no incident."""
    queue_wait_seconds: float = 60
    slots_used_ratio: float = 0.95
    stagger_share: float = 0.5
    extension_error_ratio: float = 0.01
    near_timeout_share: float = 0.5
    timeouts_in_15m: float = 3
    deadlocks_in_10m: float = 5
    orphaned_minutes_in_15m: float = 5
    lock_wait_seconds: float = 300
    lock_hold_seconds: float = 1800
    signature_miss_ratio: float = 0.02
    flow_age_seconds: float = 21600
    loop_lag_seconds: float = 1

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value <= 0 or (name.endswith(("_ratio", "_share")) and value > 1):
                raise ValueError(f"threshold {name}={value}: a ratio is in (0, 1], any other threshold above 0")


@dataclass(frozen=True, slots=True)
class Addresses:
    """The beginning of the links in annotations."""

    runbook: str = "https://github.com/mageflow/mageflow/blob/main/dashboards/runbook.md"
    grafana: str = "http://localhost:3000"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording rule. ``record`` follows Prometheus's convention ``level:metric:operation``."""

    record: str
    expr: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert: its rule and its section in the runbook."""

    name: str
    severity: Severity
    wait: str
    """How long the condition must hold before the alert fires, for example ``5m``; ``0m`` fires at once."""
    expr: str
    summary: str
    """An annotation. It may use ``{{ $labels.x }}`` and ``{{ $value }}``, as ``description`` may."""
    description: str
    board: str
    """The uid of the board that shows the problem."""
    meaning: str
    """For the runbook, as are ``causes`` and ``steps``: Markdown, panel titles in asterisks."""
    causes: tuple[str, ...]
    steps: tuple[str, ...]

    @property
    def anchor(self) -> str:
        """The anchor that GitHub gives the heading of its runbook section."""
        return self.name.lower()


def _p95(by: str, buckets: str) -> str:
    return f"histogram_quantile(0.95, sum by (job, {by}, le) (rate({buckets}[5m])))"


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

_HEADER = "# Generated by `python -m dashboards.generator`; change dashboards/generator/ instead of this file.\n"


def recording_yaml(limits: Thresholds | None = None) -> str:
    """The recording rules as a Prometheus rule file."""
    lines = [_HEADER, "groups:\n"]
    groups = (("mageflow", "30s", recordings(limits or Thresholds())), ("mageflow-days", "2m", slow_recordings()))
    for name, interval, rules in groups:
        lines += [f"  - name: {name}\n", f"    interval: {interval}\n", "    rules:\n"]
        lines += [f"      - record: {rule.record}\n        expr: {_quoted(rule.expr)}\n" for rule in rules]
    return "".join(lines)


def alerts_yaml(alerts: Iterable[Alert], addresses: Addresses | None = None) -> str:
    """The alert rules as a Prometheus rule file."""
    to = addresses or Addresses()
    lines = [_HEADER, "groups:\n", "  - name: mageflow-alerts\n", "    interval: 30s\n", "    rules:\n"]
    for alert in alerts:
        lines.append(f"      - alert: {alert.name}\n        expr: {_quoted(alert.expr)}\n")
        if alert.wait != "0m":
            lines.append(f"        for: {alert.wait}\n")
        lines.append(f"        labels:\n          severity: {alert.severity}\n        annotations:\n")
        for key, text in annotations_of(alert, to).items():
            lines.append(f"          {key}: {_quoted(text)}\n")
    return "".join(lines)


def annotations_of(alert: Alert, addresses: Addresses) -> dict[str, str]:
    """The annotations of an alert, with the templates that Prometheus fills in."""
    return {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": f"{addresses.runbook}#{alert.anchor}",
        "dashboard_url": f"{addresses.grafana}/d/{alert.board}",
    }


def _quoted(text: str) -> str:
    # A JSON string is a YAML string.
    return json.dumps(text, ensure_ascii=False)
