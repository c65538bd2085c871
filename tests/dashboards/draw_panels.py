"""Draws one panel of a board with matplotlib; see `tests.dashboards.draw_boards`."""

import math
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tests.dashboards.board_units import write

BACKGROUND, PANEL, TEXT, FAINT = "#111217", "#181b1f", "#ccccdc", "#8e8e95"
COLOURS = {
    "green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "purple": "#b877d9", "blue": "#5794f2",
    "yellow": "#fade2a", "dark-red": "#c4162a", "dark-orange": "#fa6400", "text": "#ccccdc",
}  # fmt: skip
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d",
           "#fade2a", "#447ebc", "#c15c17"]  # fmt: skip
HEAT = LinearSegmentedColormap.from_list("heat", ["#3b2416", "#8a3a0a", "#fa6400", "#ffb357", "#fff2df"])

Box = tuple[float, float, float, float]


@dataclass
class Series:
    """One series of an answer; an instant one has a single point."""

    ref: str
    name: str
    labels: dict[str, str]
    points: list[tuple[float, float]]

    @property
    def numbers(self) -> list[float]:
        return [value for _, value in self.points if not math.isnan(value)]


def draw(
    figure: Figure, box: Box, size: tuple[float, float], panel: dict[str, Any], series: list[Series],
    exemplars: list[tuple[float, float]], span: tuple[float, float],
) -> None:  # fmt: skip
    """Draw a panel into a box given in pixels from the lower left; ``span`` is the time range, in epoch seconds."""
    left, bottom, width, height = box
    figure.text((left + 8) / size[0], (bottom + height - 15) / size[1], panel["title"], color=TEXT, fontsize=8.5)
    inner = (left + 8, bottom + 6, width - 16, height - 28)
    painter = {
        "stat": _stat, "timeseries": _timeseries, "heatmap": _heatmap, "table": _table, "nodeGraph": _node_graph,
    }[panel["type"]]  # fmt: skip
    if panel["datasource"]["type"] == "tempo":
        _words(_axes(figure, inner, size), "asks Tempo")
        return
    if not any(each.numbers for each in series):
        _words(_axes(figure, inner, size), panel["fieldConfig"]["defaults"].get("noValue", "No data"))
        return
    painter(figure, inner, size, panel, series, exemplars, span)


def _axes(figure: Figure, box: Box, size: tuple[float, float]) -> Any:
    axes = figure.add_axes((box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1]))
    axes.set_facecolor(PANEL)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def _words(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, color=FAINT, fontsize=11, ha="center", va="center", transform=axes.transAxes)


def _threshold_colour(panel: dict[str, Any], value: float) -> str:
    colour = "green"
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return COLOURS.get(colour, colour)


def _stat(figure: Figure, box: Box, size: Any, panel: dict[str, Any], series: list[Series], *_: Any) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    axes = _axes(figure, box, size)
    share = 1 / len(series)
    for at, each in enumerate(series):
        value = each.numbers[-1] if each.numbers else math.nan
        text = defaults["noValue"] if math.isnan(value) else write(value, defaults["unit"], defaults.get("decimals"))
        colour = COLOURS["text"] if math.isnan(value) else _threshold_colour(panel, value)
        middle = share * (at + 0.5)
        axes.text(middle, 0.62, text, color=colour, fontsize=20, ha="center", va="center", transform=axes.transAxes)
        if len(series) > 1:
            axes.text(middle, 0.95, each.name, color=FAINT, fontsize=8, ha="center", va="top", transform=axes.transAxes)
        if len(each.points) > 1:
            spark = figure.add_axes(
                ((box[0] + box[2] * share * at) / size[0], box[1] / size[1], box[2] * share / size[0],
                 box[3] * 0.3 / size[1])
            )  # fmt: skip
            spark.axis("off")
            values = np.array([v for _, v in each.points])
            spark.fill_between(range(len(values)), values, color=colour, alpha=0.25)
            spark.plot(values, color=colour, lw=1)
            spark.set_ylim(bottom=0)


def _properties(panel: dict[str, Any], each: Series) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for override in panel["fieldConfig"]["overrides"]:
        matcher = override["matcher"]
        if (matcher["id"], matcher["options"]) in (("byFrameRefID", each.ref), ("byName", each.name)):
            found |= {prop["id"]: prop["value"] for prop in override["properties"]}
    return found


def _timeseries(
    figure: Figure, box: Box, size: Any, panel: dict[str, Any], series: list[Series], exemplars: list[Any],
    span: tuple[float, float],
) -> None:  # fmt: skip
    defaults = panel["fieldConfig"]["defaults"]
    shown = sorted((s for s in series if s.numbers), key=lambda s: -max(s.numbers))
    rows = min(len(shown), 5)
    legend = 13 * (rows + 1)
    plot = (box[0] + 46, box[1] + legend + 16, box[2] - 56, box[3] - legend - 20)
    properties = [_properties(panel, each) for each in shown]
    has_right = any(p.get("custom.axisPlacement") == "right" for p in properties)
    axes = _axes(figure, (plot[0], plot[1], plot[2] - (44 if has_right else 0), plot[3]), size)
    right = axes.twinx() if has_right else None
    units: dict[int, str] = {id(axes): defaults["unit"]}
    is_stacked = defaults["custom"].get("stacking", {}).get("mode") == "normal"
    is_bars = defaults["custom"].get("drawStyle") == "bars"
    colours: list[str] = []
    floor: dict[float, float] = {}
    start = span[0]
    for number, (each, mine) in enumerate(zip(shown, properties, strict=True)):
        fixed = mine.get("color", {}).get("fixedColor")
        colour = COLOURS.get(fixed, PALETTE[number % len(PALETTE)])
        colours.append(colour)
        target = right if right is not None and mine.get("custom.axisPlacement") == "right" else axes
        units[id(target)] = mine.get("unit", defaults["unit"])
        times = np.array([t for t, _ in each.points]) - start
        values = np.array([v for _, v in each.points])
        style = "--" if "custom.lineStyle" in mine else "-"
        if is_bars:
            target.bar(times, values, width=1, color=colour, alpha=0.8)
        elif is_stacked:
            base = np.array([floor.get(t, 0.0) for t, _ in each.points])
            top = base + values
            floor |= {t: float(v) for (t, _), v in zip(each.points, top, strict=True) if not math.isnan(v)}
            target.fill_between(times, base, top, color=colour, alpha=0.45, lw=0)
            target.plot(times, top, color=colour, lw=1)
        else:
            target.plot(times, values, color=colour, lw=1.3, ls=style)
            if style == "-":
                target.fill_between(times, values, color=colour, alpha=0.07, lw=0)
    if exemplars:
        axes.scatter([t - start for t, _ in exemplars], [v for _, v in exemplars], s=9, marker="D", color="#d683ce",
                     alpha=0.7, lw=0)  # fmt: skip
    axes.set_xlim(0, span[1] - start)
    _finish_axes(axes, right, units, defaults)
    _legend(figure, box, size, shown[:rows], colours, [p.get("unit", defaults["unit"]) for p in properties],
            len(shown) - rows)  # fmt: skip


def _finish_axes(axes: Any, right: Any, units: dict[int, str], defaults: dict[str, Any]) -> None:
    for step in defaults.get("thresholds", {}).get("steps", [])[1:] if "thresholdsStyle" in defaults["custom"] else []:
        top = axes.get_ylim()[1]
        if step["value"] <= top * 1.5:
            axes.axhline(step["value"], color=COLOURS.get(step["color"], step["color"]), lw=0.8, ls=(0, (6, 4)))
    for each in [axes] + ([right] if right is not None else []):
        unit = units.get(id(each), defaults["unit"])
        each.set_ylim(bottom=0, top=max(each.get_ylim()[1], 1e-9))
        each.yaxis.set_major_locator(MaxNLocator(4))
        each.yaxis.set_major_formatter(FuncFormatter(lambda v, _, u=unit: write(float(f"{v:.4g}"), u)))
        each.tick_params(colors=FAINT, labelsize=6.5, length=0)
        for spine in each.spines.values():
            spine.set_visible(False)
    axes.grid(color="#2c3235", lw=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f} s"))
    axes.tick_params(axis="x", colors=FAINT, labelsize=6.5, length=0)


def _legend(
    figure: Figure, box: Box, size: Any, shown: list[Series], colours: list[str], units: list[str], more: int
) -> None:
    def put(x: float, y: float, text: str, colour: str, align: str = "left") -> None:
        figure.text(x / size[0], y / size[1], text, color=colour, fontsize=6.8, ha=align)

    top = box[1] + 13 * len(shown)
    put(box[0] + box[2], top, "Max", "#6ea6ff", "right")
    put(box[0] + box[2] - 70, top, "Last", "#6ea6ff", "right")
    if more > 0:
        put(box[0], top, f"Name (+{more} more, scrolls)", FAINT)
    for at, (each, colour, unit) in enumerate(zip(shown, colours, units, strict=False)):
        y = top - 13 * (at + 1)
        put(box[0], y, "━", colour)
        put(box[0] + 14, y, each.name, TEXT)
        put(box[0] + box[2], y, write(max(each.numbers), unit), TEXT, "right")
        put(box[0] + box[2] - 70, y, write(each.numbers[-1], unit), TEXT, "right")


def _heatmap(
    figure: Figure, box: Box, size: Any, panel: dict[str, Any], series: list[Series], _: Any, span: tuple[float, float]
) -> None:
    unit = panel["options"]["yAxis"]["unit"]
    ordered = sorted(series, key=lambda s: float(s.labels["le"]))
    times = sorted({t for s in ordered for t, _ in s.points})
    grid = np.zeros((len(ordered), len(times)))
    for row, each in enumerate(ordered):
        by_time = dict(each.points)
        grid[row] = np.nan_to_num([by_time.get(t, 0.0) for t in times])
    cells = np.diff(grid, axis=0, prepend=0.0).clip(min=0)
    # As Grafana does with calculated heatmaps, leave out buckets above and below everything that happened.
    filled = np.nonzero(cells.max(axis=1) > 1e-9)[0]
    first, last = max(filled[0] - 1, 0), min(filled[-1] + 1, len(ordered) - 1)
    axes = _axes(figure, (box[0] + 50, box[1] + 18, box[2] - 60, box[3] - 22), size)
    shown = np.ma.masked_less(cells[first : last + 1], 1e-9)
    axes.pcolormesh(np.array(times) - span[0], range(last - first + 1), shown, cmap=HEAT, shading="nearest")
    axes.set_xlim(0, span[1] - span[0])
    axes.set_yticks(range(last - first + 1))
    axes.set_yticklabels([write(float(each.labels["le"]), unit) for each in ordered[first : last + 1]])
    axes.tick_params(colors=FAINT, labelsize=6.5, length=0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0f} s"))
    axes.tick_params(axis="x", colors=FAINT, labelsize=6.5, length=0)


def _table(figure: Figure, box: Box, size: Any, panel: dict[str, Any], series: list[Series], *_: Any) -> None:
    organize = panel["transformations"][0]["options"]
    renamed, order = organize["renameByName"], organize["indexByName"]
    fields = sorted((name for name in order if name != "Value"), key=lambda name: order[name])
    defaults = panel["fieldConfig"]["defaults"]
    rows = sorted((s for s in series if s.numbers), key=lambda s: -s.numbers[-1])
    width = box[2] / (len(fields) + 1)

    def put(column: int, y: float, text: str, colour: str, weight: str = "normal") -> None:
        figure.text((box[0] + column * width) / size[0], y / size[1], text, color=colour, fontsize=7.5, weight=weight)

    top = box[1] + box[3] - 12
    for column, name in enumerate([*fields, "Value"]):
        put(column, top, renamed[name], "#6ea6ff")
    is_coloured = any(p["id"] == "custom.cellOptions" for o in panel["fieldConfig"]["overrides"]
                      for p in o["properties"])  # fmt: skip
    for at, each in enumerate(rows):
        y = top - 17 * (at + 1)
        if y < box[1]:
            break
        for column, name in enumerate(fields):
            put(column, y, each.labels.get(name, ""), TEXT)
        value = each.numbers[-1]
        colour = _threshold_colour(panel, value) if is_coloured else TEXT
        put(len(fields), y, write(value, defaults["unit"]), colour)


def _node_graph(figure: Figure, box: Box, size: Any, panel: dict[str, Any], series: list[Series], *_: Any) -> None:
    axes = _axes(figure, box, size)
    nodes = [s.labels for s in series if s.ref == "nodes"]
    edges = [s for s in series if s.ref == "edges"]
    angle = {node["id"]: 2 * math.pi * n / max(len(nodes), 1) + math.pi / 2 for n, node in enumerate(nodes)}
    place = {name: (math.cos(a) * 1.4, math.sin(a)) for name, a in angle.items()}
    for number, edge in enumerate(edges):
        start, end = place[edge.labels["source"]], place[edge.labels["target"]]
        if start == end:
            loop = {"arrowstyle": "->", "color": FAINT, "connectionstyle": "arc3,rad=-1.8"}
            axes.annotate("", (start[0] + 0.13, start[1] + 0.05), (start[0] - 0.13, start[1] + 0.05), arrowprops=loop)
            axes.text(start[0], start[1] + 0.3, edge.labels["mainstat"], color=FAINT, fontsize=7, ha="center")
            continue
        bend = {"arrowstyle": "-|>", "color": FAINT, "connectionstyle": "arc3,rad=0.18", "shrinkA": 20, "shrinkB": 20}
        axes.annotate("", end, start, arrowprops=bend)
        offset = 0.12 if number % 2 else -0.12
        middle = ((start[0] + end[0]) / 2 + offset, (start[1] + end[1]) / 2 + offset)
        axes.text(*middle, edge.labels["mainstat"], color=FAINT, fontsize=7, ha="center")
    for name, (x, y) in place.items():
        axes.add_artist(plt.Circle((x, y), 0.13, color="#2f5f9e", zorder=3))
        axes.text(x, y - 0.24, name, color=TEXT, fontsize=8, ha="center", zorder=4)
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlim(-2, 2)
    axes.set_ylim(-1.5, 1.6)
