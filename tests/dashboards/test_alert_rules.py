"""Every alert fires on its incident, stays quiet in health, and handles missing series."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.generator.alerts import alerts
from dashboards.generator.rules import Addresses, Alert, Thresholds, alerts_yaml, annotations_of
from mageflow.dashboards import find_bundle, panel_queries
from tests.dashboards.alert_cases import CASES, Case, Series, W

BUNDLE = find_bundle()
PROMTOOL = shutil.which("promtool")
ALERTS = {alert.name: alert for alert in alerts()}

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)"
)


def render(template: str, labels: dict[str, str], value: str) -> str:
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], template)
    return re.sub(r"\{\{ \$value[^}]*\}\}", lambda _: value, text)


def expectation(alert: Alert, labels: dict[str, str], value: str) -> dict[str, object]:
    annotations = {key: render(text, labels, value) for key, text in annotations_of(alert, Addresses()).items()}
    return {"exp_labels": {**labels, "severity": alert.severity}, "exp_annotations": annotations}


@cache
def shipped_rules() -> list[dict[str, Any]]:
    """The groups of all shipped files."""
    return [group for path in BUNDLE.rules for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]


def _name(rule: dict[str, Any]) -> str:
    return rule.get("record") or rule["alert"]


@cache
def _reads() -> dict[str, set[str]]:
    """The names in the expression of each shipped rule."""
    return {
        _name(rule): set(re.findall(r"[\w:]+", str(rule["expr"])))
        for group in shipped_rules()
        for rule in group["rules"]
    }


def needed_rules(*names: str) -> dict[str, Any]:
    """These shipped rules and those that they read. promtool computes every rule that it has at every step."""
    needed, new = set(names), set(names)
    while new:
        new = {each for name in new for each in _reads()[name] if each in _reads()} - needed
        needed |= new
    groups = [
        {**group, "rules": [rule for rule in group["rules"] if _name(rule) in needed]} for group in shipped_rules()
    ]
    return {"groups": [group for group in groups if group["rules"]]}


def rules_of_metrics(path: Path, *metrics: str) -> list[Path]:
    """A file with the shipped rules that read these metrics, themselves or through recorded series."""
    names, new = set[str](), set(metrics)
    while new:
        new = {name for name, read in _reads().items() if read & new} - names
        names |= new
    rules = path / "rules.yml"
    rules.write_text(json.dumps(needed_rules(*names)), encoding="utf-8")
    return [rules]


def promtool_says(
    path: Path, alert: str, series: Series, at: str, expected: list[dict[str, object]], *others: Series
) -> str:
    """Run promtool: an empty string if exactly these alerts fire, its error message otherwise.

    With ``others`` the same is expected with each of these series instead.
    """
    cases = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in each],
            "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected}],
        }
        for each in (series, *others)
    ]
    rules = path / "rules.yml"
    rules.write_text(json.dumps(needed_rules(alert)), encoding="utf-8")
    return run_promtool(path, *cases, evaluation_interval="2m" if "h" in at else "30s", rules=[rules])


def run_promtool(
    path: Path, *cases: dict[str, Any], evaluation_interval: str = "30s", rules: Sequence[Path] = BUNDLE.rules
) -> str:
    """Run promtool with these tests: an empty string if they pass, its error message otherwise."""
    file = path / "case.yml"
    files = [str(each) for each in rules]
    file.write_text(json.dumps({"rule_files": files, "evaluation_interval": evaluation_interval, "tests": cases}))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False, timeout=250,
        env=os.environ | {"GOGC": "400"},  # a fifth of its time is the collection of garbage
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    """Each alert has an incident it fires on and a healthy state it stays quiet in."""
    assert set(CASES) == set(ALERTS)


@needs_promtool
@pytest.mark.parametrize("name", sorted(CASES))
def test_alert_fires_on_its_incident_with_its_annotations(name: str, tmp_path: Path) -> None:
    """Labels, severity and rendered annotations are exactly the expected ones."""
    case = CASES[name]
    expected = [expectation(ALERTS[name], labels, case.value) for labels in (case.labels, *case.also)]
    assert promtool_says(tmp_path, name, case.fires, case.at, expected) == ""


@needs_promtool
@pytest.mark.parametrize("name", sorted(CASES))
def test_alert_is_quiet_in_health(name: str, tmp_path: Path) -> None:
    """The alert does not fire on series with healthy values."""
    case = CASES[name]
    assert promtool_says(tmp_path, name, case.quiet, case.quiet_at or case.at, []) == ""


@needs_promtool
@pytest.mark.parametrize("name", sorted(CASES))
def test_alert_survives_absent_series(name: str, tmp_path: Path) -> None:
    """The alert does not fire if there are no series, or only those of an unrelated worker."""
    other: Series = ((f'mageflow_worker_info{{{W}, worker="w"}}', "1x90"), (f"up{{{W}}}", "1x90"))
    assert promtool_says(tmp_path, name, (), CASES[name].at, [], other) == ""


@needs_promtool
@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if "_total" in str(case.fires)))
def test_alert_is_quiet_when_counters_stand_still(name: str, tmp_path: Path) -> None:
    """The alert does not fire on the same series without traffic, for example because of 0 / 0."""
    idle = tuple(
        (series, "7x90" if "_total" in series or "_bucket" in series else values)
        for series, values in CASES[name].fires
        if "lock_waiters" not in series
    )
    assert promtool_says(tmp_path, name, idle, CASES[name].at, []) == ""


@needs_promtool
def test_the_needed_rules_are_the_shipped_ones(tmp_path: Path) -> None:
    """An alert that reads recorded series is tested with them, also with those that these are computed from."""
    names = {_name(rule) for group in needed_rules("MageflowErrorBudgetBurn")["groups"] for rule in group["rules"]}
    assert {"MageflowErrorBudgetBurn", "task:mageflow_task_errors:increase1h"} < names
    assert "task:mageflow_task_errors:increase5m" in names, "the hour is the sum of these"
    assert "mageflow:task_objective:ratio" in names
    assert not {"MageflowDeadlock", "pool:mageflow_worker_slots:used_ratio"} & names
    [file] = rules_of_metrics(tmp_path, "mageflow_task_runs_total")
    names = {_name(rule) for group in json.loads(file.read_text())["groups"] for rule in group["rules"]}
    assert {"MageflowErrorBudgetBurn", "MageflowErrorBudgetBurnSlow", "MageflowTaskOnlyFails"} < names
    assert "mageflow:task_objective:ratio" in names, "an alert reads it beside the metric"
    assert not {"MageflowDeadlock", "pool:mageflow_worker_slots:used_ratio"} & names
    assert {each["alert"] for group in shipped_rules() for each in group["rules"] if "alert" in each} == set(ALERTS)


@needs_promtool
def test_alert_waits_as_long_as_it_says(tmp_path: Path) -> None:
    """The alert is pending, not firing, while the condition is younger than its wait."""
    for name, case in CASES.items():
        if ALERTS[name].wait not in {"0m", "1m"} and "worker_info" not in str(case.fires):
            assert promtool_says(tmp_path, name, case.fires, "1m", []) == "", name


@needs_promtool
def test_detector_alert_fires_when_checks_were_never_made(tmp_path: Path) -> None:
    """The alert also fires if there are no series of deadlock checks."""
    waiters: Series = ((f'mageflow_lock_waiters{{{W}, lock="a", task="pay"}}', "1x30"),)
    expected = [expectation(ALERTS["MageflowDeadlockDetectorIdle"], CASES["MageflowDeadlockDetectorIdle"].labels, "1")]
    assert promtool_says(tmp_path, "MageflowDeadlockDetectorIdle", waiters, "30m", expected) == ""


BORN_AT_ONE = (
    "mageflow_deadlocks_total{" + W + ', lock="a", victim_task="pay", resolution="victim_retried"}',
    "_x25 1x5",
)


@needs_promtool
@pytest.mark.parametrize(
    ("how", "around"),
    [
        ("a worker that ran before", ((f"up{{{W}}}", "1x30"),)),
        (
            "a worker that has just started",
            ((f"up{{{W}}}", "_x25 1x5"), (f"process_start_time_seconds{{{W}}}", "1490x30")),
        ),
    ],
)
def test_deadlock_alert_sees_the_very_first_deadlock(how: str, around: Series, tmp_path: Path) -> None:
    """A counter whose first sample is 1 increased by 1, although ``increase`` returns 0."""
    labels = {"job": "payments-workers", "lock": "a", "victim_task": "pay"}
    expected = [expectation(ALERTS["MageflowDeadlock"], labels, "1")]
    assert promtool_says(tmp_path, "MageflowDeadlock", (BORN_AT_ONE, *around), "30m", expected) == "", how


@needs_promtool
def test_deadlock_alert_ignores_the_past_of_a_worker(tmp_path: Path) -> None:
    """Deadlocks counted before the first scrape of an old worker do not fire the alert."""
    met = ((f"up{{{W}}}", "_x25 1x5"), (f"process_start_time_seconds{{{W}}}", "-9000x30"))
    assert promtool_says(tmp_path, "MageflowDeadlock", (BORN_AT_ONE, *met), "30m", []) == ""


def test_runbook_has_a_section_for_every_alert() -> None:
    """The anchor in ``runbook_url`` is the one GitHub gives to a heading of the runbook."""
    text = (BUNDLE.root / "runbook.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    shipped = (BUNDLE.root / "rules/mageflow-alerts.yml").read_text(encoding="utf-8")
    wanted = re.findall(r'runbook_url: "[^"#]+/dashboards/runbook\.md#([^"]+)"', shipped)
    assert len(wanted) == len(ALERTS) > 0
    assert set(wanted) <= anchors


def test_runbook_names_panels_that_exist() -> None:
    """Names in italics are titles of panels, so a reader finds them on the board."""
    text = re.sub(r"```.*?```", "", (BUNDLE.root / "runbook.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = set(re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", text)) - {"italics"}
    assert len(named) >= 15
    assert named <= {query.panel for query in panel_queries(BUNDLE.boards)} | {"Recent and slow flows"}


def test_dashboard_links_lead_to_shipped_boards() -> None:
    """The board in ``dashboard_url`` is one of the shipped boards."""
    assert {alert.board for alert in alerts()} <= {path.stem for path in BUNDLE.boards}


def test_templates_use_only_labels_the_alert_has() -> None:
    """Templates use labels that the alert's expression keeps; others would render as an empty text."""
    for name, alert in ALERTS.items():
        used = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
        assert used <= set(CASES[name].labels), name


def test_thresholds_are_options(tmp_path: Path) -> None:
    """Other thresholds give other rules, and an invalid threshold raises an error with its name."""
    text = alerts_yaml(alerts(Thresholds(queue_wait_seconds=5, lock_wait_seconds=7)), Addresses(grafana="https://g"))
    assert "p95_5m > 5" in text
    assert "mageflow_lock_oldest_wait_seconds) > 7" in text
    assert "https://g/d/mageflow-locks" in text
    with pytest.raises(ValueError, match=r"objective_ratio=1\.5"):
        Thresholds(objective_ratio=1.5)


def test_every_incident_differs_from_health() -> None:
    """Every case has an incident with other series than its healthy state."""
    assert all(isinstance(case, Case) and case.fires != case.quiet for case in CASES.values())
