"""Turns a `PanelSpec` into a panel of grafana-foundation-sdk."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    logs,
    loki,
    nodegraph,
    prometheus,
    stat,
    table,
    tempo,
    timeseries,
    trend,
)
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import prometheus as prometheus_model

from dashboards.generator.queries import expand_macros
from dashboards.generator.spec import Drill, PanelSpec, Query
from mageflow.dashboards.promql import scan
from mageflow.dashboards.vocabulary import has_exemplars, metrics_in

PROMETHEUS = model.DataSourceRef(type_val="prometheus", uid="${prometheus_datasource}")
LOKI = model.DataSourceRef(type_val="loki", uid="${loki_datasource}")
TEMPO = model.DataSourceRef(type_val="tempo", uid="${tempo_datasource}")

_KEPT = "${prometheus_datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"
_TARGETS: dict[str, tuple[str, str]] = {
    "task": ("mageflow-task", "Open this task"),
    "lock": ("mageflow-locks", "Open this lock"),
    "flow_name": ("mageflow-flows", "Open this flow"),
}
_LINKED_COLUMNS: Mapping[str, Drill] = {
    "task": "task", "waiter_task": "task", "holder_task": "task", "lock": "lock",
    "victim": "task", "task1": "task", "task2": "task", "task3": "task",
}  # fmt: skip
"""Labels whose column in a table links to a board."""

_COLOURS = {
    "succeeded": "green", "ok": "green", "hit": "green", "completed": "green", "acquired": "green", "clean": "green",
    "enqueued": "green", "failed": "red", "error": "red", "invalid": "red", "lost": "red", "deadlock": "red",
    "cycle": "red", "victim_failed": "red", "extension_failed": "red", "timed_out": "purple", "timeout": "purple",
    "retried": "orange", "missing": "orange", "victim_retried": "orange",
    "cancelled": "blue", "skipped": "text", "stagger": "yellow", "lock_wait": "red", "body": "green",
    "running": "green", "signature_load": "blue", "loading": "blue", "callbacks": "purple", "cancelling": "orange",
    "pending": "yellow", "done": "blue", "started": "blue",
}  # fmt: skip
"""Colours of label values. A value has the same colour on every board."""

_SMALLEST_AXIS = {"ops": 0.01, "short": 1, "s": 0.01, "percentunit": 0.01, "bytes": 1024}
"""The smallest upper end of an axis, by unit."""


def drill_link(drill: Drill, value: str) -> dict[str, object]:
    """A data link to the board of this label. It keeps data source, job, instance and time range."""
    uid, title = _TARGETS[drill]
    return {"title": title, "url": f"/d/{uid}?var-{drill}={value}&{_KEPT}", "targetBlank": False}


def _explore(title: str, source: str, query: Mapping[str, str]) -> dict[str, object]:
    """A data link to Explore, with one query over the visible range."""
    queries = [{"refId": "A", **query, "datasource": {"uid": source}}]
    panes = {"one": {"datasource": source, "queries": queries, "range": {"from": "${__from}", "to": "${__to}"}}}
    # Grafana fills its variables in: they are all that is not encoded.
    parts = re.split(r"(\$\{[^}]*\})", json.dumps(panes, separators=(",", ":")))
    encoded = "".join(part if part.startswith("${") else quote(part, safe="") for part in parts)
    return {"title": title, "url": f"/explore?schemaVersion=1&panes={encoded}", "targetBlank": False}


_VALUE = "${__value.text:percentencode}"
_RUN_LINK = {"title": "Open this run in Hatchet", "url": "${hatchet_runs:raw}/" + _VALUE, "targetBlank": True}


def _log_table_link(label: str) -> Mapping[str, object] | None:
    """Where a column of a table of log lines leads."""
    if label in _LINKED_COLUMNS:
        return drill_link(_LINKED_COLUMNS[label], _VALUE)
    if label.startswith("run"):
        return _RUN_LINK
    if label == "trace":
        return _explore("Open this trace", "${tempo_datasource}", {"queryType": "traceql", "query": _VALUE})
    if label == "found":
        runs = "${__data.fields.run1:percentencode}|${__data.fields.run2:percentencode}"
        query = {"queryType": "range", "expr": '{service_name=~".+"} |~ `' + runs + "`"}
        return _explore("Logs of these runs", "${loki_datasource}", query)
    return None


def build(spec: PanelSpec, panel_id: int, position: model.GridPos) -> Any:
    """The builder of one panel, with id and position."""
    panel = _BUILDERS[spec.kind](spec)
    return panel.id(panel_id).title(spec.title).description(spec.description).grid_pos(position)


def _targets(panel: Any, spec: PanelSpec) -> Any:
    panel = panel.datasource(PROMETHEUS)
    # All quantiles of a histogram have the same exemplars. Only the last one, the highest, requests them, so that each
    # exemplar is drawn once.
    carriers = [n for n, query in enumerate(spec.queries) if has_exemplars(scan(expand_macros(query.expr)))]
    for number, query in enumerate(spec.queries):
        ref = query.ref or chr(ord("A") + number)
        panel = panel.with_target(_target(spec, query, ref, exemplars=carriers[-1:] == [number]))
    return panel


def _target(spec: PanelSpec, query: Query, ref: str, *, exemplars: bool) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .expr(expand_macros(query.expr))
        .ref_id(ref)
        .editor_mode(prometheus_model.QueryEditorMode.CODE)
    )
    if query.legend:
        target = target.legend_format(query.legend)
    if spec.kind in {"table", "nodeGraph", "trend"}:
        return target.instant().format(prometheus_model.PromQueryFormat.TABLE)
    if spec.kind == "heatmap":
        carries = any(metric.exemplars for metric in metrics_in(expand_macros(query.expr)))
        return target.range().format(prometheus_model.PromQueryFormat.HEATMAP).exemplar(carries)
    if spec.instant:
        return target.instant()
    return target.range().exemplar(spec.kind == "timeseries" and spec.has_exemplars and exemplars)


def _thresholds(spec: PanelSpec) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=None, color="red" if spec.low_is_bad else "green")]
    steps += [model.Threshold(value=value, color=colour) for value, colour in spec.steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _idle(text: str) -> model.SpecialValueMap:
    result = model.ValueMappingResult(text=text, color="text", index=0)
    options = model.DashboardSpecialValueMapOptions(match=model.SpecialValueMatch.NULL_AND_NAN, result=result)
    return model.SpecialValueMap(options=options)


def _stat(spec: PanelSpec) -> Any:
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")
    panel = (
        stat.Panel()
        .unit(spec.unit)
        .thresholds(_thresholds(spec))
        .mappings([_idle(spec.empty)])
        .no_value(spec.empty)
        .reduce_options(reduced)
        .text(common.VizTextDisplayOptions().value_size(30).title_size(13))
        .color_mode(common_model.BigValueColorMode.VALUE)
        .graph_mode(common_model.BigValueGraphMode.NONE if spec.instant else common_model.BigValueGraphMode.AREA)
        .text_mode(common_model.BigValueTextMode.VALUE_AND_NAME)
    )
    if spec.decimals is not None:
        panel = panel.decimals(spec.decimals)
    return _targets(panel, spec)


def _timeseries(spec: PanelSpec) -> Any:
    legend = _legend(spec)
    tooltip = (
        common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING)
    )
    panel = (
        timeseries.Panel()
        .unit(spec.unit)
        .legend(legend)
        .tooltip(tooltip)
        .thresholds(_thresholds(spec))
        .no_value(spec.empty)
        .line_width(1)
        .fill_opacity(_fill(spec))
        .show_points(common_model.VisibilityMode.NEVER)
    )
    if not spec.signed:
        panel = panel.min(0)
    if spec.maximum is None:
        # If all values are 0, Grafana draws the axis up to 100.
        panel = panel.axis_soft_max(_SMALLEST_AXIS[spec.unit])
    if spec.decimals is not None:
        panel = panel.decimals(spec.decimals)
    if spec.colour:
        shades = dashboard.FieldColor().mode(model.FieldColorModeId.SHADES).fixed_color(spec.colour)
        panel = panel.color_scheme(shades)
    if spec.steps:
        panel = panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_model.GraphTresholdsStyleMode.DASHED)
        )
    if spec.stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    if spec.bars:
        # A bar is a count per step. The step is at least a minute, so that two bars do not count the same event.
        # Without stacking, one bar would hide another.
        panel = panel.draw_style(common_model.GraphDrawStyle.BARS).fill_opacity(80).interval("1m")
        panel = panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL).group("A"))
    if spec.maximum is not None:
        panel = panel.max(spec.maximum)
    panel = _targets(panel, spec)
    for number, query in enumerate(spec.queries):
        panel = _series_of_query(panel, spec, query, query.ref or chr(ord("A") + number))
    return _coloured(panel, spec)


def _legend(spec: PanelSpec) -> common.VizLegendOptions:
    """A table beside a wide graph, as Grafana shows three lines of it below. Below a narrow one, names side by side."""
    legend = common.VizLegendOptions().show_legend(True).calcs([])
    is_wide = spec.width >= _WIDE
    legend = legend.placement(common_model.LegendPlacement.RIGHT if is_wide else common_model.LegendPlacement.BOTTOM)
    if not is_wide:
        return legend.display_mode(common_model.LegendDisplayMode.LIST)
    # The number that the graph is read for, largest first: the last value of a line, the sum of bars.
    legend = legend.display_mode(common_model.LegendDisplayMode.TABLE).calcs(["sum"] if spec.bars else ["max"])
    return legend.sort_by("Total" if spec.bars else "Max").sort_desc(True)


_WIDE = 12


def _fill(spec: PanelSpec) -> int:
    """The opacity of the area under a line, in percent. Areas of many lines by label would hide each other."""
    by_label = any("{{" in query.legend for query in spec.queries)
    return 35 if spec.stacked else 0 if by_label else 8


def _series_of_query(panel: Any, spec: PanelSpec, query: Query, ref: str) -> Any:
    properties: list[model.DynamicConfigValue] = []
    if query.unit and query.unit != spec.unit:
        properties.append(model.DynamicConfigValue(id_val="unit", value=query.unit))
        properties.append(model.DynamicConfigValue(id_val="custom.axisPlacement", value="right"))
    if query.dashed:
        properties.append(model.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]}))
        properties.append(model.DynamicConfigValue(id_val="custom.fillOpacity", value=0))
    if properties:
        panel = panel.override_by_query(ref, properties)
    if spec.drill and "{{" + spec.drill + "}}" in query.legend:
        link = drill_link(spec.drill, "${__field.labels." + spec.drill + ":percentencode}")
        panel = panel.override_by_query(ref, [model.DynamicConfigValue(id_val="links", value=[link])])
    return panel


def _coloured(panel: Any, spec: PanelSpec) -> Any:
    """Give label values their colours, where the legend ends in a label with a closed set of values.

    If other labels come before it, several lines share a value; they get shades of its colour.
    """
    done: set[str] = set()
    for query in spec.queries:
        label = query.legend.rsplit("{{", 1)[-1].removesuffix("}}") if query.legend.endswith("}}") else ""
        words = sorted({w for m in metrics_in(expand_macros(query.expr)) for w in m.closed.get(label, ())})
        if not label:
            words = query.legend.split("}} ")[1:]
        alone = query.legend == "{{" + label + "}}"
        for word in words:
            if word not in _COLOURS or word in done:
                continue
            done.add(word)
            if _COLOURS[word] == "green" and not (alone or spec.stacked or word == "succeeded"):
                # Lines of the same good outcome keep different colours, to be distinguishable; areas need not, and
                # beside failures the palette may have red for what succeeds.
                continue
            mode = "fixed" if alone else "shades"
            colour = model.DynamicConfigValue(id_val="color", value={"mode": mode, "fixedColor": _COLOURS[word]})
            if alone:
                panel = panel.override_by_name(word, [colour])
            else:
                panel = panel.override_by_regexp(f"/ {word}$/", [colour])
    return panel


def _heatmap(spec: PanelSpec) -> Any:
    colour = (
        heatmap.HeatmapColorOptions()
        .mode(heatmap_model.HeatmapColorMode.SCHEME)
        .scheme("Oranges")
        .scale(heatmap_model.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
        .fill("dark-orange")
        .reverse(False)
    )
    panel = (
        heatmap.Panel()
        .unit("short")
        .calculate(False)
        .color(colour)
        .y_axis(heatmap.YAxisConfig().unit(spec.unit).axis_placement(common_model.AxisPlacement.LEFT))
        .cell_values(heatmap.CellValues().unit("short").decimals(1))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .show_tooltip()
        .show_y_histogram()
        .show_legend()
        .exemplars_color("rgba(255,0,255,0.7)")
        .cell_gap(1)
    )
    return _targets(panel, spec)


def _table(spec: PanelSpec) -> Any:
    names = [label for label, _ in spec.columns]
    organize = model.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {"Time": True},
            "indexByName": {**{name: at for at, name in enumerate(names)}, "Value": len(names)},
            "renameByName": {**dict(spec.columns), "Value": spec.value_heading},
        },
    )
    panel = (
        table.Panel()
        .unit(spec.unit)
        .thresholds(_thresholds(spec))
        .no_value(spec.empty)
        .show_header(True)
        .with_transformation(organize)
        .sort_by([common.TableSortByFieldState().display_name(spec.value_heading).desc(True)])
    )
    if spec.steps:
        cell = model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"})
        panel = panel.override_by_name(spec.value_heading, [cell])
    for label, heading in spec.columns:
        if label in _LINKED_COLUMNS:
            link = drill_link(_LINKED_COLUMNS[label], "${__value.text:percentencode}")
            panel = panel.override_by_name(heading, [model.DynamicConfigValue(id_val="links", value=[link])])
    return _targets(panel, spec)


def _trend(spec: PanelSpec) -> Any:
    # Each query is a table with the label and a value; joined by the label they are columns.
    ((label, _),) = spec.columns
    refs = [query.ref or chr(ord("A") + number) for number, query in enumerate(spec.queries)]
    names = {f"Value #{ref}": query.legend for ref, query in zip(refs, spec.queries, strict=True)}
    times = {f"Time{suffix}": True for suffix in ("", *(f" {number + 1}" for number in range(len(refs))))}
    steps = (
        ("joinByField", {"byField": label, "mode": "outer"}),
        ("convertFieldType", {"conversions": [{"targetField": label, "destinationType": "number"}], "fields": {}}),
        ("organize", {"excludeByName": times, "indexByName": {}, "renameByName": names}),
        ("sortBy", {"fields": {}, "sort": [{"field": label}]}),
    )
    panel = (
        trend.Panel()
        .unit(spec.unit)
        .min(0)
        .max(1)
        .no_value(spec.empty)
        .line_width(2)
        .x_field(label)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_model.LegendDisplayMode.LIST)
            .placement(common_model.LegendPlacement.BOTTOM)
            .calcs([])
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI))
    )
    for name, options in steps:
        panel = panel.with_transformation(model.DataTransformerConfig(id_val=name, options=options))
    for query in spec.queries:
        if query.dashed:
            dash = model.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]})
            panel = panel.override_by_name(query.legend, [dash])
    return _targets(panel, spec)


def _node_graph(spec: PanelSpec) -> Any:
    # Grafana identifies the two frames by their refIds, and reads fields by name: labels become fields of the same
    # name. It draws straight lines: none from a node to itself, and one for all edges between two nodes.
    return _targets(nodegraph.Panel().unit(spec.unit).no_value(spec.empty), spec)


def _traces(spec: PanelSpec) -> Any:
    query = tempo.TempoQuery().ref_id("A").query_type("traceql").query(spec.queries[0].expr).limit(20)
    # Grafana sets the columns: service and name of the trace's root span, then those of the span, then the selected
    # attributes.
    organize = model.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {"Trace Service": True, "Trace Name": True},
            "indexByName": {name: at for at, (name, _) in enumerate(spec.columns)},
            "renameByName": dict(spec.columns),
        },
    )
    panel = table.Panel().unit(spec.unit).no_value(spec.empty).show_header(True).with_transformation(organize)
    return panel.datasource(TEMPO).with_target(query)


def _logs(spec: PanelSpec) -> Any:
    query = loki.Dataquery().ref_id("A").expr(spec.queries[0].expr).query_type("range").max_lines(200)
    panel = (
        logs.Panel()
        .unit(spec.unit)
        .no_value(spec.empty)
        .show_time(True)
        .show_labels(False)
        .show_common_labels(False)
        .wrap_log_message(False)
        .prettify_log_message(False)
        .enable_log_details(True)
        .dedup_strategy(common_model.LogsDedupStrategy.NONE)
        .sort_order(common_model.LogsSortOrder.DESCENDING)
    )
    return panel.datasource(LOKI).with_target(query)


def _log_table(spec: PanelSpec) -> Any:
    # An instant query of Loki is one table: a column for each label, and one with the number of lines.
    query = loki.Dataquery().ref_id("A").expr(spec.queries[0].expr).query_type("instant")
    names = [label for label, _ in spec.columns]
    organize = model.DataTransformerConfig(
        id_val="organize",
        options={
            "excludeByName": {"Time": True, "Value #A": True},
            "indexByName": {name: at for at, name in enumerate(names)},
            "renameByName": dict(spec.columns),
        },
    )
    panel = (
        table.Panel()
        # The text of an empty panel would be in each empty cell too.
        .override_by_regexp("/.+/", [model.DynamicConfigValue(id_val="noValue", value="-")])
        .unit(spec.unit)
        .no_value(spec.empty)
        .show_header(True)
        .with_transformation(organize)
        .sort_by([common.TableSortByFieldState().display_name(spec.columns[0][1]).desc(True)])
    )
    # Cut to the width of the others, a time shows its day alone.
    panel = panel.override_by_name(spec.columns[0][1], [model.DynamicConfigValue(id_val="custom.width", value=230)])
    for label, heading in spec.columns:
        if (link := _log_table_link(label)) is not None:
            panel = panel.override_by_name(heading, [model.DynamicConfigValue(id_val="links", value=[link])])
    return panel.datasource(LOKI).with_target(query)


_BUILDERS: dict[str, Callable[[PanelSpec], Any]] = {
    "stat": _stat,
    "timeseries": _timeseries,
    "heatmap": _heatmap,
    "table": _table,
    "nodeGraph": _node_graph,
    "traces": _traces,
    "trend": _trend,
    "logs": _logs,
    "logTable": _log_table,
}
