"""``mageflow dashboards export --slo`` and ``--kubernetes``."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mageflow.cli.dashboards import dashboards
from mageflow.dashboards import differences, find_bundle
from tests.dashboards.test_alert_rules import needs_promtool

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_KEY = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?")
DURATION = re.compile(r"(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)")
PORT = re.compile(r"[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
TEXT = re.compile(r"(?s).+")
LABELS = {LABEL_KEY: LABEL_VALUE}

ENDPOINT = {"port": PORT, "path?": TEXT, "interval?": DURATION, "scrapeTimeout?": DURATION, "scheme?": TEXT}
RULE = {
    "record?": TEXT, "alert?": TEXT, "expr": TEXT, "for?": DURATION, "keep_firing_for?": DURATION,
    "labels?": LABELS, "annotations?": {TEXT: TEXT},
}  # fmt: skip
HEAD = {"apiVersion": TEXT, "kind": TEXT}
META = {"name": NAME, "labels?": LABELS, "annotations?": {LABEL_KEY: TEXT}}
MONITOR = {"jobLabel?": LABEL_KEY, "selector": {"matchLabels?": LABELS}}
SCHEMAS: dict[str, Any] = {
    "PodMonitor": {**HEAD, "metadata": META, "spec": {**MONITOR, "podMetricsEndpoints": [ENDPOINT]}},
    "ServiceMonitor": {**HEAD, "metadata": META, "spec": {**MONITOR, "endpoints": [ENDPOINT]}},
    "PrometheusRule": {
        **HEAD, "metadata": META,
        "spec": {"groups": [{"name": TEXT, "interval?": DURATION, "rules": [RULE]}]},
    },
    "ConfigMap": {**HEAD, "metadata": META, "data": {re.compile(r"[-._a-zA-Z0-9]+"): TEXT}},
}  # fmt: skip
"""The fields of each kind that the Prometheus Operator and Kubernetes accept, as far as the manifests use them.

Keys with a question mark may be missing; no others may be there, for the API server would drop them without a word.
"""


def violations(value: Any, schema: Any, at: str = "") -> list[str]:
    """One line for each place where a value does not fit a schema."""
    if isinstance(schema, re.Pattern):
        return (
            [] if isinstance(value, str) and schema.fullmatch(value) else [f"{at}: {value!r} is not {schema.pattern}"]
        )
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{at}: no list, or an empty one"]
        return [line for n, each in enumerate(value) for line in violations(each, schema[0], f"{at}[{n}]")]
    if not isinstance(value, dict):
        return [f"{at}: {value!r} is no mapping"]
    known = {key.removesuffix("?"): key for key in schema if isinstance(key, str)}
    patterns = [key for key in schema if isinstance(key, re.Pattern)]
    found = [f"{at}: {key} is missing" for key in known if key == known[key] and key not in value]
    for key, each in value.items():
        fitting = [pattern for pattern in patterns if pattern.fullmatch(key)]
        if key in known:
            found += violations(each, schema[known[key]], f"{at}.{key}")
        elif fitting:
            found += violations(each, schema[fitting[0]], f"{at}.{key}")
        else:
            found.append(f"{at}: unknown field {key}")
    return found


def export(target: Path, *options: str) -> Result:
    return CliRunner().invoke(dashboards, ["export", str(target), *options])


def documents(target: Path) -> dict[str, Any]:
    return {path.name: yaml.safe_load(path.read_text()) for path in (target / "kubernetes").iterdir()}


def test_manifests_fit_their_schemas(tmp_path: Path) -> None:
    """Every manifest has the fields of its kind and no others, and the versions the API server knows."""
    done = export(tmp_path, "--kubernetes", "--label", "release=prom")
    assert done.exit_code == 0, done.output
    found = documents(tmp_path)
    assert sorted(doc["kind"] for doc in found.values()) == [
        *["ConfigMap"] * 5, "PodMonitor", "PrometheusRule", "ServiceMonitor",
    ]  # fmt: skip
    for name, doc in found.items():
        assert violations(doc, SCHEMAS[doc["kind"]], name) == []
        assert doc["apiVersion"] == ("v1" if doc["kind"] == "ConfigMap" else "monitoring.coreos.com/v1")
        assert doc["metadata"]["labels"].get("release", "prom") == "prom"
        # `kubectl apply` with more than this needs --server-side; an API server refuses more than 1 MiB.
        assert (tmp_path / "kubernetes" / name).stat().st_size < 262_144


def test_schemas_find_mistakes() -> None:
    """A missing field, an unknown one and a wrong value are found."""
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "Mage Flow"},
        "spec": {"selector": {"matchLables": {}}, "podMetricsEndpoints": [{"interval": "soon"}]},
    }  # fmt: skip
    assert [line.partition(": ")[0] for line in violations(monitor, SCHEMAS["PodMonitor"], "x")] == [
        "x.metadata.name", "x.spec.selector", "x.spec.podMetricsEndpoints[0]", "x.spec.podMetricsEndpoints[0].interval",
    ]  # fmt: skip


def test_rules_and_boards_are_the_shipped_ones(tmp_path: Path) -> None:
    """The PrometheusRule has every group, and each ConfigMap its board, unchanged and in the folder."""
    export(tmp_path, "--kubernetes")
    found = documents(tmp_path)
    groups = [group for path in find_bundle().rules for group in yaml.safe_load(path.read_text())["groups"]]
    assert found["prometheusrule.yaml"]["spec"]["groups"] == groups
    for board in find_bundle().boards:
        manifest = found[f"grafana-{board.stem}.yaml"]
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert manifest["metadata"]["annotations"]["grafana_folder"] == "mageflow"
        assert json.loads(manifest["data"][board.name]) == json.loads(board.read_text())


def test_monitors_select_what_they_are_given(tmp_path: Path) -> None:
    """``--match-label`` replaces the labels by which pods and Services are found."""
    export(tmp_path, "--kubernetes", "--match-label", "app=pay", "--match-label", "tier=workers")
    found = documents(tmp_path)
    for name in ("podmonitor.yaml", "servicemonitor.yaml"):
        assert found[name]["spec"]["selector"]["matchLabels"] == {"app": "pay", "tier": "workers"}
    for wrong in (("--match-label", "app=pay"), ("--kubernetes", "--label", "release")):
        assert export(tmp_path / "other", *wrong).exit_code == 2
    assert not (tmp_path / "other").exists()


@needs_promtool
def test_objective_is_a_setting(tmp_path: Path) -> None:
    """``--slo 99.5`` changes one number, in rule files and PrometheusRule, and ``check`` accepts it."""
    done = export(tmp_path, "--slo", "99.5", "--kubernetes")
    assert done.exit_code == 0, done.output
    (changed,) = [
        (old, new)
        for path in find_bundle().rules
        for old, new in zip(
            path.read_text().splitlines(), (tmp_path / "rules" / path.name).read_text().splitlines(), strict=True
        )
        if old != new
    ]
    assert changed == ('        expr: "vector(0.99)"', '        expr: "vector(0.995)"')
    assert changed[1].strip() in (tmp_path / "kubernetes/prometheusrule.yaml").read_text()
    assert differences(find_bundle(), tmp_path) == []
    rules = [str(path) for path in (tmp_path / "rules").iterdir()]
    assert subprocess.run([str(shutil.which("promtool")), "check", "rules", *rules], check=False).returncode == 0


def test_check_looks_at_the_manifests_too(tmp_path: Path) -> None:
    """Manifests of another release are named; an own objective and own labels are settings. It said *in order*."""
    options = ("--kubernetes", "--slo", "99.5", "--label", "release=prometheus", "--match-label", "scrape=yes")
    assert export(tmp_path, *options).exit_code == 0
    check = ["check", str(tmp_path)]
    assert CliRunner().invoke(dashboards, check).exit_code == 0
    for name, old, new in (
        ("prometheusrule.yaml", "MageflowDeadlockStorm", "MageflowStorm"),
        ("podmonitor.yaml", "/metrics", "/other"),
        ("grafana-mageflow-task.yaml", "mageflow_task_runs_total", "mageflow_runs_total"),
    ):
        path = tmp_path / "kubernetes" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    (tmp_path / "kubernetes/servicemonitor.yaml").unlink()

    done = CliRunner().invoke(dashboards, check)
    assert done.exit_code == 1
    for name in ("prometheusrule.yaml", "podmonitor.yaml", "grafana-mageflow-task.yaml"):
        assert f"kubernetes/{name} differs" in done.output
    assert "kubernetes/servicemonitor.yaml is missing" in done.output
    assert done.output.count("✗") == 4
    assert f"mageflow dashboards export {tmp_path} --kubernetes" in done.output


@pytest.mark.parametrize(("slo", "fires"), [("99.9", True), ("90", False)])
@needs_promtool
def test_objective_decides_when_the_budget_burns(slo: str, fires: bool, tmp_path: Path) -> None:
    """Five failures in a hundred burn a budget of 0.1 % too fast, and are within one of 10 %."""
    export(tmp_path, "--slo", slo)
    expr = 'group by (alertname) (ALERTS{alertstate="firing"})'
    burn = {"labels": '{alertname="MageflowErrorBudgetBurn"}', "value": 1}
    series = 'mageflow_task_runs_total{job="w", instance="a:1", task="pay", outcome="%s"}'
    case = {
        "interval": "1m",
        "input_series": [
            {"series": series % "succeeded", "values": "0+95x60"},
            {"series": series % "failed", "values": "0+5x60"},
        ],
        "promql_expr_test": [{"expr": expr, "eval_time": "1h", "exp_samples": [burn] if fires else []}],
    }
    file = tmp_path / "case.yml"
    rules = [str(path) for path in (tmp_path / "rules").iterdir()]
    file.write_text(json.dumps({"rule_files": rules, "evaluation_interval": "30s", "tests": [case]}))
    promtool = str(shutil.which("promtool"))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("slo", ["89.9", "100", "0.995"])
def test_impossible_objectives_are_refused(slo: str, tmp_path: Path) -> None:
    """Below 90 % the fast burn rates could never be reached; at 100 % there is no budget."""
    assert export(tmp_path / "new", "--slo", slo).exit_code == 2
    assert not (tmp_path / "new").exists()
