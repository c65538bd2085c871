"""Whether a query speaks the language of `mageflow.telemetry.names`: metrics, labels, closed values, bucket bounds.

Every query of every board and rule passes through here when it is generated, so a misspelt label cannot ship.
"""

from collections.abc import Mapping

from mageflow.dashboards.promql import Reading, Selector, read
from mageflow.telemetry.names import METRICS, Metric

TARGET_LABELS = frozenset({"job", "instance"})
"""Labels Prometheus itself puts on every scraped series."""

EXTERNAL: Mapping[str, frozenset[str]] = {
    "up": frozenset(),
    "scrape_duration_seconds": frozenset(),
    "scrape_samples_scraped": frozenset(),
    "process_cpu_seconds_total": frozenset(),
    "process_start_time_seconds": frozenset(),
    "process_resident_memory_bytes": frozenset(),
    "hatchet_tenant_queue_size": frozenset({"tenant_id", "queue", "workflow_name"}),
}
"""Series that others export: Prometheus about the scrape, client_python about the process, Hatchet about its queues."""

GROWTH = frozenset({"rate", "increase", "unless", "offset"})
"""Ways to read what only ever grows: its growth, or its presence now against its presence before."""

_SUFFIXES = ("_bucket", "_sum", "_count")
_BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}


def family_of(series: str) -> Metric | None:
    """The metric a series belongs to: ``mageflow_x_bucket`` belongs to the histogram ``mageflow_x``."""
    if series in _BY_NAME:
        return _BY_NAME[series]
    for suffix in _SUFFIXES:
        metric = _BY_NAME.get(series.removesuffix(suffix)) if series.endswith(suffix) else None
        if metric is not None and metric.kind == "histogram":
            return metric
    return None


def problems_of(expr: str, recorded: Mapping[str, frozenset[str]] | None = None) -> list[str]:
    """What is wrong with the words of a query; an empty list when nothing is.

    Args:
        expr: The query, macros expanded; Grafana's variables may stand in values and ranges.
        recorded: Labels of each recording rule the query may name.
    """
    reading = read(expr)
    known = recorded or {}
    problems: list[str] = []
    allowed: set[str] = set(reading.made) | TARGET_LABELS
    for selector in reading.selectors:
        labels = _labels_of(selector, known)
        if labels is None:
            problems.append(f"{selector.metric} is no metric of mageflow")
            continue
        allowed |= labels
        problems += _problems_of_selector(selector, labels)
    problems += [f"no series of the query has the label {label}" for label in reading.grouping if label not in allowed]
    return problems


def metrics_in(expr: str) -> set[Metric]:
    """The metrics of mageflow a query reads."""
    return {metric for selector in read(expr).selectors if (metric := family_of(selector.metric)) is not None}


def exemplars_in(reading: Reading) -> bool:
    """Whether a query is a quantile of buckets that carry exemplars: a share is no scale to draw seconds on."""
    buckets = [each for each in reading.selectors if each.metric.endswith("_bucket")]
    families = [family_of(each.metric) for each in buckets if "histogram_quantile" in each.calls]
    return any(metric is not None and metric.exemplars for metric in families)


def _labels_of(selector: Selector, recorded: Mapping[str, frozenset[str]]) -> frozenset[str] | None:
    if selector.metric in recorded:
        return recorded[selector.metric]
    if selector.metric in EXTERNAL:
        return EXTERNAL[selector.metric] | TARGET_LABELS
    metric = family_of(selector.metric)
    if metric is None:
        return None
    bucket = frozenset({"le"}) if selector.metric.endswith("_bucket") else frozenset[str]()
    return frozenset(metric.labels) | TARGET_LABELS | bucket


def _problems_of_selector(selector: Selector, labels: frozenset[str]) -> list[str]:
    problems: list[str] = []
    metric = family_of(selector.metric)
    if metric is not None and metric.kind == "histogram" and selector.metric == metric.name:
        problems.append(f"{metric.name} is a histogram: query _bucket, _sum or _count")
    if metric is not None and metric.kind != "gauge" and selector.function not in GROWTH:
        problems.append(f"{selector.metric} only ever grows: read it through rate or increase")
    if metric is not None and metric.kind == "gauge" and selector.function in {"rate", "increase"}:
        problems.append(f"{selector.metric} is a gauge: rate and increase make no sense of it")
    for matcher in selector.matchers:
        if matcher.label not in labels:
            problems.append(f"{selector.metric} has no label {matcher.label}")
        elif metric is not None:
            problems += _problems_of_value(metric, matcher.label, matcher.value)
    return problems


def _problems_of_value(metric: Metric, label: str, value: str) -> list[str]:
    if value.startswith("$"):
        return []
    if label == "le" and value not in {str(bound) for bound in metric.buckets}:
        return [f"{metric.name} has no bucket le={value!r}"]
    closed = metric.closed.get(label)
    if closed is None:
        return []
    return [f"{metric.name}: {label} is never {each!r}" for each in value.split("|") if each not in closed]
