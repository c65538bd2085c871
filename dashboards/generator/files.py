"""Writes everything under ``dashboards/`` that is generated: the same bytes for the same source."""

from collections.abc import Mapping
from pathlib import Path

from dashboards.generator import provisioning
from dashboards.generator.alerts import alerts
from dashboards.generator.boards import BOARDS
from dashboards.generator.readme import readme_markdown
from dashboards.generator.render.board import render
from dashboards.generator.rules import RECORDINGS, Addresses, Thresholds, alerts_yaml, recording_yaml
from dashboards.generator.runbook import runbook_markdown
from mageflow.dashboards.vocabulary import find_problems

IMAGES: tuple[tuple[str, str], ...] = (
    ("ghcr.io/hatchet-dev/hatchet/hatchet-lite:v0.104.7", "the engine: API, dashboard and gRPC in one"),
    ("postgres:16.6-alpine", "Hatchet's database and message queue"),
    ("valkey/valkey:8.1.10-alpine", "mageflow's state: signatures, flows, locks"),
    ("prom/prometheus:v3.14.0", "scrapes the worker and the engine, keeps exemplars, evaluates the rules"),
    ("grafana/tempo:2.9.5", "takes the spans by OTLP"),
    ("grafana/grafana:11.6.14", "the boards"),
    ("python:3.12-slim-bookworm", "what the demo worker's image is built from (`dashboards/stack/Dockerfile`)"),
)


def contents(thresholds: Thresholds | None = None, addresses: Addresses | None = None) -> Mapping[str, str]:
    """Every generated file by its path below ``dashboards/``.

    Raises:
        ValueError: A query of a board or rule does not speak the language of `mageflow.telemetry.names`.
    """
    rules = alerts(thresholds)
    recorded = {rule.record: frozenset({*rule.labels, "job"}) for rule in RECORDINGS}
    for name, expr in [(a.name, a.expr) for a in rules] + [(r.record, r.expr) for r in RECORDINGS]:
        problems = find_problems(expr, recorded)
        if problems:
            raise ValueError(f"{name}: " + "; ".join(problems))
    files = {f"grafana/{board.uid}.json": render(board) for board in BOARDS}
    files["rules/mageflow-recording.yml"] = recording_yaml()
    files["rules/mageflow-alerts.yml"] = alerts_yaml(rules, addresses)
    files["provisioning/dashboards/mageflow.yml"] = provisioning.DASHBOARD_PROVIDER
    files["provisioning/datasources/mageflow.yml"] = provisioning.DATASOURCES
    files["prometheus-local.yml"] = provisioning.prometheus_local()
    files["runbook.md"] = runbook_markdown(rules, BOARDS)
    files["README.md"] = readme_markdown(BOARDS, rules, RECORDINGS, IMAGES)
    return files


def write(target: Path, thresholds: Thresholds | None = None, addresses: Addresses | None = None) -> list[Path]:
    """Write every generated file below a directory, remove boards and rules that are no longer made.

    Gets the paths written, in order.
    """
    files = contents(thresholds, addresses)
    for folder in ("grafana", "rules"):
        for stale in (target / folder).glob("*"):
            if f"{folder}/{stale.name}" not in files:
                stale.unlink()
    written: list[Path] = []
    for name, text in sorted(files.items()):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        written.append(path)
    return written
