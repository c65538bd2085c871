"""The files that make Grafana find the boards and Prometheus find the workers."""

DASHBOARD_PROVIDER = """\
# Grafana looks here for the boards: mount this file under /etc/grafana/provisioning/dashboards/ and the folder
# grafana/ of this bundle under /var/lib/grafana/dashboards/mageflow (or change the path below).
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
# Data sources for Grafana: mount under /etc/grafana/provisioning/datasources/. The boards ask for a Prometheus and a
# Tempo and take any: what this file adds is the way from an exemplar to its trace and back. Change the addresses to
# yours; timeInterval must be the scrape interval, from which Grafana computes $__rate_interval.
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
      # Said, so that variables ask for the values of one label instead of for whole series.
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
"""

PROMETHEUS_LOCAL = """\
# A Prometheus on the same machine as the workers, without containers:
#
#   mageflow demo --serve
#   prometheus --config.file=prometheus-local.yml --enable-feature=exemplar-storage \\
#     --storage.tsdb.path=/tmp/mageflow-tsdb
#
# then http://127.0.0.1:9090/targets, or a Grafana that has this Prometheus as a data source.
global:
  scrape_interval: 5s
  evaluation_interval: 15s
rule_files:
  - rules/*.yml
scrape_configs:
  - job_name: mageflow
    # Workers take the lowest free port from 18001 up and keep it over a restart. Ports nobody listens on show as down
    # targets, which no alert minds: MageflowWorkerUnreachable asks whether a worker was ever seen there.
    static_configs:
      - targets:
{targets}
  # With MAGEFLOW_METRICS_SD_DIR=/run/mageflow workers announce themselves instead; then use this in place of the above.
  # - job_name: mageflow
  #   file_sd_configs:
  #     - files: [/run/mageflow/*.json]
"""


def prometheus_local(first: int = 18001, count: int = 32) -> str:
    """The configuration of a local Prometheus that scrapes the port ladder of this machine's workers."""
    targets = "\n".join(f"          - 127.0.0.1:{port}" for port in range(first, first + count))
    return PROMETHEUS_LOCAL.replace("{targets}", targets)
