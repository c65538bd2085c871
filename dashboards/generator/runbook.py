"""Writes ``dashboards/runbook.md`` from the alerts."""

from collections.abc import Sequence

from dashboards.generator.rules import Alert
from dashboards.generator.spec import BoardSpec

_HEAD = """\
# Runbook

Each alert has one section, and its annotation `runbook_url` links to it. Names in *italics* are panels. The boards are
in Grafana under the tag `mageflow`; metric and label names are in `mageflow.telemetry.names`. Log events are records
of the logger `mageflow` with the field `event`, and their `trace_id` and `span_id` lead to the trace.

| Alert | Severity | Fires after | Board |
| --- | --- | --- | --- |
"""


def runbook_markdown(alerts: Sequence[Alert], boards: Sequence[BoardSpec]) -> str:
    """The runbook: a table of all alerts, then one section per alert."""
    titles = {board.uid: board.short_title for board in boards}
    lines = [_HEAD]
    lines += [f"| [{a.name}](#{a.anchor}) | {a.severity} | {a.wait} | {titles[a.board]} |\n" for a in alerts]
    for alert in alerts:
        lines.append(f"\n## {alert.name}\n\n")
        lines.append(f"{alert.severity}, after {alert.wait}; board {titles[alert.board]} (`{alert.board}`)\n\n")
        lines.append(f"{alert.meaning}\n\n```promql\n{alert.expr}\n```\n\n**Likely causes**\n\n")
        lines += [f"- {cause}\n" for cause in alert.causes]
        lines.append("\n**What to do**\n\n")
        lines += [f"{number}. {step}\n" for number, step in enumerate(alert.steps, start=1)]
    return "".join(lines)
