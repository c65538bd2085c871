"""Macros and functions for the PromQL of boards and alerts.

A macro is a short form in the braces of a selector:

=====  ==========================================================
Macro  Label matchers
=====  ==========================================================
{S}    job and instance, for series of a process
{T}    as {S}, and task
{L}    as {S}, and lock
{F}    as {S}, and flow_name
[R]    the range ``[$__rate_interval]``
=====  ==========================================================

More matchers may follow: ``mageflow_task_runs_total{T,outcome="failed"}``.
"""

import re
from collections.abc import Mapping

from mageflow.dashboards.vocabulary import metric_of

_MACROS: Mapping[str, str] = {
    "S": 'job=~"$job", instance=~"$instance"',
    "T": 'job=~"$job", instance=~"$instance", task=~"$task"',
    "L": 'job=~"$job", instance=~"$instance", lock=~"$lock"',
    "F": 'job=~"$job", instance=~"$instance", flow_name=~"$flow_name"',
}
_MACRO = re.compile(r"\{([STLF])(?=[,}])")


ENDED = 'outcome=~"succeeded|failed|timed_out|cancelled|skipped"'
"""A matcher for attempts that ended their run: all but those that Hatchet retries."""


def expand_macros(expr: str) -> str:
    """The query with every macro replaced."""
    return _MACRO.sub(lambda found: "{" + _MACROS[found[1]], expr).replace("[R]", "[$__rate_interval]")


def increase_from_zero(series: str, targets: str, window: str, seconds: str = "") -> str:
    """The increase of a counter whose series first appears with a value above 0. Wrap it in a sum.

    ``increase`` compares samples of a series, so a series whose first sample is 1 has an increase of 0, and the first
    deadlock between two tasks would not be seen. This query counts a series that did not exist one window ago in
    full if the scrape of its target succeeded then, or if the process is younger than the window plus a minute (the
    first scrape comes some time after the start). Otherwise it counts only the increase between scrapes. After a
    failed scrape a series is absent for a moment: that must not count the whole life of its process as new.

    Args:
        series: The counter's selector.
        targets: Label matchers for the series of the target, for example ``{S}``; may be empty.
        window: A range, for example ``10m``.
        seconds: The window in seconds. Without it, the rule about young processes is left out.
    """
    young = f" or time() - process_start_time_seconds{targets} < {seconds} + 60" if seconds else ""
    return (
        f"(({series} unless {series} offset {window}) and on (job, instance) (up{targets} offset {window} == 1{young}) "
        f"or increase({series}[{window}]))"
    )


def recent(series: str) -> str:
    """The increase of a counter in the range ``$__rate_interval``, by `increase_from_zero`. Wrap it in a sum."""
    # There is no variable with the seconds of $__rate_interval. It is at most a minute longer than $__interval_ms where
    # Prometheus scrapes once in 15 s.
    return increase_from_zero(series, "{S}", "$__rate_interval", "$__interval_ms / 1000 + 60")


def in_range(series: str) -> str:
    """The increase of a counter in the visible range, by `increase_from_zero`. Wrap it in a sum."""
    return increase_from_zero(series, "{S}", "$__range", "$__range_s")


def share_in_range(part: str, whole: str) -> str:
    """The share of one counter in another in the visible range; NaN if nothing was counted."""
    return f"sum({in_range(part)}) / sum({in_range(whole)})"


def counts(series: str, *by: str, zeros: bool = False) -> str:
    """How often something happened per interval, by labels: for bars.

    Args:
        series: The counter's selector.
        by: Labels to sum by.
        zeros: Keep counts of 0, where a legend with all values says that nothing happened.
    """
    return f"round(sum by ({', '.join(by)}) ({recent(series)}))" + ("" if zeros else " > 0")


def per_step(series: str, only: str = "") -> str:
    """How often something happened in each step of a graph, summed: with a step as short as the scrape interval.

    ``increase`` needs several samples, so its range is at least four scrapes, and two bursts in it are one. This is the
    difference of two samples. A restart gives 0 instead of a negative number.

    Args:
        series: The counter's selector.
        only: A set operation that limits the series, for example ``and on (task) x``.
    """
    return f"clamp_min(sum({series} {only}) - sum({series} offset $__interval {only}), 0)"


def mean(histogram: str, selector: str, *by: str) -> str:
    """The mean of a histogram's observations in the range ``$__rate_interval``, by labels.

    Args:
        histogram: The name of the metric.
        selector: Label matchers in braces, for example ``{T}``.
        by: Labels to keep.
    """
    summed = f"sum by ({', '.join(by)})"
    total, number = (f"{summed} ({recent(f'{histogram}_{part}{selector}')})" for part in ("sum", "count"))
    return f"{total} / {number}"


def rate_of_active(series: str, *by: str) -> str:
    """The rate of a counter by labels, without the label values that did not occur in the visible range.

    ``rate(...) > 0`` would leave a gap wherever a line is 0. With this query a line is complete or absent.

    Args:
        series: The counter's selector.
        by: Labels to sum by.
    """
    labels = ", ".join(by)
    return (
        f"(sum by ({labels}) (rate({series}[R])) and on ({labels}) "
        f"sum by ({labels}) (increase({series}[$__range] @ end())) > 0)"
    )


def highest(expr: str, label: str, ranking: str, most: int = 8) -> str:
    """The lines of the values of a label that rank highest over the visible range.

    ``topk`` alone chooses anew at each step: a legend below a narrow panel has no room for all that were ever chosen.

    Args:
        expr: The query, by the label.
        label: For example ``task``.
        ranking: By the same label, at the end of the visible range: ``... [$__range] @ end()``.
        most: How many values stay.
    """
    return f"({expr}) and on ({label}) topk({most}, {ranking})"


def highest_gauge(gauge: str, label: str) -> str:
    """The lines of a gauge that were highest in the visible range, by a label."""
    ranking = f"max by ({label}) (max_over_time({gauge}[$__range] @ end()))"
    return highest(f"max by ({label}) ({gauge})", label, ranking)


def with_rows(buckets: str, selector: str) -> str:
    """The selector with some buckets of a histogram, for heat maps: three in each power of ten up to a minute.

    All buckets would be sixty rows, with labels that cover each other.
    """
    metric = metric_of(buckets)
    if metric is None:
        raise ValueError(f"{buckets} is not a metric of mageflow")
    bounds = [bound for bound in metric.buckets[:-1] if f"{bound:e}".split("e")[0].rstrip("0") in _steps(bound)]
    # Prometheus 2 stores the text of the exporter, which writes 1000.0; OTLP and Prometheus 3 may write 1000.
    texts = (f"{bound:.10g}".replace(".", "[.]") for bound in (*bounds, metric.buckets[-1]))
    rows = "|".join(text if "[.]" in text else f"{text}([.]0)?" for text in texts) + "|[+]Inf"
    return selector.removesuffix("}") + f',le=~"{rows}"}}'


def _steps(bound: float) -> tuple[str, ...]:
    # Above a minute the labels are in minutes and hours: 6 minutes, 1 hour, 10 hours.
    return ("1.", "2.35", "5.5") if bound < _MINUTE else ("3.6",)


_MINUTE = 60


def quantile_of_all(share: float, buckets: str, *by: str) -> str:
    """As `quantile`, without the first observation of each series in a Prometheus that stores no zeros.

    For what is observed all the time, or over all tasks: there are very many buckets, and this reads each once.
    """
    return f"histogram_quantile({share:g}, sum by ({', '.join(('le', *by))}) (rate({buckets}[R])))"


def quantile(share: float, buckets: str, *by: str, visible_range: bool = False) -> str:
    """A quantile of a histogram, over all its series or by labels. Its error is in ``docs/telemetry.md``.

    Args:
        share: From 0 to 1; 0.95 is the 95th percentile.
        buckets: The selector of the ``_bucket`` series.
        by: Labels to keep.
        visible_range: Over the whole visible range instead of ``$__rate_interval``: for instant queries.
    """
    increased = in_range(buckets) if visible_range else recent(buckets)
    return f"histogram_quantile({share:g}, sum by ({', '.join(('le', *by))}) ({increased}))"
