"""Turns a `BoardSpec` into Grafana's JSON: variables, links and layout. The same data gives the same bytes."""

import json
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from dashboards.generator.queries import expand_macros
from dashboards.generator.render import panels
from dashboards.generator.spec import HATCHET_RUNS, BoardSpec, Section
from mageflow.dashboards.vocabulary import find_problems

COLUMNS = 24
_VARIABLES = {
    "task": ("Task", 'label_values(mageflow_task_timeout_seconds{job=~"$job", instance=~"$instance"}, task)'),
    "lock": ("Lock", 'label_values(mageflow_lock_acquisitions_total{job=~"$job", instance=~"$instance"}, lock)'),
    "flow_name": (
        "Flow",
        'label_values(mageflow_flows_started_total{job=~"$job", instance=~"$instance"}, flow_name)',
    ),
}

_ALERTS: dict[str, Any] = {
    "name": "Alerts",
    "datasource": {"type": "prometheus", "uid": "${prometheus_datasource}"},
    "enable": True,
    "iconColor": "red",
    "target": {
        "expr": 'ALERTS{alertname=~"Mageflow.+", alertstate="firing", job=~"$job|"}',
        "interval": "30s",
        "refId": "Anno",
    },
    "titleFormat": "{{alertname}}",
    "textFormat": "{{severity}} {{task}} {{victim_task}} {{lock}} {{flow}} {{kind}} {{pool}} {{instance}}",
    "tagKeys": "severity",
}
"""Marks every graph while an alert of mageflow fires. A switch above the board turns the marks off."""


def render(spec: BoardSpec) -> str:
    """The JSON of a board, with a newline at the end.

    Raises:
        ValueError: A query names a metric, label or label value that is not in `mageflow.telemetry.names`.
    """
    _validate(spec)
    board = (
        dashboard.Dashboard(spec.title)
        .uid(spec.uid)
        .description(spec.description)
        .tags(["mageflow"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .version(1)
        .link(
            dashboard.DashboardLink("mageflow")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["mageflow"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
            .icon("external link")
        )
    )
    board = _with_variables(board, spec)
    next_id, top = 1, 0
    for section in spec.sections:
        board, next_id, top = _with_section(board, section, next_id, top)
    document = json.loads(JSONEncoder(sort_keys=True).encode(board.build()))
    for variable in document["templating"]["list"]:
        # The SDK writes fields of other kinds of variables too; Grafana removes them when it saves a board.
        for stray in ("auto", "auto_count", "auto_min", "id"):
            variable.pop(stray, None)
    document["annotations"] = {"list": [_ALERTS]}
    for panel in document["panels"]:
        for each in (panel, *panel.get("panels", ())):
            _complete(each)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _complete(panel: dict[str, Any]) -> None:
    """Set the fields that Grafana reads and the SDK does not know, and those that it writes wrongly."""
    if panel["type"] == "nodeGraph":
        panel["options"] = {}  # the SDK writes null and cannot read it
    if panel["type"] == "stat":
        # With the wide layout, Grafana draws the number of a wide panel over its graph.
        panel["options"]["wideLayout"] = False
    for target in panel.get("targets", ()):
        if target.get("queryType") == "traceql":
            target["tableType"] = "spans"


def _validate(spec: BoardSpec) -> None:
    for section in spec.sections:
        for panel in section.panels:
            if not panel.reads_prometheus:
                continue
            for query in panel.queries:
                problems = find_problems(expand_macros(query.expr))
                if problems:
                    raise ValueError(f"{spec.uid} / {panel.title}: " + "; ".join(problems))


def _with_variables(board: Any, spec: BoardSpec) -> Any:
    board = board.with_variable(
        dashboard.DatasourceVariable("prometheus_datasource").label("Prometheus data source").type("prometheus")
    )
    job = 'label_values({__name__=~"mageflow_worker_info|mageflow_tasks_enqueued_total"}, job)'
    board = board.with_variable(_query_variable("job", "Job", job))
    instance = 'label_values({__name__=~"mageflow_worker_info|mageflow_tasks_enqueued_total", job=~"$job"}, instance)'
    board = board.with_variable(_query_variable("instance", "Instance", instance))
    for name in spec.variables:
        board = board.with_variable(_query_variable(name, *_VARIABLES[name]))
    if spec.needs_tempo:
        board = board.with_variable(
            dashboard.DatasourceVariable("tempo_datasource").label("Tempo data source").type("tempo")
        )
    if spec.needs_loki:
        board = board.with_variable(
            dashboard.DatasourceVariable("loki_datasource").label("Loki data source").type("loki")
        )
    if spec.links_runs:
        board = board.with_variable(
            dashboard.TextBoxVariable("hatchet_runs").label("Runs in Hatchet").default_value(HATCHET_RUNS)
        )
    return board


def _query_variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(panels.PROMETHEUS)
        .query({"query": query, "refId": f"variable-{name}"})
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .current(model.VariableOption(text="All", value="$__all", selected=True))
    )


def _with_section(board: Any, section: Section, next_id: int, top: int) -> tuple[Any, int, int]:
    row = dashboard.Row(section.title).id(next_id).collapsed(section.collapsed)
    row = row.grid_pos(model.GridPos(h=1, w=COLUMNS, x=0, y=top))
    next_id, top = next_id + 1, top + 1
    placed: list[Any] = []
    skyline = [top] * COLUMNS
    for panel in section.panels:
        # The highest free place, and of those the leftmost, as in Grafana's own grid.
        y, x = min((max(skyline[x : x + panel.width]), x) for x in range(COLUMNS - panel.width + 1))
        skyline[x : x + panel.width] = [y + panel.height] * panel.width
        placed.append(panels.build(panel, next_id, model.GridPos(h=panel.height, w=panel.width, x=x, y=y)))
        next_id += 1
    if len(set(skyline)) > 1:
        # A gap looks like a panel that failed to load.
        raise ValueError(f"section {section.title!r}: the panels of its last row do not fill {COLUMNS} columns")
    if section.collapsed:
        for panel in placed:
            row = row.with_panel(panel)
        return board.with_row(row), next_id, top
    board = board.with_row(row)
    for panel in placed:
        board = board.with_panel(panel)
    return board, next_id, max(skyline)
