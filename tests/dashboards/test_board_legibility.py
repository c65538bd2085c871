"""The boards are easy to read in Grafana: one test per problem that was found in pictures of them.

Each test reads the committed JSON and names the effect in Grafana that it prevents.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.generator.queries import increase_from_zero
from mageflow.dashboards import find_bundle
from mageflow.dashboards.promql import fill_variables, scan
from mageflow.dashboards.vocabulary import metric_of

BUNDLE = find_bundle()
BOARDS = [json.loads(path.read_text(encoding="utf-8")) for path in BUNDLE.boards]
PANELS = [
    pytest.param(panel, id=f"{board['uid']} / {panel['title']}")
    for board in BOARDS
    for outer in board["panels"]
    for panel in [outer, *outer.get("panels", [])]
    if panel["type"] != "row"
]
GOOD = {"succeeded", "ok", "hit", "completed", "acquired", "clean", "enqueued"}
BAD_COLOURS = {"red", "dark-red", "orange", "dark-orange", "purple"}
PROMTOOL = shutil.which("promtool")


def of_type(kind: str) -> list[Any]:
    return [each for each in PANELS if each.values[0]["type"] == kind]


def graphs() -> list[dict[str, Any]]:
    return [each.values[0] for each in of_type("timeseries")]


def properties(panel: dict[str, Any]) -> list[tuple[dict[str, Any], str, Any]]:
    return [
        (override["matcher"], prop["id"], prop["value"])
        for override in panel["fieldConfig"]["overrides"]
        for prop in override["properties"]
    ]


@pytest.mark.parametrize("panel", of_type("stat"))
def test_a_number_is_not_drawn_over_its_graph(panel: dict[str, Any]) -> None:
    """A stat has a name, enough height and no wide layout; otherwise Grafana draws the number over the graph."""
    assert panel["options"]["wideLayout"] is False
    assert panel["options"]["textMode"] == "value_and_name"
    assert panel["gridPos"]["h"] >= 5
    assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("panel", of_type("stat"))
def test_numbers_in_a_row_have_the_same_size(panel: dict[str, Any]) -> None:
    """By default, Grafana writes a short text such as "no locks" four times as large as the numbers beside it."""
    assert panel["options"]["text"] == {"titleSize": 13, "valueSize": 30}


@pytest.mark.parametrize("panel", [*of_type("timeseries"), *of_type("table"), *of_type("stat")])
def test_an_empty_panel_has_its_own_text(panel: dict[str, Any]) -> None:
    """Where an empty panel is good news, Grafana's "No data" looks like a fault of the board."""
    assert panel["fieldConfig"]["defaults"]["noValue"] not in {"", "No data"}


@pytest.mark.parametrize("panel", of_type("timeseries"))
def test_a_panel_of_zeros_has_a_small_axis(panel: dict[str, Any]) -> None:
    """If all values are 0, Grafana draws the axis up to 100, which looks like a hundred errors per second."""
    defaults = panel["fieldConfig"]["defaults"]
    assert "max" in defaults or 0 < defaults["custom"]["axisSoftMax"] <= 1024


@pytest.mark.parametrize("panel", of_type("timeseries"))
def test_lines_have_no_gaps_at_zero(panel: dict[str, Any]) -> None:
    """``rate(...) > 0`` leaves a gap wherever the rate is 0; only bars and ratios may use it."""
    defaults = panel["fieldConfig"]["defaults"]
    may_have_gaps = defaults["custom"].get("drawStyle") == "bars" or defaults["unit"] == "percentunit"
    for target in panel["targets"]:
        counters = [s for s in scan(target["expr"]).selectors if s.function in {"rate", "increase"}]
        assert not (counters and target["expr"].endswith(") > 0")) or may_have_gaps, target["expr"]


@pytest.mark.parametrize("panel", of_type("timeseries"))
def test_areas_are_filled_only_if_they_do_not_hide_each_other(panel: dict[str, Any]) -> None:
    """Filled areas of many lines hide each other, and so do bars, unless they are stacked."""
    custom = panel["fieldConfig"]["defaults"]["custom"]
    is_stacked = custom.get("stacking", {}).get("mode") == "normal"
    by_label = any("{{" in target["legendFormat"] for target in panel["targets"])
    assert is_stacked or not by_label or custom["fillOpacity"] == 0
    assert custom.get("drawStyle") != "bars" or is_stacked


@pytest.mark.parametrize("panel", of_type("timeseries"))
def test_good_outcomes_are_never_red(panel: dict[str, Any]) -> None:
    """Good label values have a good colour, and bad ones a bad colour, also after other labels in a legend."""
    coloured = {m["options"]: v["fixedColor"] for m, prop, v in properties(panel) if prop == "color"}
    for matcher, colour in coloured.items():
        word = re.sub(r"^/ |\$/$", "", matcher)
        assert (word in GOOD) <= (colour not in BAD_COLOURS), matcher


def test_every_link_works_with_any_name() -> None:
    """Names of tasks, locks and flows may contain spaces and ampersands, so links encode them."""
    urls = [link["url"] for p in PANELS for _, prop, v in properties(p.values[0]) if prop == "links" for link in v]
    assert len(urls) >= 20
    for url in urls:
        inserted = re.findall(r"\$\{(__field[^}]*|__value[^}]*|__data[^}]*)\}", url)
        assert inserted, url
        assert all(each.endswith(":percentencode") for each in inserted), url


def test_ids_in_the_wait_for_graph_have_no_space() -> None:
    """Grafana refers to an arrow head by the edge's id without quotes, so a space would remove the arrow head."""
    (panel,) = [each.values[0] for each in of_type("nodeGraph")]
    for target in panel["targets"]:
        for made in re.findall(r'"(?:source|target|id)", "([^"]*)"', target["expr"]):
            assert " " not in made, made


@pytest.mark.parametrize("panel", [each for each in PANELS if each.values[0]["datasource"]["type"] == "tempo"])
def test_a_table_of_traces_has_one_row_per_span_and_readable_headings(panel: dict[str, Any]) -> None:
    """The table lists spans, not traces (name and duration of a trace are its root's); each column has a heading."""
    (target,) = panel["targets"]
    assert target["tableType"] == "spans"
    (organize,) = panel["transformations"]
    renamed = organize["options"]["renameByName"]
    selected = re.search(r"select\((.*)\)", target["query"])
    assert selected is not None
    attributes = [each.strip().removeprefix("span.") for each in selected[1].split(",")]
    assert attributes[0] == "name"
    assert set(attributes[1:]) | {"Name", "Duration", "Start time", "Span ID"} == set(renamed)
    assert all(re.fullmatch(r"[a-z]+", heading) for heading in renamed.values())
    assert set(organize["options"]["excludeByName"]) == {"Trace Service", "Trace Name"}


@pytest.mark.parametrize("panel", of_type("timeseries"))
def test_a_legend_is_not_cut(panel: dict[str, Any]) -> None:
    """Below a graph, Grafana shows three lines of a table. It is beside a wide graph, and a list below a narrow one."""
    legend, is_wide = panel["options"]["legend"], panel["gridPos"]["w"] >= 12
    assert (legend["placement"], legend["displayMode"]) == (("right", "table") if is_wide else ("bottom", "list"))


@pytest.mark.parametrize("panel", of_type("heatmap"))
def test_rows_of_a_heat_map_have_room_for_their_labels(panel: dict[str, Any]) -> None:
    """At most 20 rows: more labels would cover each other. Each bound is one that the histogram has."""
    (target,) = panel["targets"]
    matchers = [m for s in scan(target["expr"]).selectors for m in s.matchers if m.label == "le"]
    assert matchers
    for matcher in matchers:
        metric = next(found for s in scan(target["expr"]).selectors if (found := metric_of(s.metric)) is not None)
        rows = [bound for bound in metric.buckets if re.fullmatch(matcher.value, str(bound))]
        assert 6 <= len(rows) <= 20
        assert len(rows) == matcher.value.count("|")
        assert re.fullmatch(matcher.value, "+Inf")
        assert [bound for bound in metric.buckets if re.fullmatch(matcher.value, f"{bound:.10g}")] == rows


def test_the_suggested_window_is_the_same_at_every_zoom() -> None:
    """A time range of a day has longer steps than one of an hour: what is counted per step would grow with the zoom."""
    (panel,) = [p.values[0] for p in PANELS if p.values[0]["title"] == "Window that holds and arrivals suggest"]
    (target,) = panel["targets"]
    near, far = (fill_variables(target["expr"], rate_interval=each, range_="1h") for each in ("20s", "600s"))
    assert near == far


@pytest.mark.parametrize("board", BOARDS, ids=[board["uid"] for board in BOARDS])
def test_alerts_are_marked_on_every_board(board: dict[str, Any]) -> None:
    """Each board has one annotation, on by default, whose query matches the names of all shipped alerts."""
    (marks,) = board["annotations"]["list"]
    assert marks["enable"] is True
    assert marks["datasource"]["uid"] == "${prometheus_datasource}"
    names = re.search(r'alertname=~"([^"]+)"', marks["target"]["expr"])
    assert names is not None
    groups = [yaml.safe_load(path.read_text(encoding="utf-8"))["groups"] for path in BUNDLE.rules]
    alerts = [rule["alert"] for file in groups for group in file for rule in group["rules"] if "alert" in rule]
    assert alerts
    assert all(re.fullmatch(names[1], alert) for alert in alerts)
    assert not re.fullmatch(names[1], "Watchdog")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)")
def test_increase_from_zero_counts_first_samples(tmp_path: Path) -> None:
    """A new series counts in full, so does one of a young process; an old process counts from its first scrape on."""
    labels = 'instance="{}", job="j"'
    new, old, young = (labels.format(name) for name in ("new", "old", "young"))
    series = [
        {"series": f"up{{{new}}}", "values": "1x40"},
        {"series": f"deadlocks_total{{{new}}}", "values": "_x35 1x5"},
        {"series": f"up{{{old}}}", "values": "_x30 1x10"},
        {"series": f"process_start_time_seconds{{{old}}}", "values": "_x30 -9000x10"},
        {"series": f"deadlocks_total{{{old}}}", "values": "_x30 7x5 9x5"},
        {"series": f"up{{{young}}}", "values": "_x30 1x10"},
        {"series": f"process_start_time_seconds{{{young}}}", "values": "_x30 1800x10"},
        {"series": f"deadlocks_total{{{young}}}", "values": "_x30 3x10"},
    ]
    expr = fill_variables(
        f"round(sum by (instance) ({increase_from_zero('deadlocks_total', '', '$__range', '$__range_s')}))",
        rate_interval="60s", range_="1200s",
    )  # fmt: skip
    expected = [{"labels": f'{{instance="{name}"}}', "value": value} for name, value in
                (("new", 1), ("old", 2), ("young", 3))]  # fmt: skip
    test = {"expr": expr, "eval_time": "40m", "exp_samples": expected}
    path = tmp_path / "increase_from_zero.yml"
    path.write_text(json.dumps({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [test]}]}))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(path)], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_what_may_be_negative_has_an_axis_below_zero() -> None:
    """A clock that is behind has a skew below 0, which an axis from 0 cuts off."""
    from_zero = {p["title"]: "min" in p["fieldConfig"]["defaults"] for p in graphs()}
    assert [title for title, begins in from_zero.items() if not begins] == ["Clock skew by instance"]


def test_a_narrow_panel_ranks_over_the_visible_range() -> None:
    """The legend below it has room for about eight tasks or locks, and ``topk`` at each step gives more lines."""
    of_many = [
        target["expr"]
        for panel in graphs()
        if panel["gridPos"]["w"] <= 8
        for target in panel["targets"]
        if "topk(" in target["expr"] or target["legendFormat"] in {"{{task}}", "{{lock}}"}
    ]
    assert len(of_many) == 6
    assert all("topk(8, " in each and "[$__range] @ end()" in each for each in of_many)


def test_the_table_of_deadlocks_can_be_read() -> None:
    """A cycle of two has no third member: Grafana fills its cells with the text of the empty panel, as links.

    The time has room for its seconds.
    """
    (panel,) = [p.values[0] for p in of_type("table") if p.values[0]["title"] == "Deadlocks with links"]
    assert panel["fieldConfig"]["defaults"]["noValue"] == "no deadlocks"
    assert ({"id": "byRegexp", "options": "/.+/"}, "noValue", "-") in properties(panel)
    assert ({"id": "byName", "options": "found"}, "custom.width", 230) in properties(panel)


def test_flows_that_succeed_are_not_red() -> None:
    """Chains and swarms have lines of their own; the palette had red for one that succeeds and one that fails."""
    (panel,) = [each for each in graphs() if each["title"] == "Started and finished"]
    coloured = {m["options"]: v["fixedColor"] for m, prop, v in properties(panel) if prop == "color"}
    assert coloured["/ started$/"] == "blue"
    assert coloured["/ succeeded$/"] == "green"
    assert coloured["/ failed$/"] == "red"


def test_tasks_that_were_never_near_their_timeout_are_no_lines() -> None:
    """A legend of zeros hides the few tasks that matter."""
    (panel,) = [each for each in graphs() if each["title"] == "Near timeout by task"]
    assert panel["targets"][0]["expr"].endswith("[$__range] @ end())) > 0")
