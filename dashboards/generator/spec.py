"""What a board is made of, as data: sections of panels, each with its queries, unit, thresholds and meaning.

The five boards are written in these words (`overview`, `task`, `stagger`, `locks`, `flows`); `panels` and `board` turn
them into Grafana's JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

PanelKind = Literal["stat", "timeseries", "heatmap", "table", "nodeGraph", "traces"]
Drill = Literal["", "task", "lock", "flow_name"]
Step = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel, in PromQL with the macros of `mageflow.dashboards.promql`.

    ``unit`` differs from the panel's where one panel shows two things; such series get the right-hand axis.
    """

    expr: str
    legend: str = ""
    ref: str = ""
    unit: str = ""
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
    """Thresholds: from this value on, this colour; below the first one the panel is green."""
    low_is_bad: bool = False
    """Whether thresholds go down: red below the first value, then its colour, and so on."""
    stacked: bool = False
    bars: bool = False
    drill: Drill = ""
    empty: str = "no data"
    """What is shown where the query has no answer or divides nothing by nothing."""
    instant: bool = False
    decimals: int | None = None
    columns: tuple[tuple[str, str], ...] = ()
    """For tables: label and heading, in order."""
    value_heading: str = "value"
    maximum: float | None = None
    colour: str = ""
    """One colour for every series, in shades: red where any line at all is bad news."""


@dataclass(frozen=True, slots=True)
class Section:
    """A titled row of panels. A collapsed one is loaded only when it is opened."""

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
    needs_tempo: bool = False
    notes: tuple[str, ...] = field(default=())


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
    """A number with its recent course below it.

    It always bears a name: Grafana sets a number without one in the middle of its own course.
    """
    named = legend or ("in range" if instant else "now")
    return PanelSpec(
        "stat", title, description, unit, (Query(expr, named),), width, 5, tuple(steps), low_is_bad,
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
) -> PanelSpec:
    """Series over time."""
    return PanelSpec(
        "timeseries", title, description, unit, tuple(queries), width, height, tuple(steps),
        stacked=stacked, bars=bars, drill=drill, maximum=maximum, colour=colour, empty=empty, decimals=decimals,
    )  # fmt: skip


def heat(title: str, unit: str, expr: str, description: str, *, width: int = 12, height: int = 8) -> PanelSpec:
    """How a distribution moves over time, one row per bucket."""
    return PanelSpec("heatmap", title, description, unit, (Query(expr, "{{le}}"),), width, height)


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
    drill: Drill = "",
    empty: str = "none",
) -> PanelSpec:
    """What is the case now, one row per series, the largest value first."""
    return PanelSpec(
        "table", title, description, unit, (Query(expr),), width, height, tuple(steps), drill=drill, empty=empty,
        instant=True, columns=tuple(columns), value_heading=value_heading,
    )  # fmt: skip
