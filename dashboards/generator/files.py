"""Builds every generated file. The same source gives the same bytes."""

from collections.abc import Mapping
from pathlib import Path

from dashboards.generator import provisioning
from dashboards.generator.alerts import alerts
from dashboards.generator.boards import BOARDS
from dashboards.generator.readme import readme_markdown
from dashboards.generator.recordings import RECORDINGS, recording_groups
from dashboards.generator.render.board import render
from dashboards.generator.rules import Addresses, Thresholds, alerts_yaml, recording_yaml
from dashboards.generator.runbook import runbook_markdown
from mageflow.dashboards.vocabulary import find_problems


def contents(thresholds: Thresholds | None = None, addresses: Addresses | None = None) -> Mapping[str, str]:
    """The text of every generated file, by its path below ``dashboards/``.

    Raises:
        ValueError: A query names a metric, label or label value that is not in `mageflow.telemetry.names`.
    """
    rules = alerts(thresholds)
    recorded = {rule.record: frozenset({*rule.labels, "job"}) for rule in RECORDINGS}
    for name, expr in [(a.name, a.expr) for a in rules] + [(r.record, r.expr) for r in RECORDINGS]:
        problems = find_problems(expr, recorded)
        if problems:
            raise ValueError(f"{name}: " + "; ".join(problems))
    files = {f"grafana/{board.uid}.json": render(board) for board in BOARDS}
    files["rules/mageflow-recording.yml"] = recording_yaml(recording_groups(thresholds or Thresholds()))
    files["rules/mageflow-alerts.yml"] = alerts_yaml(rules, addresses)
    files["provisioning/dashboards/mageflow.yml"] = provisioning.DASHBOARD_PROVIDER
    files["provisioning/datasources/mageflow.yml"] = provisioning.DATASOURCES
    files["prometheus-local.yml"] = provisioning.prometheus_local()
    files["runbook.md"] = runbook_markdown(rules, BOARDS)
    files["README.md"] = readme_markdown(BOARDS, rules, RECORDINGS)
    return files


def write(target: Path, thresholds: Thresholds | None = None, addresses: Addresses | None = None) -> list[Path]:
    """Write every generated file below a directory and get their paths, sorted.

    Boards and rule files that are no longer generated are deleted.
    """
    files = contents(thresholds, addresses)
    for folder in ("grafana", "rules"):
        for found in (target / folder).glob("*"):
            if f"{folder}/{found.name}" not in files:
                found.unlink()
    written: list[Path] = []
    for name, text in sorted(files.items()):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        written.append(path)
    return written
