"""No alert fires on what is no incident: failed scrapes, rare failures, restarts, deploys, contention."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.dashboards.alert_cases import Series
from tests.dashboards.healthy_fleet import HOURS, STEP_SECONDS, Fleet
from tests.dashboards.test_alert_rules import needs_promtool, rules_of_metrics, run_promtool

pytestmark = [needs_promtool, pytest.mark.slow]

TARGET = 'job="w", instance="a:1"'


def fired(expected: list[dict[str, Any]], at: str, window: str) -> list[dict[str, Any]]:
    """A promtool expectation: exactly these alerts fired in the window before a time."""
    expr = f'group by (alertname) (count_over_time(ALERTS{{alertstate="firing"}}[{window}]))'
    return [{"expr": expr, "eval_time": at, "exp_samples": expected}]


QUIET = fired([], f"{HOURS}h", f"{HOURS * 60 - 90}m")
"""The deadlocks at the beginning are real, so the first 90 minutes are left out."""

NOT_QUIET = fired(
    [{"labels": f'{{alertname="{name}"}}', "value": 1}
     for name in ("MageflowCallbackFailed", "MageflowDeadlock", "MageflowDeadlockStorm",
                  "MageflowLabelsFolded", "MageflowLockLeaseLost")],
    f"{HOURS}h", f"{HOURS}h",
)  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """What promtool says of a fleet with both expectations: it computes the hours of a fleet for five seconds."""

    @cache
    def says(seed: int) -> str:
        hours = {"interval": f"{STEP_SECONDS}s", "input_series": Fleet(seed).series()}
        both = [*QUIET, *(NOT_QUIET if seed == 1 else [])]
        return run_promtool(tmp_path_factory.mktemp("fleet"), {**hours, "promql_expr_test": both})

    return says


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_hour_of_a_healthy_fleet_is_quiet(seed: int, said: Callable[[int], str]) -> None:
    """No alert fires in hours with restarts, a deploy, a scale-in and lost scrapes."""
    assert said(seed) == ""


def test_the_same_hours_with_an_incident_are_not_quiet(said: Callable[[int], str]) -> None:
    """The deadlocks at the beginning fire in the first half hour: the test above can fail."""
    assert said(1) == ""


COUNTERS = (
    'mageflow_deadlocks_total{%s, lock="a", victim_task="pay", resolution="victim_retried"}',
    'mageflow_lock_lease_renewals_total{%s, lock="a", result="lost"}',
    'mageflow_callbacks_total{%s, kind="error", result="failed"}',
    'mageflow_task_runs_total{%s, task="pay", outcome="timed_out"}',
    'mageflow_task_runs_total{%s, task="pay", outcome="failed"}',
    'mageflow_timeout_extensions_total{%s, task="a", reason="lock", result="error"}',
    'mageflow_signature_loads_total{%s, kind="task", result="missing"}',
    'mageflow_telemetry_dropped_label_values_total{%s, label="error"}',
    'mageflow_telemetry_errors_total{%s, signal="traces"}',
)


@pytest.mark.parametrize("lost", [1, 2, 25])
def test_failed_scrapes_do_not_count_a_whole_life_as_new(lost: int, tmp_path: Path) -> None:
    """Counters that stand still fire nothing while scrapes fail, nor one window after that."""
    case = {
        "interval": "1m",
        "input_series": [
            *({"series": name % TARGET, "values": f"50x79 stale {'_ ' * (lost - 1)} 50x100"} for name in COUNTERS),
            {"series": f"up{{{TARGET}}}", "values": f"1x79 {'0 ' * lost} 1x100"},
            {"series": f"process_start_time_seconds{{{TARGET}}}", "values": "-86400x210"},
        ],
        "promql_expr_test": fired([], "3h", "3h"),
    }
    assert run_promtool(tmp_path, case) == ""


def test_one_failure_of_a_rare_task_is_quiet(tmp_path: Path) -> None:
    """A task that runs every 15 minutes fails once in a day: neither alert about error budgets fires."""
    succeeded = " ".join(f"{n - (n > 50)}x14" for n in range(96))
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f'mageflow_task_runs_total{{{TARGET}, task="quarterly", outcome="succeeded"}}',
             "values": succeeded},
            {"series": f'mageflow_task_runs_total{{{TARGET}, task="quarterly", outcome="failed"}}',
             "values": "0x764 1x674"},
        ],
        "promql_expr_test": fired([], "24h", "24h"),
    }  # fmt: skip
    rules = rules_of_metrics(tmp_path, "mageflow_task_runs_total")
    assert run_promtool(tmp_path, case, evaluation_interval="1m", rules=rules) == ""


def test_every_run_of_a_rare_task_fails(tmp_path: Path) -> None:
    """A task that runs every 15 minutes and fails from one moment on pages within 90 minutes."""
    series: Series = (
        (f'mageflow_task_runs_total{{{TARGET}, task="quarterly", outcome="succeeded"}}',
         " ".join(f"{min(n, 40)}x14" for n in range(60))),
        (f'mageflow_task_runs_total{{{TARGET}, task="quarterly", outcome="failed"}}',
         " ".join(f"{max(n - 40, 0)}x14" for n in range(60))),
    )  # fmt: skip
    names = [{"labels": f'{{alertname="MageflowErrorBudgetBurn{more}"}}', "value": 1} for more in ("", "Slow")]
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [*fired([], "10h15m", "10h"), *fired(names, "11h45m", "10h")],
    }
    rules = rules_of_metrics(tmp_path, "mageflow_task_runs_total")
    assert run_promtool(tmp_path, case, evaluation_interval="1m", rules=rules) == ""


def test_contention_in_both_directions_is_quiet(tmp_path: Path) -> None:
    """Two tasks that wait for keys of one lock, each for those of the other, are no deadlock."""
    edges = 'mageflow_lock_wait_edges{%s, waiter_task="%s", holder_task="%s", lock="account"}'
    series: Series = (
        (edges % (TARGET, "pay", "ship"), "3x60"),
        (edges % (TARGET, "ship", "pay"), "2x60"),
        (f'mageflow_lock_waiters{{{TARGET}, lock="account", task="pay"}}', "5x60"),
        (f'mageflow_lock_oldest_wait_seconds{{{TARGET}, lock="account", task="pay"}}', "20x60"),
        (f'mageflow_deadlock_checks_total{{{TARGET}, result="clean"}}', "0+9x60"),
    )
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": fired([], "1h", "1h"),
    }
    assert run_promtool(tmp_path, case) == ""
