"""Finds the metrics endpoints of workers, and reads them."""

import http.client
import json
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from mageflow.config import Settings

__all__ = ["Labels", "Samples", "Scrape", "endpoint_candidates", "get_text", "scrape"]

Labels = frozenset[tuple[str, str]]
Samples = Mapping[str, Mapping[Labels, float]]
"""Values by name and labels, of the metrics of mageflow alone."""

_TIMEOUT_SECONDS = 2.0
_MAX_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Scrape:
    """One reading of one endpoint."""

    url: str
    samples: Samples
    runs: Mapping[str, Any] | None
    """The body of ``/debug/runs``; None if it does not answer this host."""


def endpoint_candidates(settings: Settings) -> list[str]:
    """Where workers of this host serve: the entries of ``MAGEFLOW_METRICS_SD_DIR``, else every port of the settings."""
    if settings.metrics_sd_dir is not None:
        return sorted({f"http://{target}/metrics" for target in _targets(settings)})
    host = "127.0.0.1" if settings.metrics_addr in ("", "0.0.0.0", "::") else settings.metrics_addr  # noqa: S104 - nothing is bound
    host = f"[{host}]" if ":" in host else host
    first = settings.metrics_port
    return [f"http://{host}:{port}/metrics" for port in range(first, first + settings.metrics_port_span) if port]


def _targets(settings: Settings) -> list[str]:
    found: list[str] = []
    for path in settings.metrics_sd_dir.glob("*.json") if settings.metrics_sd_dir is not None else ():
        try:
            for entry in cast("list[dict[str, Any]]", json.loads(path.read_text(encoding="utf-8"))):
                found += map(str, entry["targets"])
        except (OSError, ValueError, LookupError, TypeError):
            continue  # removed meanwhile, or no entry of a worker
    return found


def scrape(url: str) -> Scrape | None:
    """Read one endpoint. Blocks for at most a few seconds.

    Args:
        url: The URL of ``/metrics``.

    Returns:
        None if there is no answer, or if what answers is no process of mageflow.
    """
    text = get_text(url)
    if text is None:
        return None
    samples: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text):
            if family.name.startswith("mageflow_"):
                for each in family.samples:
                    samples.setdefault(each.name, {})[frozenset(each.labels.items())] = each.value
    except (ValueError, LookupError):
        return None
    if not samples:
        return None
    body = get_text(url.removesuffix("/metrics") + "/debug/runs")
    return Scrape(url, samples, None if body is None else _document(body))


def _document(body: str) -> Mapping[str, Any] | None:
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return cast("dict[str, Any]", document) if isinstance(document, dict) else None


def _opener() -> urllib.request.OpenerDirector:
    # No proxy, no redirect: a worker is read where its URL leads.
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
        opener.add_handler(handler)
    return opener


_OPENER = _opener()


def get_text(url: str) -> str | None:
    """The body of a page of a worker; None if it does not answer within 2 s, or not with 200."""
    try:
        with _OPENER.open(url, timeout=_TIMEOUT_SECONDS) as response:
            return response.read(_MAX_BYTES).decode("utf-8", "replace") if response.status == HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError):
        return None


def label(labels: Labels, name: str) -> str:
    """The value of one label; empty without it."""
    return next((value for key, value in labels if key == name), "")


def by_label(samples: Sequence[Samples], metric: str, *names: str) -> dict[tuple[str, ...], float]:
    """The sum of one metric over all readings, by the values of these labels."""
    sums: dict[tuple[str, ...], float] = {}
    for each in samples:
        for labels, value in each.get(metric, {}).items():
            key = tuple(label(labels, name) for name in names)
            sums[key] = sums.get(key, 0.0) + value
    return sums
