"""Macros and functions that write the PromQL of the boards and alerts."""

import re
from collections.abc import Mapping

_MACROS: Mapping[str, str] = {
    "S": 'job=~"$job", instance=~"$instance"',
    "T": 'job=~"$job", instance=~"$instance", task=~"$task"',
    "L": 'job=~"$job", instance=~"$instance", lock=~"$lock"',
    "F": 'job=~"$job", instance=~"$instance", flow_name=~"$flow_name"',
}
_MACRO = re.compile(r"\{([STLF])(?=[,}])")


def expand_macros(expr: str) -> str:
    """The query with ``{S}``, ``{T}``, ``{L}``, ``{F}`` and ``[R]`` written out for Grafana."""
    return _MACRO.sub(lambda found: "{" + _MACROS[found[1]], expr).replace("[R]", "[$__rate_interval]")


def grown(series: str, targets: str, window: str, seconds: str = "") -> str:
    """The increase of a counter that may be born above 0, for a sum to go around.

    A series whose first sample is already 1 grew by 0 for ``increase``: the first deadlock of a pair of tasks would
    never be seen. What was not there a window ago counts in full, provided that its target was scraped then, or that
    its process is younger than the window and a minute (for the first scrape comes after the start); of a worker that
    Prometheus merely had not met then, only what grew before its eyes.

    Args:
        series: The counter's selector.
        targets: The same narrowing for series of the target, for example ``{S}``; may be empty.
        window: A range, for example ``10m``.
        seconds: The window in seconds, where that can be had.
    """
    young = f" or time() - process_start_time_seconds{targets} < {seconds} + 60" if seconds else ""
    return (
        f"(({series} unless {series} offset {window}) and on (job, instance) (up{targets} offset {window}{young}) "
        f"or increase({series}[{window}]))"
    )


def occurring(series: str, *by: str) -> str:
    """The rate of a counter by labels, without the lines that stay at 0 in all of the range shown.

    ``> 0`` would tear a hole into a line wherever it rests; here a line is whole or not there.

    Args:
        series: The counter's selector.
        by: Labels to sum by.
    """
    labels = ", ".join(by)
    return (
        f"(sum by ({labels}) (rate({series}[R])) and on ({labels}) "
        f"sum by ({labels}) (increase({series}[$__range] @ end())) > 0)"
    )
