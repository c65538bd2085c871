"""Writes ``dashboards/README.md``."""

from collections.abc import Sequence

from dashboards.generator.rules import Alert, Recording
from dashboards.generator.spec import BoardSpec

_README_HEAD = """\
# Dashboards, alerts and the stack

`python -m dashboards.generator` writes these files from `dashboards/generator/` and the names in
`mageflow/telemetry/names/`: edit those, not these files. They are in the wheel; `generator/` and `stack/` are not.

```sh
mageflow dashboards export ./observability        # copy it out
mageflow dashboards check ./observability         # does the copy still match this version?
mageflow dashboards check --prometheus http://127.0.0.1:9090   # which panels have an answer on your Prometheus?
```

| Path | What it is |
| --- | --- |
| `grafana/*.json` | {board_count} dashboards with {panel_count} panels and {query_count} queries |
| `rules/mageflow-recording.yml` | {recording_count} recording rules |
| `rules/mageflow-alerts.yml` | {alert_count} alerts, each with a section in `runbook.md` |
| `provisioning/` | makes Grafana find the boards, a Prometheus with exemplars, and a Tempo |
| `prometheus-local.yml` | a Prometheus without containers, for workers on the same machine |
| `stack/` | what `docker-compose.yml` mounts: Prometheus, Tempo, and the demo worker with its driver |

Nothing is assumed about your installation: datasources, job, instance, task, lock and flow are variables, and no rule
names a job. The boards need Grafana 10 or newer; exemplars need Prometheus with `--enable-feature=exemplar-storage`.

"""

_README_STACK = """\
## With Docker

```sh
docker compose up --build
```

| Address | What appears there |
| --- | --- |
| http://127.0.0.1:3000 | Grafana, no login; folder *mageflow* with the five boards, filled within a minute |
| http://127.0.0.1:9090 | Prometheus; *Status / Targets* has the worker and Hatchet, *Alerts* the rules |
| http://127.0.0.1:8888 | Hatchet with the demo's runs; its own default account is `admin@example.com` / `Admin123!!` |
| http://127.0.0.1:18001/metrics | the worker's own endpoint |

The demo worker runs a driver that makes every outcome happen: successes, retries, failures, timeouts, cancellations,
staggered crowds, signatures, chains, swarms, contended locks and a deadlock now and then. Click a dot on *Duration* or
*Queue wait* to open the trace of that attempt in Tempo. All ports are bound to loopback; the file holds no secret: the
worker's Hatchet token is made at first start and stays in a volume, and Postgres is reachable inside the network only.

There is no log store in the stack: the worker's JSON lines are in `docker compose logs -f worker` and, for what a task
logs itself, in Hatchet; `trace_id` on each line joins them with Tempo. A log store would add two containers and a
collector for the same lines.

Images and tags:

{images}

## Without Docker

With a Prometheus on the machine, two lines fill the same boards (`dashboards/prometheus-local.yml` scrapes
127.0.0.1:18001 to 18032; the rules are loaded too):

```sh
mageflow demo --serve &
prometheus --config.file=dashboards/prometheus-local.yml --enable-feature=exemplar-storage \\
  --storage.tsdb.path=/tmp/mageflow-tsdb
```

Then ask it what the boards would ask: `mageflow dashboards check --prometheus http://127.0.0.1:9090`. For pictures add
a Grafana with this Prometheus as a data source and import `dashboards/grafana/*.json`.

"""


def readme_markdown(
    boards: Sequence[BoardSpec],
    alerts: Sequence[Alert],
    recordings: Sequence[Recording],
    images: Sequence[tuple[str, str]],
) -> str:
    """The bundle's README: how to use it, and every panel with its meaning."""
    panels = [panel for board in boards for section in board.sections for panel in section.panels]
    head = _README_HEAD.format(
        board_count=len(boards),
        panel_count=len(panels),
        query_count=sum(len(panel.queries) for panel in panels),
        recording_count=len(recordings),
        alert_count=len(alerts),
    )
    listed = "\n".join(f"- `{image}`: {purpose}" for image, purpose in images)
    lines = [head, _README_STACK.replace("{images}", listed), "## The boards\n"]
    for board in boards:
        lines.append(f"\n### {board.title.removeprefix('mageflow / ')} (`{board.uid}`)\n\n{board.description}\n")
        for section in board.sections:
            lines.append(f"\n**{section.title}**\n\n")
            lines += [f"- *{panel.title}* [{panel.unit}]: {panel.description}\n" for panel in section.panels]
    return "".join(lines)
