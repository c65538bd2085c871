"""Ask a real Prometheus every question the boards ask, and see which panels have an answer.

An empty board is the usual failure of shipped dashboards, and only the user's own Prometheus can tell. Queries are
sent as Grafana would send them with every variable at *All*.
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

from mageflow.dashboards.promql import fill_variables


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of one panel, as it is in the JSON."""

    board: str
    panel: str
    kind: str
    ref: str
    expr: str
    section: str
    instant: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What Prometheus said to one query. ``series`` counts series with at least one number that is not NaN."""

    query: PanelQuery
    series: int
    error: str = ""
    result: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]], repr=False)


def panel_queries(boards: Iterable[Path]) -> Iterator[PanelQuery]:
    """Every Prometheus query of these dashboards, rows and collapsed rows included."""
    for path in boards:
        document = json.loads(path.read_text(encoding="utf-8"))
        section = ""
        for panel in document["panels"]:
            if panel["type"] == "row":
                section = panel["title"]
            for inner in [panel, *panel.get("panels", [])]:
                for target in inner.get("targets", []):
                    if "expr" in target:
                        yield PanelQuery(
                            document["uid"], inner["title"], inner["type"], target["refId"], target["expr"], section,
                            bool(target.get("instant")),
                        )  # fmt: skip


class PrometheusError(Exception):
    """Prometheus refused a query or could not be asked; the message says which and why."""


def ask(url: str, path: str, parameters: Mapping[str, str], timeout_seconds: float = 30.0) -> Any:
    """The ``data`` of one call of Prometheus's HTTP API.

    Raises:
        PrometheusError: It could not be reached, or answered with an error.
    """
    if not url.startswith(("http://", "https://")):
        raise PrometheusError(f"{url!r} is no address of a Prometheus: write http://HOST:PORT")
    request = Request(f"{url.rstrip('/')}{path}?{urlencode(parameters)}")  # noqa: S310  # the scheme is checked above
    try:
        with urlopen(request, timeout=timeout_seconds) as response:  # noqa: S310  # as above
            return json.load(response)["data"]
    except HTTPError as error:
        detail = error.read().decode(errors="replace")[:500]
        raise PrometheusError(f"{path} was refused ({error.code}): {detail}") from error
    except (OSError, ValueError, KeyError) as error:
        raise PrometheusError(f"{url}{path} could not be asked: {error}") from error


def ask_panels(
    url: str,
    boards: Iterable[Path],
    *,
    range_seconds: float = 3600.0,
    rate_interval_seconds: float = 60.0,
    at: float | None = None,
) -> list[Answer]:
    """Ask Prometheus every query of these dashboards over the last ``range_seconds``.

    Args:
        url: Where Prometheus is, for example ``http://127.0.0.1:9090``.
        boards: The dashboards' JSON files.
        range_seconds: The time range Grafana would show.
        rate_interval_seconds: What ``$__rate_interval`` stands for: at least four scrape intervals.
        at: End of the range in epoch seconds; now unless given.
    """
    end = time.time() if at is None else at
    return [_answer(url, each, end, range_seconds, rate_interval_seconds) for each in panel_queries(boards)]


def _answer(url: str, query: PanelQuery, end: float, range_seconds: float, rate_interval: float) -> Answer:
    expr = fill_variables(query.expr, rate_interval=f"{rate_interval:.0f}s", range_=f"{range_seconds:.0f}s")
    step = max(range_seconds / 250, 1.0)
    try:
        if query.instant:
            data = ask(url, "/api/v1/query", {"query": expr, "time": f"{end:.3f}"})
        else:
            span = {"start": f"{end - range_seconds:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
            data = ask(url, "/api/v1/query_range", {"query": expr, **span})
    except PrometheusError as error:
        return Answer(query, 0, str(error))
    result: list[dict[str, Any]] = data["result"]
    return Answer(query, sum(1 for series in result if _numbers(series)), "", result)


def _numbers(series: Mapping[str, Any]) -> bool:
    samples = series.get("values") or [series["value"]]
    return any(not math.isnan(float(value)) for _, value in samples)
