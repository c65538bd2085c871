"""Boards, rules and runbook name only metrics, labels, attributes and log events that exist."""

import json
import re
from pathlib import Path

import pytest

from dashboards.generator.alerts import alerts
from dashboards.generator.recordings import RECORDINGS
from mageflow.dashboards import find_bundle, find_problems, panel_queries
from mageflow.dashboards.promql import scan
from mageflow.dashboards.vocabulary import metrics_in
from mageflow.telemetry.names import METRICS

BUNDLE = find_bundle()
RECORDED = {rule.record: frozenset(rule.labels) for rule in RECORDINGS}


def test_shipped_panels_name_only_what_the_dictionary_has() -> None:
    """Every query in the committed JSON uses names from the dictionary of signals."""
    queries = list(panel_queries(BUNDLE.boards))
    assert len(queries) >= 100
    assert [(q.panel, problem) for q in queries for problem in find_problems(q.expr)] == []


def test_shipped_rules_name_only_what_the_dictionary_has() -> None:
    """Rules may also use recorded series, with the labels that the recording keeps."""
    problems = [(a.name, p) for a in alerts() for p in find_problems(a.expr, RECORDED)]
    problems += [(r.record, p) for r in RECORDINGS for p in find_problems(r.expr, RECORDED)]
    assert problems == []


def test_every_metric_is_used_by_a_panel_or_rule() -> None:
    """A metric without a panel or rule is either a missing panel or a waste of series."""
    used = {metric for q in panel_queries(BUNDLE.boards) for metric in metrics_in(q.expr)}
    used |= {metric for a in alerts() for metric in metrics_in(a.expr)}
    used |= {metric for r in RECORDINGS for metric in metrics_in(r.expr)}
    assert {metric.name for metric in METRICS} - {metric.name for metric in used} == set()


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        ("sum(mageflow_task_run_total)", "not a metric"),
        ("rate(mageflow_task_runs_total{outcome='x'}[5m])".replace("'", '"'), "outcome is never 'x'"),
        ('rate(mageflow_task_runs_total{outcome=~"failed|lost"}[5m])', "outcome is never 'lost'"),
        ('rate(mageflow_task_runs_total{queue="a"}[5m])', "no label queue"),
        ("mageflow_task_run_duration_seconds", "query _bucket"),
        ("sum(mageflow_task_runs_total)", "only increases"),
        ("rate(mageflow_tasks_in_flight[5m])", "is a gauge"),
        ("sum by (host) (mageflow_tasks_in_flight)", "label host"),
        ('rate(mageflow_lock_wait_seconds_bucket{le="0.02"}[5m])', "no bucket"),
    ],
)
def test_a_wrong_name_is_found(expr: str, problem: str) -> None:
    """The check finds each kind of mistake."""
    assert any(problem in found for found in find_problems(expr)), find_problems(expr)


def test_no_board_or_rule_assumes_an_installation() -> None:
    """No query and no rule contains a job name, a data source or a host."""
    for query in panel_queries(BUNDLE.boards):
        for selector in scan(query.expr).selectors:
            for matcher in selector.matchers:
                if matcher.label in {"job", "instance"}:
                    assert matcher.value == f"${matcher.label}", query
    for alert in alerts():
        labels = {m.label for s in scan(alert.expr).selectors for m in s.matchers}
        assert not labels & {"job", "instance", "cluster", "namespace"}, alert.name


def test_every_attribute_a_trace_query_names_exists() -> None:
    """The span attributes in TraceQL queries are in the dictionary of signals."""
    from mageflow.telemetry.names import ATTRIBUTES

    boards = [json.loads(path.read_text(encoding="utf-8")) for path in BUNDLE.boards]
    panels = [p for board in boards for panel in board["panels"] for p in [panel, *panel.get("panels", [])]]
    queries = [t["query"] for p in panels for t in p.get("targets", []) if t.get("queryType") == "traceql"]
    assert queries
    named = {name for query in queries for name in re.findall(r"span\.([a-z_.]+)", query)}
    assert named
    assert named <= ATTRIBUTES


def test_every_log_event_the_runbook_names_exists() -> None:
    """Log events that the runbook names are in the dictionary of signals."""
    from mageflow.telemetry.names import EVENTS

    text = Path(BUNDLE.root / "runbook.md").read_text(encoding="utf-8")
    prefixes = {event.name.split(".")[1] for event in EVENTS}
    named = {m for m in re.findall(r"`(mageflow\.[a-z_]+\.[a-z_]+)`", text) if m.split(".")[1] in prefixes}
    assert named
    named.discard("mageflow.telemetry.names")  # the module
    assert named - {event.name for event in EVENTS} == set()
