"""The charts of the demo are to scale and have the requested width."""

import pytest

from mageflow.cli.demo.charts import draw_stagger, draw_waterfall
from mageflow.cli.demo.shop.spans import SpanRecord
from mageflow.cli.demo.summary import StaggeredRun, quantile


def staggered(delay: float, outcome: str = "succeeded") -> StaggeredRun:
    """An attempt with this delay and a body of half a second."""
    return StaggeredRun("run", delay, 0.5, delay + 0.5, outcome)


def span(name: str, start: float, end: float, parent: str = "", **fields: object) -> SpanRecord:
    """A span of one trace; its id is its name."""
    defaults = {"kind": "internal", "status": "unset", "service": "s", "attributes": {}, "events": (), "links": ()}
    return SpanRecord(
        name=name, span_id=name, parent_id=parent, trace_id="t", start=start, end=end, **{**defaults, **fields}
    )


def test_delay_and_body_are_drawn_to_scale():
    """With one column per tenth of a second, a delay of 1 s is ten dots and half a second is five blocks or six."""
    first, *_ = draw_stagger(
        [staggered(1.0), staggered(5.0)], window_seconds=5, timeout_seconds=4, width=56
    ).plain.splitlines()

    assert first.startswith("··········██████ ")
    assert first.endswith(" 1.00 s")
    assert first[40] == "╎"


def test_chart_has_the_requested_width():
    """Every line of bars has the same width for all runs: 40 columns and the delay beside them."""
    lines = draw_stagger(
        [staggered(0.0), staggered(2.0), staggered(7.9)], window_seconds=5, timeout_seconds=2, width=40
    ).plain.splitlines()

    assert {len(line) for line in lines[:3]} == {49}


def test_spread_counts_delays_per_tenth_of_the_window():
    """The numbers below the chart add up to the number of runs."""
    text = draw_stagger(
        [staggered(0.1), staggered(0.2), staggered(4.9)], window_seconds=5, timeout_seconds=2, width=60
    ).plain

    assert text.endswith("2 0 0 0 0 0 0 0 0 1")
    assert "mean 1.73 s, expected 2.50 s" in text


def test_no_runs_give_an_empty_chart():
    """Without runs only the axis is drawn, and without spans nothing."""
    assert "window 5 s" in draw_stagger([], window_seconds=5, timeout_seconds=2, width=60).plain
    assert draw_waterfall([], 60).plain == ""


def test_waterfall_nests_children_and_places_bars():
    """A child is below its parent and indented; its bar is inside the bar of the parent."""
    lines = draw_waterfall(
        [span("child", 5.0, 10.0, "parent", events=(("halfway", 7.5),)), span("parent", 0.0, 10.0)], 40
    ).plain.splitlines()

    assert lines[0].startswith("parent ")
    assert lines[0].count("━") == 40
    assert lines[1].startswith("  child ")
    assert lines[1].count("━") == 20
    assert lines[1].index("━") == lines[0].index("━") + 20
    assert lines[2].index("◆") == lines[0].index("━") + 30


def test_span_without_its_parent_is_a_root():
    """A span whose parent is not in the trace is drawn, at the left edge."""
    assert draw_waterfall([span("orphan", 0, 1, "elsewhere")], 40).plain.startswith("orphan")


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.95, 3.0), ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0), ([4.0, 1.0], 0.95, 4.0)],
)
def test_quantile_is_a_value_that_occurred(values, share, expected):
    """A quantile is one of the recorded durations. Values are not interpolated."""
    assert quantile(values, share) == expected
