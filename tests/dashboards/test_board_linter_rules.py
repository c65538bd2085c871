"""The rules of grafana/dashboard-linter, one test each, over the committed JSON.

The linter is a Go program. Its rules are written again here so that they run with the suite. The panels in
`EXCLUDED` are left out, each with its reason.
"""

import json

import pytest

from mageflow.dashboards import find_bundle
from mageflow.dashboards.promql import scan
from mageflow.dashboards.vocabulary import EXTERNAL_SERIES, metric_of
from mageflow.telemetry.names import METRICS

BOARDS = [json.loads(path.read_text(encoding="utf-8")) for path in find_bundle().boards]
IDS = [board["uid"] for board in BOARDS]
EXCLUDED = {
    "Engine backlog by workflow": "scraped from Hatchet under another job, which the job variable does not list",
    "Recent and slow flows": "TraceQL against Tempo, not PromQL",
    "Deadlocks and their runs": "TraceQL against Tempo, not PromQL",
    "Deadlocks with links": "LogQL against Loki, not PromQL",
    "Logs of these flows": "LogQL against Loki, not PromQL",
    "Logs of these locks": "LogQL against Loki, not PromQL",
    "Logs of these tasks": "LogQL against Loki, not PromQL",
}

UNITS = {"none", "short", "percent", "percentunit", "s", "ms", "bytes", "ops", "reqps", "bool"}
"""The units used here, a part of the linter's list."""

RANGE_FUNCTIONS = {"increase", "max_over_time"}

FIXED_RANGES = {"Window that holds and arrivals suggest": {"1m"}}
"""Panels that compare the busiest minutes of ranges: what is counted must not grow with the zoom."""

boards = pytest.mark.parametrize("board", BOARDS, ids=IDS)


def panels_of(board: dict) -> list[dict]:
    flat = [inner for panel in board["panels"] for inner in [panel, *panel.get("panels", [])]]
    return [panel for panel in flat if panel["type"] != "row"]


def targets_of(board: dict) -> list[tuple[dict, str]]:
    return [
        (panel, target["expr"])
        for panel in panels_of(board)
        if panel["title"] not in EXCLUDED
        for target in panel["targets"]
    ]


def variable(board: dict, name: str) -> dict:
    (found,) = [each for each in board["templating"]["list"] if each["name"] == name]
    return found


def test_exclusions_are_still_needed() -> None:
    """Every excluded panel still exists."""
    titles = {panel["title"] for board in BOARDS for panel in panels_of(board)}
    assert set(EXCLUDED) <= titles


@boards
def test_template_datasource_rule(board: dict) -> None:
    """Data source variables have the names that the linter requires, Prometheus first."""
    sources = [each for each in board["templating"]["list"] if each["type"] == "datasource"]
    assert sources[0]["name"] == "prometheus_datasource"
    assert sources[0]["label"] == "Prometheus data source"
    others = [(each["name"], each["query"]) for each in sources[1:]]
    assert others == [each for each in (("tempo_datasource", "tempo"), ("loki_datasource", "loki")) if each in others]


@boards
@pytest.mark.parametrize("name", ["job", "instance"])
def test_template_job_and_instance_rules(board: dict, name: str) -> None:
    """Both variables are queries of the data source variable, multi-select, and match everything for *All*."""
    found = variable(board, name)
    assert found["type"] == "query"
    assert found["datasource"]["uid"] == "${prometheus_datasource}"
    assert (found["label"], found["multi"], found["allValue"]) == (name.title(), True, ".+")


@boards
def test_template_label_promql_rule(board: dict) -> None:
    """Query variables use label_values with a valid selector and a label that its series has."""
    for each in board["templating"]["list"]:
        if each["type"] != "query":
            continue
        query = each["query"]["query"]
        assert query.startswith("label_values(")
        selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(", ")
        if selector.startswith("{"):
            assert label in {"job", "instance"}
            continue
        (series,) = scan(selector).selectors
        metric = metric_of(series.metric)
        assert metric is not None
        assert label in {*metric.labels, "job", "instance"}


@boards
def test_template_on_time_change_reload_rule(board: dict) -> None:
    """Query variables are loaded again when the time range changes, so that a task of last week can be selected."""
    assert all(each["refresh"] == 2 for each in board["templating"]["list"] if each["type"] == "query")


@boards
def test_panel_datasource_rule(board: dict) -> None:
    """Every panel uses a data source variable of its board."""
    names = {each["name"] for each in board["templating"]["list"] if each["type"] == "datasource"}
    for panel in panels_of(board):
        assert panel["datasource"]["uid"].strip("${}") in names, panel["title"]


@boards
def test_panel_title_description_rule(board: dict) -> None:
    """Every panel has a title, and a description that is longer than the title."""
    for panel in panels_of(board):
        assert panel["title"]
        assert len(panel["description"]) > len(panel["title"])
        assert panel["description"].endswith("."), panel["title"]


@boards
def test_panel_units_rule(board: dict) -> None:
    """Every panel, every override and every axis of a heatmap has a unit from the linter's list."""
    for panel in panels_of(board):
        config = panel["fieldConfig"]
        assert config["defaults"]["unit"] in UNITS, panel["title"]
        for override in config["overrides"]:
            for prop in override["properties"]:
                assert prop["id"] != "unit" or prop["value"] in UNITS
        if panel["type"] == "heatmap":
            assert panel["options"]["yAxis"]["unit"] in UNITS


@boards
def test_panel_no_targets_rule(board: dict) -> None:
    """Every panel has a query."""
    assert all(panel.get("targets") for panel in panels_of(board))


@boards
def test_target_promql_rule(board: dict) -> None:
    """Every query has a selector. Another test checks the syntax with promtool."""
    for _, expr in targets_of(board):
        assert scan(expr).selectors


@boards
@pytest.mark.parametrize("label", ["job", "instance"])
def test_target_job_and_instance_rules(board: dict, label: str) -> None:
    """Every selector of every query is filtered by the variables job and instance."""
    for panel, expr in targets_of(board):
        for selector in scan(expr).selectors:
            wanted = [(m.op, m.value) for m in selector.matchers if m.label == label]
            assert wanted == [("=~", f"${label}")], (panel["title"], selector)


@boards
def test_target_rate_interval_rule(board: dict) -> None:
    """Rate uses $__rate_interval; increase and a maximum may use $__range, in panels about the whole time range."""
    for panel, expr in targets_of(board):
        for selector in scan(expr).selectors:
            if selector.range:
                allowed = {"$__rate_interval"} | ({"$__range"} if selector.function in RANGE_FUNCTIONS else set())
                allowed |= FIXED_RANGES.get(panel["title"], set())
                assert selector.range in allowed, panel["title"]


@boards
def test_target_counter_agg_rule(board: dict) -> None:
    """A counter is read through rate, irate or increase, or by a macro: its first sample too, or what a step adds."""
    for panel, expr in targets_of(board):
        allowed = {"rate", "irate", "increase"}
        if " unless " in expr and "or increase(" in expr:
            allowed |= {"unless", "offset"}
        if " offset $__interval" in expr:
            allowed |= {"sum", "offset"}
        for selector in scan(expr).selectors:
            if selector.metric.endswith("_total"):
                assert selector.function in allowed, panel["title"]


@boards
def test_uneditable_dashboard_rule(board: dict) -> None:
    """Boards cannot be edited in the browser: the next provisioning would overwrite the edit."""
    assert board["editable"] is False


@boards
def test_target_logql_rules(board: dict) -> None:
    """Queries of Loki count over the visible range and select every stream: labels differ from agent to agent."""
    for panel in panels_of(board):
        if panel["datasource"]["type"] == "loki":
            (target,) = panel["targets"]
            assert '{service_name=~".+"}' in target["expr"]
            assert ("[$__range]" in target["expr"]) == (target["queryType"] == "instant")


def families_of(target: dict) -> set[str]:
    """The histograms with exemplars that a query reads."""
    if "expr" not in target:
        return set()
    families = {metric_of(s.metric) for s in scan(target["expr"]).selectors if s.metric.endswith("_bucket")}
    return {metric.name for metric in families if metric is not None and metric.exemplars}


@boards
def test_exemplars_hide_no_lines(board: dict) -> None:
    """Exemplars are on a heat map of their histogram. A graph has them where no heat map of the board has, once."""
    on_heat = {
        name
        for panel in panels_of(board)
        if panel["type"] == "heatmap"
        for target in panel["targets"]
        if target["exemplar"]
        for name in families_of(target)
    }
    for panel in panels_of(board):
        if panel["type"] == "heatmap":
            assert [bool(families_of(target)) for target in panel["targets"]] == [
                target["exemplar"] for target in panel["targets"]
            ]
        if panel["type"] != "timeseries":
            continue
        carriers = [target for target in panel["targets"] if target["exemplar"]]
        assert len(carriers) <= 1, panel["title"]
        for target in carriers:
            assert "histogram_quantile(" in target["expr"], panel["title"]
            assert families_of(target), panel["title"]
            assert not families_of(target) & on_heat, panel["title"]


def test_every_histogram_with_exemplars_shows_them_somewhere() -> None:
    """One click leads from a distribution to a trace."""
    shown = {
        name
        for board in BOARDS
        for panel in panels_of(board)
        for target in panel["targets"]
        if target.get("exemplar")
        for name in families_of(target)
    }
    assert shown == {metric.name for metric in METRICS if metric.exemplars}


@boards
def test_stats_have_a_text_for_no_value(board: dict) -> None:
    """A stat without a value, or with NaN, shows a text."""
    for panel in panels_of(board):
        if panel["type"] == "stat":
            (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
            assert mapping["options"]["match"] == "null+nan"
            assert panel["fieldConfig"]["defaults"]["noValue"]


def test_external_series_are_few_and_known() -> None:
    """Every series that mageflow does not export itself is in the list of external series."""
    used = {s.metric for board in BOARDS for _, expr in targets_of(board) for s in scan(expr).selectors}
    assert {name for name in used if metric_of(name) is None} <= set(EXTERNAL_SERIES)
