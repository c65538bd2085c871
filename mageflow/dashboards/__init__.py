"""Dashboards, rules and runbook as code.

This room owns everything under ``dashboards/``: ``python -m mageflow.grafana`` writes it, nobody edits it by hand, and
it ships in the wheel. Reading, exporting and checking (`bundle`, `promql`, `vocabulary`, `live`, `rules`) need nothing
but the standard library; drawing the boards (`panels`, `board`) needs the development dependency
grafana-foundation-sdk, so it is imported by the generator alone. The room imports nothing of mageflow but the names of
its signals, and refuses to know anything about a particular installation: no job name, no datasource uid, no host.
"""

from mageflow.dashboards.bundle import Bundle, differences, export, find_bundle
from mageflow.dashboards.prometheus import Answer, PrometheusError, ask, ask_panels, panel_queries
from mageflow.dashboards.vocabulary import problems_of

__all__ = [
    "Answer",
    "Bundle",
    "PrometheusError",
    "ask",
    "ask_panels",
    "differences",
    "export",
    "find_bundle",
    "panel_queries",
    "problems_of",
]
