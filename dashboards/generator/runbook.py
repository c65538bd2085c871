"""The runbook and the bundle's own README, written from the same data as the rules and boards."""

from collections.abc import Sequence

from dashboards.generator.rules import Alert
from dashboards.generator.spec import BoardSpec

_RUNBOOK_HEAD = """\
# Runbook

One section per alert; `runbook_url` of each alert points to its section. Metric names and labels are in
`mageflow.telemetry.names`, the boards in Grafana under the tag `mageflow`. Log events are records of the logger
`mageflow` with the field `event`; `trace_id` and `span_id` on each of them lead to the trace.

| Alert | Severity | Waits | Board |
| --- | --- | --- | --- |
"""


def runbook_markdown(alerts: Sequence[Alert], boards: Sequence[BoardSpec]) -> str:
    """The runbook: a table of all alerts, then one section each."""
    titles = {board.uid: board.title.removeprefix("mageflow / ") for board in boards}
    lines = [_RUNBOOK_HEAD]
    lines += [f"| [{a.name}](#{a.anchor}) | {a.severity} | {a.wait} | {titles[a.board]} |\n" for a in alerts]
    for alert in alerts:
        lines.append(f"\n## {alert.name}\n\n")
        lines.append(f"*{alert.severity}, for {alert.wait}; board: {titles[alert.board]} (`{alert.board}`)*\n\n")
        lines.append(f"{alert.meaning}\n\n```promql\n{alert.expr}\n```\n\n**Likely causes**\n\n")
        lines += [f"- {cause}\n" for cause in alert.causes]
        lines.append("\n**What to do**\n\n")
        lines += [f"{number}. {step}\n" for number, step in enumerate(alert.steps, start=1)]
    return "".join(lines)
