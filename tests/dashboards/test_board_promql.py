"""promtool accepts every query of boards, rules and documents."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dashboards.generator.alerts import alerts
from dashboards.generator.boards.locks import EDGES, NODES
from dashboards.generator.queries import expand_macros
from dashboards.generator.recordings import RECORDINGS
from mageflow.dashboards import find_bundle, panel_queries
from mageflow.dashboards.promql import fill_variables

BUNDLE = find_bundle()
PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, check=False, timeout=200)


def rule_file(path: Path, queries: list[str]) -> Path:
    rules = [{"record": f"throwaway:{number}", "expr": expr} for number, expr in enumerate(queries)]
    path.write_text(json.dumps({"groups": [{"name": "throwaway", "rules": rules}]}))
    return path


def filled(expr: str) -> str:
    return fill_variables(expr, rate_interval="60s", range_="1h")


def test_every_panel_query_parses(tmp_path: Path) -> None:
    """Promtool accepts each panel query as a recording rule, with Grafana's variables replaced."""
    queries = [filled(query.expr) for query in panel_queries(BUNDLE.boards)]
    done = promtool("check", "rules", str(rule_file(tmp_path / "panels.yml", queries)))
    assert done.returncode == 0, done.stderr
    assert f"{len(queries)} rules found" in done.stdout


def test_a_broken_query_is_refused(tmp_path: Path) -> None:
    """Promtool rejects an invalid query, so this check can fail."""
    done = promtool("check", "rules", str(rule_file(tmp_path / "broken.yml", ["sum(rate(mageflow_x_total[5m])"])))
    assert done.returncode != 0


def test_every_documented_query_parses(tmp_path: Path) -> None:
    """PromQL blocks in README, docs and runbook are valid queries."""
    root = Path(__file__).parents[2]
    pages = [root / "README.md", *root.glob("docs/**/*.md"), *root.glob("dashboards/*.md")]
    block = re.compile(r"```promql\n(.*?)```", re.DOTALL)
    blocks = [each for page in pages if page.is_file() for each in block.findall(page.read_text())]
    assert len(blocks) >= 25
    done = promtool("check", "rules", str(rule_file(tmp_path / "docs.yml", [filled(each) for each in blocks])))
    assert done.returncode == 0, done.stderr


def test_provisioned_queries_parse(tmp_path: Path) -> None:
    """The queries that lead from a span to the metrics of its task are valid when Grafana has filled in the tags."""
    import yaml

    sources = yaml.safe_load((BUNDLE.root / "provisioning/datasources/mageflow.yml").read_text())["datasources"]
    queries = [q["query"] for s in sources for q in s["jsonData"].get("tracesToMetrics", {}).get("queries", [])]
    assert queries
    exprs = [each.replace("$$__tags", 'task="a"') for each in queries]
    done = promtool("check", "rules", str(rule_file(tmp_path / "sources.yml", exprs)))
    assert done.returncode == 0, done.stderr


def test_shipped_rule_files_pass_promtool() -> None:
    """Promtool accepts the rule files, not only their expressions."""
    done = promtool("check", "rules", *map(str, BUNDLE.rules))
    assert done.returncode == 0, done.stderr
    assert f"{len(alerts())} rules found" in done.stdout
    assert f"{len(RECORDINGS)} rules found" in done.stdout


def test_local_prometheus_configuration_passes_promtool() -> None:
    """Promtool accepts the configuration of the local Prometheus, with its rules."""
    done = promtool("check", "config", str(BUNDLE.root / "prometheus-local.yml"))
    assert done.returncode == 0, done.stderr + done.stdout


def edge(waiter: str, holder: str, lock: str, instance: str, value: int) -> dict[str, str]:
    labels = f'waiter_task="{waiter}", holder_task="{holder}", lock="{lock}", instance="{instance}", job="j"'
    return {"series": f"mageflow_lock_wait_edges{{{labels}}}", "values": f"{value}x2"}


def test_node_graph_frames_fit_together(tmp_path: Path) -> None:
    """Edges lead from tasks to locks and from locks to tasks, never to the same node, and both ends are nodes."""
    series = [
        edge("pay", "ship", "account", "a:1", 2),
        edge("pay", "ship", "account", "b:1", 1),
        edge("ship", "pay", "stock", "a:1", 1),
        edge("pay", "pay", "account", "a:1", 4),
        edge("ship", "count", "till", "b:1", 1),
        edge("idle", "pay", "account", "a:1", 0),
    ]

    def a_wait(task: str, lock: str, value: int) -> dict[str, object]:
        labels = (
            f'id="task:{task}>lock:{lock}", source="task:{task}", target="lock:{lock}", mainstat="waits for", '
            f'color="#ff9830", waiter_task="{task}", lock="{lock}"'
        )
        return {"labels": f"{{{labels}}}", "value": value}

    def a_hold(lock: str, task: str, value: int) -> dict[str, object]:
        labels = (
            f'id="lock:{lock}>task:{task}", source="lock:{lock}", target="task:{task}", mainstat="held by", '
            f'color="gray", holder_task="{task}", lock="{lock}"'
        )
        return {"labels": f"{{{labels}}}", "value": value}

    def a_task(task: str, stat: str, colour: str, more: str = "") -> dict[str, object]:
        labels = f'id="task:{task}", title="{task}", task="{task}", mainstat="{stat}", color="{colour}"{more}'
        return {"labels": f"{{{labels}}}", "value": 1}

    def a_lock(lock: str) -> dict[str, object]:
        labels = f'id="lock:{lock}", title="{lock}", lock="{lock}", mainstat="lock", color="#5794f2"'
        return {"labels": f"{{{labels}}}", "value": 1}

    expected_edges = [
        a_wait("pay", "account", 7), a_wait("ship", "stock", 1), a_wait("ship", "till", 1),
        a_hold("account", "ship", 3), a_hold("account", "pay", 4), a_hold("stock", "pay", 1),
        a_hold("till", "count", 1),
    ]  # fmt: skip
    expected_nodes = [
        a_task("pay", "7 waiting", "#ff9830", ', waiting="7"'), a_task("ship", "2 waiting", "#ff9830", ', waiting="2"'),
        a_task("count", "holds", "gray"), a_lock("account"), a_lock("stock"), a_lock("till"),
    ]  # fmt: skip
    tests = [
        {"expr": filled(expand_macros(EDGES)), "eval_time": "1m", "exp_samples": expected_edges},
        {"expr": filled(expand_macros(NODES)), "eval_time": "1m", "exp_samples": expected_nodes},
    ]
    case = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    path = tmp_path / "graph.yml"
    path.write_text(json.dumps({"rule_files": [], "tests": [case]}))
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_node_graph_panel_is_wired_as_grafana_expects() -> None:
    """The panel's queries have the refIds edges and nodes and are instant tables, as Grafana requires."""
    board = json.loads((BUNDLE.root / "grafana/mageflow-locks.json").read_text())
    (panel,) = [each for each in board["panels"] if each["type"] == "nodeGraph"]
    assert [(t["refId"], t["format"], t["instant"]) for t in panel["targets"]] == [
        ("edges", "table", True),
        ("nodes", "table", True),
    ]
