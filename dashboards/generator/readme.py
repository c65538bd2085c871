"""Writes ``dashboards/README.md``: how to use the files, how to change them, and what each panel shows."""

from collections.abc import Sequence

from dashboards.generator.rules import Alert, Recording
from dashboards.generator.spec import BoardSpec

IMAGES: tuple[tuple[str, str], ...] = (
    ("ghcr.io/hatchet-dev/hatchet/hatchet-lite:v0.104.7", "Hatchet: API, dashboard and gRPC in one container"),
    ("postgres:16.6-alpine", "Hatchet's database and message queue"),
    ("valkey/valkey:8.1.10-alpine", "mageflow's state: signatures, flows, locks"),
    ("prom/prometheus:v3.14.0", "scrapes the worker and Hatchet, stores exemplars, evaluates the rules"),
    ("grafana/tempo:2.9.5", "receives the spans by OTLP"),
    ("grafana/loki:3.7.8", "receives the log lines by OTLP"),
    ("grafana/grafana:11.6.14", "shows the boards"),
    ("python:3.12-slim-bookworm", "base of the demo worker's image (`dashboards/stack/Dockerfile`)"),
)
"""The images of ``docker-compose.yml`` and what each is for."""

_UNITS = {"short": "count", "ops": "per second", "percentunit": "%", "s": "seconds", "bytes": "bytes"}

_HEAD = """\
# Dashboards, alerts and runbook

Grafana dashboards and Prometheus rules for mageflow workers. The package contains them:

```sh
mageflow dashboards export ./observability        # write the files below into a directory
mageflow dashboards export ./observability --slo 99.5 --kubernetes   # another objective; manifests for a cluster
mageflow dashboards check ./observability         # is that copy the same as in the installed version?
mageflow dashboards check --prometheus http://127.0.0.1:9090   # which panels get data from your Prometheus?
```

| Path | Content |
| --- | --- |
| `grafana/*.json` | {board_count} dashboards with {panel_count} panels and {query_count} queries |
| `rules/mageflow-recording.yml` | {recording_count} recording rules |
| `rules/mageflow-alerts.yml` | {alert_count} alerts |
| `runbook.md` | one section per alert: what it means, likely causes, what to do |
| `provisioning/` | Grafana provisioning: the boards, a Prometheus with exemplars, a Tempo, a Loki |
| `prometheus-local.yml` | a Prometheus without containers, for workers on the same machine |

The repository has two more folders here: `generator/` writes the files above, and `stack/` has the files that
`docker-compose.yml` mounts.

The files assume nothing about your installation: data sources, job, instance, task, lock and flow are variables, and
no rule selects a job name. The boards need Grafana 10 or newer.

## Logs

Panels with *needs Loki* read the JSON lines of `mageflow.telemetry.configure`. Send them by OTLP, with
`OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=http://loki:3100/otlp/v1/logs`, or let an agent read standard error. The queries look
at fields of the lines, so the labels that your agent sets do not matter; Loki 3 adds the label `service_name`, by which
they select. Without a Loki these panels alone are empty. *Runs in Hatchet* on the lock board is the address of the runs
of your tenant: `https://HATCHET/tenants/TENANT/runs`.

Start Prometheus with `--enable-feature=exemplar-storage,created-timestamp-zero-ingestion` (in Kubernetes:
`enableFeatures` of the `Prometheus` resource). The first feature keeps exemplars. With the second one (Prometheus 3) a
counter that appears with the value 1 has a 0 before it, so `rate` and `increase` in queries of your own count the first
event. Queries of the boards and alerts count it with or without.

The boards show counts per interval where things are rare. A panel says *no runs* where there is nothing to divide.

"""

_SETTINGS = """\
## Alerts

Failing tasks alert by error budget: *MageflowErrorBudgetBurn* (critical) if the budget of a month would last five days
or less, *MageflowErrorBudgetBurnSlow* (warning) if it would not last the month. Each compares a long and a short
window, and leaves out tasks with fewer than 12 attempts or 3 failures in the long one: one failure of a rare task is no
incident. The objective is 99 % of the settled attempts of each task. `export --slo PERCENT` (90 or more, below 100)
changes it: one number, the recording rule `mageflow:task_objective:ratio`. Other thresholds are options of the
generator.

A critical alert is meant to page. None fires on a failed scrape, a restart, a deploy, a clean scale-in or contended
locks. *MageflowWorkerUnreachable* relies on discovery, which removes a worker that was stopped: Kubernetes, or the
files of `MAGEFLOW_METRICS_SD_DIR`. Give a fixed list of targets the label `discovery: fixed`, as
`prometheus-local.yml` does; the alert leaves those out.

`python -m tests.dashboards.alerts_live` in a checkout causes the incident of every alert with real workers, in a real
Prometheus with shortened windows. `--incident deadlocks` causes one of them; `--help` has the names.

## Kubernetes

`export --kubernetes` writes `kubernetes/` for a cluster with the Prometheus Operator and Grafana's sidecar:

| File | What it does |
| --- | --- |
| `podmonitor.yaml` | scrapes pods with the label `mageflow.metrics: scrape` and a port called `metrics` |
| `servicemonitor.yaml` | the same for Services; label either the pods or the Service, or numbers count twice |
| `prometheusrule.yaml` | the rules |
| `grafana-*.yaml` | one ConfigMap per board, with `grafana_dashboard: "1"` and the folder `mageflow` |

```sh
mageflow dashboards export ./observability --kubernetes --label release=kube-prometheus-stack
kubectl apply --server-side --namespace payments -f observability/kubernetes/
```

Apply them in the namespace of the workers, and let Grafana's sidecar search all namespaces. `--label` adds the labels
by which your Prometheus selects monitors and rules; `--match-label` replaces the label of the pods. Pods need
`MAGEFLOW_METRICS_ADDR=0.0.0.0`.

"""

_DEMO = """\
## Demo with Docker

In a checkout of the repository:

```sh
docker compose up --build
```

| Address | What you see |
| --- | --- |
| http://localhost:3000 | Grafana, no login; the boards are in the folder *mageflow* and have data within a minute |
| http://localhost:9090 | Prometheus; *Status / Targets* lists the worker and Hatchet, *Alerts* the rules |
| http://localhost:8888 | Hatchet, under this name alone (of its cookie); account `admin@example.com` / `Admin123!!` |
| http://localhost:18001/metrics | the worker's metrics endpoint |

The demo worker produces every outcome: successes, retries, failures, timeouts, cancellations, staggered tasks,
signatures, chains, swarms, lock contention and sometimes a deadlock. Click a dot on *Duration* or *Queue wait* to open
the trace of that attempt in Tempo. All ports are bound to loopback. The file contains no secret: the worker's Hatchet
token is created at the first start and stays in a volume, and only the internal network can reach Postgres.

The worker sends its JSON log lines to Loki by OTLP, and prints them (`docker compose logs -f worker`). The boards of
tasks, flows and locks show them. A line links to its trace and to its run in Hatchet, a span to the lines of its trace,
and each deadlock to its trace, its runs and their logs. `python -m tests.dashboards.logs_live` in a checkout sends the
lines of a real worker to a Loki and runs every log query of the boards.

`docker compose up --wait` ends when every service is ready, Tempo too: its image has no client for a health check, so
the service `tempo-ready` looks at its `/ready` from outside.

Images and tags:

{images}

How the tags were checked: the Go module proxy has the sources of `hatchet-dev/hatchet` at `v0.104.7` and of
`prometheus/prometheus` at `v0.314.0`, which is its name for 3.14.0. The other tags were not checked against a registry
here. `docker compose pull` does that. The file is checked against the schema of the Compose specification.

## Demo without Docker

If Prometheus is installed on your machine, two commands fill the same boards. `prometheus-local.yml` scrapes
127.0.0.1:18001 to 18032 and loads the rules:

```sh
mageflow demo --serve &
prometheus --config.file=dashboards/prometheus-local.yml --storage.tsdb.path=/tmp/mageflow-tsdb \\
  --enable-feature=exemplar-storage,created-timestamp-zero-ingestion
```

`mageflow dashboards check --prometheus http://127.0.0.1:9090` then lists which panels get data. To see the boards,
add this Prometheus to a Grafana as a data source and import `grafana/*.json`.

## What was checked against Grafana

No test runs a Grafana: it is in no package index. What stands in for it: Grafana's published library of board types
(`grafana-foundation-sdk`, generated from its schemas) reads every committed board, and no field may get lost, but eight
that a test lists with the reason. The rules of Grafana's dashboard linter are a test each. Every query runs in a real
Prometheus, those of log panels in a real Loki (`python -m tests.dashboards.logs_live --loki PATH`). The pictures in
`docs/boards` are drawn by libraries of Grafana 11.6 with data of a real Prometheus. Not checked: the import itself, the
links between data sources, and the panels of Tempo and Loki as Grafana draws them.

## Change a board

Do not edit the files in the table above, nor this page: they are generated. The text of this page is in
`generator/readme.py`. In a checkout, change the generator and run

```sh
python -m dashboards.generator
```

A test fails if the committed files differ from what the generator writes. The generator refuses a query that names a
metric, label or label value that is not in `mageflow/telemetry/names/metrics.py`. The section *Add a metric* of the
repository's CONTRIBUTING says how a metric gets there.

A new panel:

1. `dashboards/generator/boards/`: add a panel (`stat`, `lines`, `heat` or `table`) to a section of a board.
   `generator/queries.py` lists the macros for job, instance, task, lock and flow, and has functions for usual queries:
   `counts` for a counter by labels (bars), `rate_of_active` where much happens all the time, `quantile` and `mean` for
   a histogram.
2. Make room. A row has 24 columns, and panels that share a row have one height. A `stat` is 4 wide, every other panel
   12. Give the new panel and its neighbours another `width`, for example 8 each. A gap in a
   row is found by `test_board_regeneration.py`, not by the generator.
3. Run the generator. Its table of files counts the panels.
4. `tests/dashboards/test_live_boards.py` demands data in every panel. If nothing in `tests/dashboards/live_run.py`
   causes the event, cause it there. If the panel of a counter stays empty although the event occurred, its series began
   at 1: `rate` and `increase` do not see the first step. Query it with `counts`, `recent` or `in_range`.

A new alert: add it to the module of its subject in `dashboards/generator/alerts/`, with its runbook texts; add the
incident it fires on and the healthy state it stays quiet in to `tests/dashboards/alert_cases.py`; run the generator.

```sh
pytest tests/dashboards/test_board_regeneration.py tests/dashboards/test_board_legibility.py    # seconds; run it first
pytest tests/dashboards --ignore tests/dashboards/test_live_boards.py    # two minutes
pytest tests/dashboards/test_live_boards.py    # three workers and a real Prometheus: two minutes; run it alone
```

"""


def readme_markdown(boards: Sequence[BoardSpec], alerts: Sequence[Alert], recordings: Sequence[Recording]) -> str:
    """The README."""
    panels = [panel for board in boards for section in board.sections for panel in section.panels]
    head = _HEAD.format(
        board_count=len(boards),
        panel_count=len(panels),
        query_count=sum(len(panel.queries) for panel in panels),
        recording_count=len(recordings),
        alert_count=len(alerts),
    )
    images = "\n".join(f"- `{image}`: {purpose}" for image, purpose in IMAGES)
    lines = [head, _SETTINGS, _DEMO.replace("{images}", images), "## The boards\n"]
    for board in boards:
        lines.append(f"\n### {board.short_title} (`{board.uid}`)\n\n{board.description}\n")
        for section in board.sections:
            lines.append(f"\n**{section.title}**\n\n")
            lines += [f"- *{panel.title}* ({_UNITS[panel.unit]}): {panel.description}\n" for panel in section.panels]
    return "".join(lines)
