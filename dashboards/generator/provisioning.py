"""Configuration files: where Grafana finds boards and data sources, and where Prometheus finds workers."""

from dashboards.generator.spec import HATCHET_RUNS

DASHBOARD_PROVIDER = """\
# Shows Grafana where the boards are. Mount this file under /etc/grafana/provisioning/dashboards/ and the folder
# grafana/ under /var/lib/grafana/dashboards/mageflow, or change the path below.
apiVersion: 1
providers:
  - name: mageflow
    folder: mageflow
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 60
    options:
      path: /var/lib/grafana/dashboards/mageflow
"""

DATASOURCES = """\
# Data sources for Grafana. Mount this file under /etc/grafana/provisioning/datasources/ and change the addresses to
# yours. The boards work with any Prometheus, Tempo and Loki; this file also links exemplars to traces, spans to metrics
# and logs, and log lines to their trace and their run in Hatchet.
# timeInterval must be your scrape interval: Grafana computes $__rate_interval from it.
apiVersion: 1
datasources:
  - name: mageflow Prometheus
    uid: mageflow-prometheus
    type: prometheus
    access: proxy
    url: http://prometheus:9090
    isDefault: true
    editable: false
    jsonData:
      httpMethod: POST
      timeInterval: 5s
      # Type and version let Grafana request the values of one label for a variable instead of whole series.
      prometheusType: Prometheus
      prometheusVersion: 2.50.1
      exemplarTraceIdDestinations:
        - name: trace_id
          datasourceUid: mageflow-tempo
          urlDisplayLabel: Open trace
  - name: mageflow Tempo
    uid: mageflow-tempo
    type: tempo
    access: proxy
    url: http://tempo:3200
    editable: false
    jsonData:
      nodeGraph:
        enabled: true
      tracesToMetrics:
        datasourceUid: mageflow-prometheus
        spanStartTimeShift: -5m
        spanEndTimeShift: 5m
        tags:
          - key: messaging.destination.name
            value: task
        queries:
          - name: Duration p95 of this task
            query: histogram_quantile(0.95, sum by (le) (rate(mageflow_task_run_duration_seconds_bucket{$$__tags}[5m])))
          - name: Runs of this task by outcome
            query: sum by (outcome) (rate(mageflow_task_runs_total{$$__tags}[5m]))
      tracesToLogsV2:
        datasourceUid: mageflow-loki
        spanStartTimeShift: -5m
        spanEndTimeShift: 5m
        customQuery: true
        query: '{service_name=~".+"} |= `$${__trace.traceId}` | json'
  - name: mageflow Loki
    uid: mageflow-loki
    type: loki
    access: proxy
    url: http://loki:3100
    editable: false
    jsonData:
      maxLines: 1000
      derivedFields:
        - name: trace
          matcherType: label
          matcherRegex: trace_id
          url: $${__value.raw}
          urlDisplayLabel: Open trace
          datasourceUid: mageflow-tempo
        - name: run
          matcherType: label
          matcherRegex: run_id
          url: HATCHET_RUNS/$${__value.raw}
          urlDisplayLabel: Open run in Hatchet
""".replace("HATCHET_RUNS", HATCHET_RUNS)

PROMETHEUS_LOCAL = """\
# Configuration of a Prometheus on the same machine as the workers, without containers:
#
#   mageflow demo --serve
#   prometheus --config.file=prometheus-local.yml --storage.tsdb.path=/tmp/mageflow-tsdb \\
#     --enable-feature=exemplar-storage,created-timestamp-zero-ingestion
#
# Then open http://127.0.0.1:9090/targets, or add this Prometheus to a Grafana as a data source.
global:
  scrape_interval: 5s
  evaluation_interval: 15s
rule_files:
  - rules/*.yml
scrape_configs:
  - job_name: mageflow
    # A worker takes the lowest free port from 18001 up and keeps it over a restart. Unused ports are shown as targets
    # that are down. A fixed list also has stopped workers: with this label,
    # MageflowWorkerUnreachable leaves its targets out.
    static_configs:
      - labels: {discovery: fixed}
        targets:
{targets}
  # If you set MAGEFLOW_METRICS_SD_DIR=/run/mageflow, workers write their address there. Then use this instead:
  # - job_name: mageflow
  #   file_sd_configs:
  #     - files: [/run/mageflow/*.json]
"""


def prometheus_local(first: int = 18001, count: int = 32) -> str:
    """The configuration of a local Prometheus that scrapes the ports that workers on this machine use."""
    targets = "\n".join(f"          - 127.0.0.1:{port}" for port in range(first, first + count))
    return PROMETHEUS_LOCAL.replace("{targets}", targets)
