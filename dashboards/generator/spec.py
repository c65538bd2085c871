"""The data that describes a dashboard: sections of panels, each with queries, unit, thresholds and a description.

The modules in `boards` describe the five dashboards with these classes; `render` turns them into Grafana's JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dashboards.generator.queries import recent, with_rows

PanelKind = Literal["stat", "timeseries", "heatmap", "table", "nodeGraph", "traces", "trend", "logs", "logTable"]
Drill = Literal["", "task", "lock", "flow_name"]
"""The label whose value is a link to the board of that task, lock or flow."""
HATCHET_RUNS = "http://127.0.0.1:8888/tenants/707d0855-80ab-4e1f-a156-f1c4546cbf52/runs"
"""Where Hatchet shows runs in the demo: a new Hatchet has this tenant."""
Step = tuple[float, str]
"""A threshold: from this value on, this colour."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel: PromQL with the macros of `dashboards.generator.queries`, or TraceQL, or LogQL."""

    expr: str
    legend: str = ""
    ref: str = ""
    """Grafana's refId; A, B, C... by default."""
    unit: str = ""
    """Differs from the panel's unit where one panel shows two quantities; these series get the right-hand axis."""
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class PanelSpec:
    """One panel. Widths are in Grafana's 24 columns, heights in its rows of 30 pixels."""

    kind: PanelKind
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int
    height: int = 8
    steps: tuple[Step, ...] = ()
    """Thresholds in ascending order. Below the first one the panel is green, or red with ``low_is_bad``."""
    low_is_bad: bool = False
    stacked: bool = False
    bars: bool = False
    drill: Drill = ""
    empty: str = "no data"
    """Text shown if the query returns nothing or NaN."""
    instant: bool = False
    """Query the end of the time range only, not its course."""
    decimals: int | None = None
    columns: tuple[tuple[str, str], ...] = ()
    """For tables: label and heading, in order."""
    value_heading: str = "value"
    maximum: float | None = None
    signed: bool = False
    """Values may be below 0: the axis of a graph then has no fixed begin."""
    has_exemplars: bool = True
    """Draw exemplars, if a query has any. On a heat map they hide nothing; on lines beside one they are left out."""
    colour: str = ""
    """One colour in shades for all series, for example red where any line is bad news."""

    @property
    def reads_prometheus(self) -> bool:
        """Whether its queries are PromQL."""
        return self.kind not in {"traces", "logs", "logTable"}


@dataclass(frozen=True, slots=True)
class Section:
    """A row of panels with a title. Grafana loads a collapsed row only when it is opened."""

    title: str
    panels: tuple[PanelSpec, ...]
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class BoardSpec:
    """One dashboard."""

    uid: str
    title: str
    description: str
    sections: tuple[Section, ...]
    variables: tuple[Literal["task", "lock", "flow_name"], ...] = ()
    """Variables beside data source, job and instance."""
    needs_tempo: bool = False
    needs_loki: bool = False
    links_runs: bool = False
    """Has a variable with the address of runs in Hatchet, for links to them."""

    @property
    def short_title(self) -> str:
        """The title without ``mageflow / ``."""
        return self.title.removeprefix("mageflow / ")


def stat(
    title: str,
    unit: str,
    expr: str,
    description: str,
    *,
    steps: Sequence[Step] = (),
    low_is_bad: bool = False,
    legend: str = "",
    empty: str = "no data",
    instant: bool = False,
    width: int = 4,
    decimals: int | None = None,
) -> PanelSpec:
    """A number above a small graph of its recent values.

    The number always has a name (``legend``): without one, Grafana draws it over the graph.
    """
    name = legend or ("in range" if instant else "now")
    return PanelSpec(
        "stat", title, description, unit, (Query(expr, name),), width, 5, tuple(steps), low_is_bad,
        empty=empty, instant=instant, decimals=decimals,
    )  # fmt: skip


def lines(
    title: str,
    unit: str,
    queries: Sequence[Query],
    description: str,
    *,
    width: int = 12,
    height: int = 8,
    steps: Sequence[Step] = (),
    stacked: bool = False,
    bars: bool = False,
    drill: Drill = "",
    maximum: float | None = None,
    colour: str = "",
    empty: str = "no data",
    decimals: int | None = None,
    has_exemplars: bool = True,
    signed: bool = False,
) -> PanelSpec:
    """Series over time, as lines, stacked areas or bars."""
    return PanelSpec(
        "timeseries", title, description, unit, tuple(queries), width, height, tuple(steps),
        stacked=stacked, bars=bars, drill=drill, maximum=maximum, colour=colour, empty=empty, decimals=decimals,
        has_exemplars=has_exemplars, signed=signed,
    )  # fmt: skip


def curve(
    title: str, unit: str, queries: Sequence[Query], label: str, description: str, *, width: int = 12
) -> PanelSpec:
    """Lines over the numbers in a label, at the end of the time range. Each query is one line, named by its legend."""
    return PanelSpec(
        "trend", title, description, unit, tuple(queries), width, instant=True, columns=((label, label),),
    )  # fmt: skip


def heat(
    title: str, unit: str, buckets: str, selector: str, description: str, *, width: int = 12, height: int = 8
) -> PanelSpec:
    """A histogram over time, three rows for each power of ten.

    Args:
        title: Of the panel.
        unit: Of the histogram.
        buckets: The name of the ``_bucket`` series.
        selector: Label matchers in braces, for example ``{T}``.
        description: Of the panel.
        width: In columns.
        height: In rows of 30 pixels.
    """
    expr = f"sum by (le) ({recent(buckets + with_rows(buckets, selector))})"
    return PanelSpec("heatmap", title, description, unit, (Query(expr, "{{le}}"),), width, height)


def logs(title: str, expr: str, description: str) -> PanelSpec:
    """The log lines that a LogQL query finds, the latest first."""
    return PanelSpec("logs", title, description, "short", (Query(expr),), 24, 10, empty="no lines")


def table(
    title: str,
    unit: str,
    expr: str,
    columns: Sequence[tuple[str, str]],
    value_heading: str,
    description: str,
    *,
    width: int = 12,
    height: int = 8,
    steps: Sequence[Step] = (),
    empty: str = "none",
) -> PanelSpec:
    """The series at the end of the time range, one row each, the largest value first."""
    return PanelSpec(
        "table", title, description, unit, (Query(expr),), width, height, tuple(steps), empty=empty,
        instant=True, columns=tuple(columns), value_heading=value_heading,
    )  # fmt: skip
