"""Log panels: their queries read fields that the JSON lines have, their links lead somewhere."""

import json
import re
from typing import Any
from urllib.parse import unquote

import pytest

from dashboards.generator.log_queries import LINE_FIELDS, lines_with, one_row_per_line
from mageflow.dashboards import find_bundle
from mageflow.telemetry.names import EVENTS

BOARDS = [json.loads(path.read_text(encoding="utf-8")) for path in find_bundle().boards]
PANELS = [
    (board["uid"], panel)
    for board in BOARDS
    for panel in board["panels"]
    if panel.get("datasource", {}).get("type") == "loki"
]


def query_of(panel: dict[str, Any]) -> str:
    (target,) = panel["targets"]
    return target["expr"]


def test_tasks_flows_and_locks_have_a_log_panel_with_their_variable() -> None:
    """The variable of a board filters its lines."""
    filters = {uid: query_of(panel) for uid, panel in PANELS if panel["type"] == "logs"}
    assert set(filters) == {"mageflow-task", "mageflow-flows", "mageflow-locks"}
    assert 'task=~"$task"' in filters["mageflow-task"]
    assert 'flow=~"$flow_name"' in filters["mageflow-flows"]
    assert 'lock=~"$lock"' in filters["mageflow-locks"]


def fields_of(query: str) -> set[str]:
    """The fields of a line that a query filters, prints or extracts."""
    if (extracted := re.search(r"\| json (\w.*?) \| ", query)) is not None:
        return {re.split(r"[.\[]", each)[0] for each in re.findall(r'="([^"]+)"', extracted[1])}
    filtered = query.partition("| json |")[2].partition("| line_format")[0]
    return {*re.findall(r"(\w+)=~", filtered), *re.findall(r"\{\{\.(\w+)\}\}", query)}


def test_queries_read_fields_that_lines_have() -> None:
    """Every field that is filtered, printed or extracted is in the dictionary of log events."""
    for _, panel in PANELS:
        named = fields_of(query_of(panel))
        assert "run_id" in named or "cycle" in named, panel["title"]
        assert named <= LINE_FIELDS, panel["title"]


def test_events_that_queries_name_exist() -> None:
    """A pattern matches at least one event of the dictionary."""
    for _, panel in PANELS:
        for pattern in re.findall(r'event=~?"([^"]+)"', query_of(panel)):
            assert pattern == "event" or any(re.fullmatch(pattern, each.name) for each in EVENTS), pattern


def test_an_unknown_field_is_refused() -> None:
    """The generator does not write a query that finds nothing."""
    with pytest.raises(ValueError, match="no log event has the field tsk"):
        lines_with("tsk", 'tsk=~"$task"')
    with pytest.raises(ValueError, match="no log event has the field cycles"):
        one_row_per_line("mageflow.deadlock.detected", {"run1": "cycles[0].run_id"}, 'run1=~".+"')


def test_a_deadlock_leads_to_its_trace_its_runs_their_tasks_and_logs() -> None:
    """One link per cell: Tempo, Hatchet, the task board, and Loki in Explore."""
    ((_, panel),) = [each for each in PANELS if each[1]["type"] == "table"]
    urls = {
        override["matcher"]["options"]: prop["value"][0]["url"]
        for override in panel["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "links"
    }
    for number in "123":
        assert urls[f"run{number}"] == "${hatchet_runs:raw}/${__value.text:percentencode}"
        assert urls[f"task{number}"].startswith("/d/mageflow-task?var-task=${__value.text:percentencode}&")
    pane = json.loads(unquote(urls["trace"].partition("panes=")[2]))["one"]
    assert pane["datasource"] == "${tempo_datasource}"
    assert pane["queries"][0]["query"] == "${__value.text:percentencode}"
    assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
    pane = json.loads(unquote(urls["found"].partition("panes=")[2]))["one"]
    assert pane["datasource"] == "${loki_datasource}"
    runs = "${__data.fields.run1:percentencode}|${__data.fields.run2:percentencode}"
    assert pane["queries"][0]["expr"] == '{service_name=~".+"} |~ `' + runs + "`"
    headings = panel["transformations"][0]["options"]["renameByName"]
    assert {headings["run1"], headings["run2"]} == {"run1", "run2"}
    (board,) = [each for each in BOARDS if each["uid"] == "mageflow-locks"]
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert variables["hatchet_runs"]["type"] == "textbox"
    assert {"tempo_datasource", "loki_datasource"} <= set(variables)
