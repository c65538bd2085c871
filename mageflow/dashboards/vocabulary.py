"""Checks that a query names only metrics, labels, label values and bucket bounds of `mageflow.telemetry.names`.

The generator runs this check on every query of every board and rule before it writes a file, and ``mageflow
dashboards check`` runs it on the shipped files.
"""

from collections.abc import Mapping

from mageflow.dashboards.promql import QueryParts, Selector, scan
from mageflow.telemetry.names import METRICS, Metric

TARGET_LABELS = frozenset({"job", "instance", "namespace", "discovery"})
"""Labels that Prometheus adds to scraped series.

The Prometheus Operator sets ``namespace``; ``discovery`` is ``fixed`` in a fixed list of targets.
"""

EXTERNAL_SERIES: Mapping[str, frozenset[str]] = {
    "up": frozenset(),
    "scrape_duration_seconds": frozenset(),
    "scrape_samples_scraped": frozenset(),
    "process_cpu_seconds_total": frozenset(),
    "process_start_time_seconds": frozenset(),
    "process_resident_memory_bytes": frozenset(),
    "hatchet_tenant_queue_size": frozenset({"tenant_id", "queue", "workflow_name"}),
}
"""Series that other programs export, and their labels.

Prometheus exports series about each scrape, client_python about the process, and Hatchet about its queues.
"""

COUNTER_FUNCTIONS = frozenset({"rate", "increase", "unless", "offset", "max_over_time"})
"""Valid ways to read a counter: its growth, whether the series exists now and existed before, whether it is above 0."""

_SUFFIXES = ("_bucket", "_sum", "_count")
_BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}


def metric_of(series: str) -> Metric | None:
    """The metric a series belongs to: ``mageflow_x_bucket`` belongs to the histogram ``mageflow_x``."""
    if series in _BY_NAME:
        return _BY_NAME[series]
    for suffix in _SUFFIXES:
        metric = _BY_NAME.get(series.removesuffix(suffix)) if series.endswith(suffix) else None
        if metric is not None and metric.kind == "histogram":
            return metric
    return None


def find_problems(expr: str, recorded: Mapping[str, frozenset[str]] | None = None) -> list[str]:
    """Get one line for each mistake in a query; an empty list if there is none.

    Args:
        expr: The query, with the generator's macros expanded. Grafana's variables may be in values and ranges.
        recorded: The recording rules the query may use, each with the labels of its series.
    """
    parts = scan(expr)
    known = recorded or {}
    problems: list[str] = []
    allowed: set[str] = set(parts.created_labels) | TARGET_LABELS
    for selector in parts.selectors:
        labels = _labels_of(selector, known)
        if labels is None:
            problems.append(f"{selector.metric} is not a metric of mageflow")
            continue
        allowed |= labels
        is_difference = any(o.metric == selector.metric and o.function == "offset" for o in parts.selectors)
        problems += _problems_of_selector(selector, labels, is_difference=is_difference)
    unknown = [label for label in parts.grouping_labels if label not in allowed]
    return problems + [f"no series of the query has the label {label}" for label in unknown]


def metrics_in(expr: str) -> set[Metric]:
    """The metrics of mageflow that a query reads."""
    return {metric for selector in scan(expr).selectors if (metric := metric_of(selector.metric)) is not None}


def has_exemplars(parts: QueryParts) -> bool:
    """Whether a query is a quantile over buckets that carry exemplars.

    Exemplars are values in the metric's unit, so they fit on the axis of a quantile, not on that of a ratio.
    """
    buckets = [each for each in parts.selectors if each.metric.endswith("_bucket")]
    metrics = [metric_of(each.metric) for each in buckets if "histogram_quantile" in each.calls]
    return any(metric is not None and metric.exemplars for metric in metrics)


def _labels_of(selector: Selector, recorded: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    if selector.metric in recorded:
        return recorded[selector.metric]
    if selector.metric in EXTERNAL_SERIES:
        return EXTERNAL_SERIES[selector.metric] | TARGET_LABELS
    metric = metric_of(selector.metric)
    if metric is None:
        return None
    bucket = frozenset({"le"}) if selector.metric.endswith("_bucket") else frozenset[str]()
    return frozenset(metric.labels) | TARGET_LABELS | bucket


def _problems_of_selector(selector: Selector, labels: frozenset[str], *, is_difference: bool) -> list[str]:
    problems: list[str] = []
    metric = metric_of(selector.metric)
    if metric is not None and metric.kind == "histogram" and selector.metric == metric.name:
        problems.append(f"{metric.name} is a histogram: query _bucket, _sum or _count")
    is_read = is_difference or selector.function in COUNTER_FUNCTIONS
    if metric is not None and metric.kind != "gauge" and not is_read:
        problems.append(f"{selector.metric} only increases: read it through rate or increase")
    if metric is not None and metric.kind == "gauge" and selector.function in {"rate", "increase"}:
        problems.append(f"{selector.metric} is a gauge: rate and increase are for counters")
    for matcher in selector.matchers:
        if matcher.label not in labels:
            problems.append(f"{selector.metric} has no label {matcher.label}")
        elif metric is not None:
            problems += _problems_of_value(metric, matcher.label, matcher.value)
    return problems


def _problems_of_value(metric: Metric, label: str, value: str) -> list[str]:
    if value.startswith("$"):
        return []
    if label == "le" and "|" not in value and value not in {str(bound) for bound in metric.buckets}:
        return [f"{metric.name} has no bucket le={value!r}"]
    closed = metric.closed.get(label)
    if closed is None:
        return []
    return [f"{metric.name}: {label} is never {each!r}" for each in value.split("|") if each not in closed]
