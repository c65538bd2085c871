"""Draws every board from its JSON with the data of a real Prometheus, for people without a Grafana.

    python -m tests.dashboards.draw_boards --prometheus http://127.0.0.1:9090 --out docs/boards --range 60

A development script: it needs matplotlib and Pillow, which the project does not depend on. It draws what the JSON says
(layout, titles, units, thresholds, stacking, dashes, legends) so that empty, illegible or misplaced panels are seen;
it is not Grafana.
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from PIL import Image

from mageflow.grafana.live import PrometheusError, ask
from mageflow.grafana.promql import fill_variables
from tests.dashboards.draw_panels import BACKGROUND, PANEL, Series, draw

COLUMN, ROW, GAP, DPI = 66, 36, 8, 100


class Source:
    """Asks Prometheus what Grafana would ask it."""

    def __init__(self, url: str, end: float, seconds: float, rate_interval: float, instants: list[float]) -> None:
        self.url, self.end, self.seconds, self.rate_interval = url, end, seconds, rate_interval
        self.instants = instants
        self.step = round(max(seconds / 240, 1))

    @property
    def span(self) -> tuple[float, float]:
        return self.end - self.seconds, self.end

    def series(self, panel: dict[str, Any]) -> list[Series]:
        found: list[Series] = []
        for target in panel.get("targets", []):
            if "expr" in target:
                found += [self._named(target, each) for each in self._ask(panel, target)]
        return found

    def exemplars(self, panel: dict[str, Any]) -> list[tuple[float, float]]:
        """Time and value of each exemplar of the panel's queries."""
        points: list[tuple[float, float]] = []
        for target in panel.get("targets", []):
            if target.get("exemplar"):
                span = {"start": f"{self.end - self.seconds:.3f}", "end": f"{self.end:.3f}"}
                data = ask(self.url, "/api/v1/query_exemplars", {"query": self._fill(target["expr"]), **span})
                points += [(e["timestamp"], float(e["value"])) for series in data for e in series["exemplars"]]
        return points

    def _fill(self, expr: str) -> str:
        return fill_variables(expr, rate_interval=f"{self.rate_interval:.0f}s", range_=f"{self.seconds:.0f}s")

    def _ask(self, panel: dict[str, Any], target: dict[str, Any]) -> list[dict[str, Any]]:
        expr = self._fill(target["expr"])
        if panel["type"] in {"table", "nodeGraph"} or target.get("instant"):
            rounds = [ask(self.url, "/api/v1/query", {"query": expr, "time": f"{t:.3f}"}) for t in self.instants]
            best = max(rounds, key=lambda data: len(data["result"]))
            return [{**each, "values": [each["value"]]} for each in best["result"]]
        start, _ = self.span
        span = {"start": f"{start:.3f}", "end": f"{self.end:.3f}", "step": f"{self.step}"}
        result = ask(self.url, "/api/v1/query_range", {"query": expr, **span})["result"]
        # A gap is a gap: points Prometheus does not have are not bridged by a line.
        grid = [start + self.step * n for n in range(int(self.seconds / self.step) + 1)]
        for each in result:
            values = {round(float(at), 3): value for at, value in each["values"]}
            each["values"] = [(at, values.get(round(at, 3), "NaN")) for at in grid]
        return result

    @staticmethod
    def _named(target: dict[str, Any], result: dict[str, Any]) -> Series:
        labels = result["metric"]
        legend = target.get("legendFormat", "")
        name = re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda m: labels.get(m[1], ""), legend) or str(labels or "value")
        points = [(float(at), float(value)) for at, value in result["values"]]
        return Series(target["refId"], name.strip(), labels, points)


def picture(board: dict[str, Any], source: Source, out: Path) -> Path:
    """Draw one board into a PNG."""
    rows = [panel for panel in board["panels"] if panel["type"] != "row" or not panel.get("collapsed")]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
    size = (24 * COLUMN + GAP, (height + 1) * ROW + GAP)
    figure = plt.figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor=BACKGROUND)
    figure.text(12 / size[0], 1 - 22 / size[1], board["title"], color="#d8d9da", fontsize=13, weight="bold")
    figure.text(1 - 12 / size[0], 1 - 22 / size[1], board["description"], color="#8e8e8e", fontsize=8, ha="right")
    for panel in [*rows, *[p for p in board["panels"] if p.get("collapsed")]]:
        at = panel["gridPos"]
        left, top = at["x"] * COLUMN + GAP, (at["y"] + 1) * ROW
        width, tall = at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
        box = (left / size[0], 1 - (top + tall) / size[1], width / size[0], tall / size[1])
        if panel["type"] == "row":
            mark = "▸" if panel.get("collapsed") else "▾"
            figure.text(box[0], box[1] + box[3] / 3, f"{mark} {panel['title']}", color="#ccccdc", fontsize=9)
            continue
        figure.add_artist(plt.Rectangle(box[:2], box[2], box[3], transform=figure.transFigure, color=PANEL, zorder=-5))
        try:
            series, exemplars = source.series(panel), source.exemplars(panel)
        except PrometheusError as error:
            raise SystemExit(f"{board['uid']} / {panel['title']}: {error}") from error
        draw(figure, (left, size[1] - top - tall, width, tall), size, panel, series, exemplars, source.span)
    path = out / f"{board['uid']}.png"
    figure.savefig(path, dpi=DPI, facecolor=BACKGROUND)
    plt.close(figure)
    # A palette of 128 colours is enough for a dark board and a quarter of the size.
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--prometheus", required=True)
    parser.add_argument("--boards", type=Path, default=Path("dashboards/grafana"))
    parser.add_argument("--out", type=Path, default=Path("docs/boards"))
    parser.add_argument("--range", type=float, default=60)
    parser.add_argument("--rate-interval", type=float, default=15)
    parser.add_argument("--end", type=float, default=None)
    parser.add_argument("--instant", type=float, action="append", default=[], help="further times for instant queries")
    chosen = parser.parse_args()
    end = chosen.end or time.time()
    source = Source(chosen.prometheus, end, chosen.range, chosen.rate_interval, [end, *chosen.instant])
    chosen.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(chosen.boards.glob("*.json")):
        drawn = picture(json.loads(path.read_text(encoding="utf-8")), source, chosen.out)
        print(f"{drawn}: {drawn.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main()
