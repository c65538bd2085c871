"""Sends the queries of the boards to a real Prometheus and reports which panels get data.

Shipped dashboards often stay empty because something in the user's installation differs, and only the user's own
Prometheus can show that. Queries are sent as Grafana sends them when every variable is set to *All*.
"""

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from mageflow.dashboards.promql import fill_variables, scan
from mageflow.errors import MageflowError

_POINTS = 250
"""Points per series of a range query, about what Grafana asks for."""


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of one panel, as it is in the dashboard's JSON."""

    board: str
    panel: str
    kind: str
    ref: str
    expr: str
    section: str
    instant: bool

    @property
    def reads_hatchet(self) -> bool:
        """Whether it reads Hatchet's own metrics, which only a self-hosted engine exports, and not mageflow's."""
        return all(selector.metric.startswith("hatchet_") for selector in scan(self.expr).selectors)


@dataclass(frozen=True, slots=True)
class PanelResult:
    """What Prometheus returned for one query."""

    query: PanelQuery
    series: int
    """How many series have at least one value that is not NaN."""
    error: str = ""
    """Why the query failed; empty if it did not."""
    result: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], repr=False)
    """The series as in Prometheus's HTTP API."""


class PrometheusError(MageflowError):
    """Prometheus rejected a query or could not be reached; the message says which and why."""


def panel_queries(boards: Iterable[Path]) -> Iterator[PanelQuery]:
    """Every Prometheus query of these dashboards' JSON files, collapsed rows included."""
    for path in boards:
        document = json.loads(path.read_text(encoding="utf-8"))
        section = ""
        for panel in document["panels"]:
            if panel["type"] == "row":
                section = panel["title"]
            for inner in [panel, *panel.get("panels", [])]:
                for target in inner.get("targets", []):
                    if "expr" in target and inner["datasource"]["type"] == "prometheus":
                        yield PanelQuery(
                            document["uid"], inner["title"], inner["type"], target["refId"], target["expr"], section,
                            bool(target.get("instant")),
                        )  # fmt: skip


def call_api(url: str, path: str, parameters: Mapping[str, str], timeout_seconds: float = 30.0) -> Any:
    """Call Prometheus's HTTP API once and get the ``data`` of its answer.

    Raises:
        PrometheusError: Prometheus could not be reached, or returned an error.
    """
    if not url.startswith(("http://", "https://")):
        raise PrometheusError(f"{url!r} is not the address of a Prometheus: write http://HOST:PORT")
    request = Request(f"{url.rstrip('/')}{path}?{urlencode(parameters)}")  # noqa: S310  # the scheme is checked above
    try:
        with urlopen(request, timeout=timeout_seconds) as response:  # noqa: S310  # as above
            return json.load(response)["data"]
    except HTTPError as error:
        detail = error.read().decode(errors="replace")[:500]
        raise PrometheusError(f"{path} was rejected ({error.code}): {detail}") from error
    except (OSError, ValueError, KeyError) as error:
        raise PrometheusError(f"{url}{path} could not be queried: {error}") from error


def run_panel_queries(
    url: str,
    boards: Iterable[Path],
    *,
    range_seconds: float = 3600.0,
    rate_interval_seconds: float = 60.0,
    at: float | None = None,
) -> list[PanelResult]:
    """Send every query of these dashboards to a Prometheus. A failed query is a result with ``error`` set.

    Args:
        url: The address of Prometheus, for example ``http://127.0.0.1:9090``.
        boards: The dashboards' JSON files.
        range_seconds: Length of the time range, as chosen in Grafana.
        rate_interval_seconds: Value of ``$__rate_interval``: at least four scrape intervals.
        at: End of the time range in epoch seconds; now if not given.
    """
    end = time.time() if at is None else at
    return [_run(url, each, end, range_seconds, rate_interval_seconds) for each in panel_queries(boards)]


def _run(url: str, query: PanelQuery, end: float, range_seconds: float, rate_interval: float) -> PanelResult:
    expr = fill_variables(query.expr, rate_interval=f"{rate_interval:.0f}s", range_=f"{range_seconds:.0f}s")
    step = max(range_seconds / _POINTS, 1.0)
    try:
        if query.instant:
            data = call_api(url, "/api/v1/query", {"query": expr, "time": f"{end:.3f}"})
        else:
            span = {"start": f"{end - range_seconds:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
            data = call_api(url, "/api/v1/query_range", {"query": expr, **span})
    except PrometheusError as error:
        return PanelResult(query, 0, str(error))
    result: list[dict[str, Any]] = data["result"]
    return PanelResult(query, sum(1 for series in result if _has_number(series)), "", result)


def _has_number(series: Mapping[str, Any]) -> bool:
    samples = series.get("values") or [series["value"]]
    return any(not math.isnan(float(value)) for _, value in samples)
