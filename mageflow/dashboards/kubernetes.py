"""Writes the dashboards and rules as manifests for a cluster with the Prometheus Operator and Grafana's sidecar."""

import json
from collections.abc import Mapping
from pathlib import Path

from mageflow.dashboards.bundle import Bundle
from mageflow.dashboards.objective import with_objective

MATCH_LABELS: Mapping[str, str] = {"mageflow.metrics": "scrape"}
"""The label by which the monitors find pods and Services, unless the caller chooses others."""

GRAFANA_FOLDER = "mageflow"

_POD_MONITOR = """\
# Scrapes the pods that have these labels and a container port called `metrics` (18001 unless MAGEFLOW_METRICS_PORT is
# set). Workers in pods need MAGEFLOW_METRICS_ADDR=0.0.0.0. The job is the pod's label app.kubernetes.io/name.
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: mageflow
{labels}spec:
  jobLabel: app.kubernetes.io/name
  selector:
    matchLabels:
{match}  podMetricsEndpoints:
    - port: metrics
      path: /metrics
      interval: 15s
"""

_SERVICE_MONITOR = """\
# Scrapes the pods behind Services that have these labels and a port called `metrics`, for programs that have a Service
# anyway. Give the labels either to the pods or to their Service: with both, every number would count twice.
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: mageflow
{labels}spec:
  jobLabel: app.kubernetes.io/name
  selector:
    matchLabels:
{match}  endpoints:
    - port: metrics
      path: /metrics
      interval: 15s
"""

_RULES = """\
# The recording rules and alerts of rules/*.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: mageflow
{labels}spec:
  groups:
{groups}"""

_BOARD = """\
# Grafana's sidecar loads it by the label and puts it into the folder (sidecar.dashboards.folderAnnotation).
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
  labels:
    grafana_dashboard: "1"
  annotations:
    grafana_folder: {folder}
data:
  {name}.json: |-
{document}
"""


def kubernetes_manifests(
    bundle: Bundle,
    *,
    objective: str | None = None,
    labels: Mapping[str, str] | None = None,
    match_labels: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The manifests, by file name: PodMonitor, ServiceMonitor, PrometheusRule, and one ConfigMap for each board.

    None has a namespace: ``kubectl apply --namespace`` chooses it. The monitors find pods and Services of that one.

    Args:
        bundle: The files to write as manifests.
        objective: The objective of the error budget alerts, from 0 to 1 in decimal notation; as in the bundle if None.
        labels: Labels of the monitors and the rules, by which a Prometheus selects them (``release`` with Helm).
        match_labels: Labels of the pods or Services to scrape; `MATCH_LABELS` if None.
    """
    own = {"app.kubernetes.io/part-of": "mageflow", **(labels or {})}
    head = "  labels:\n" + _mapping(own, 4)
    match = _mapping(match_labels or MATCH_LABELS, 6)
    files = {
        "podmonitor.yaml": _POD_MONITOR.format(labels=head, match=match),
        "servicemonitor.yaml": _SERVICE_MONITOR.format(labels=head, match=match),
        "prometheusrule.yaml": _RULES.format(labels=head, groups=_groups(bundle.rules, objective)),
    }
    for path in bundle.boards:
        document = _indented(path.read_text(encoding="utf-8"), 4).rstrip("\n")
        files[f"grafana-{path.stem}.yaml"] = _BOARD.format(name=path.stem, folder=GRAFANA_FOLDER, document=document)
    return files


def _groups(rules: tuple[Path, ...], objective: str | None) -> str:
    """The groups of all rule files, below one key. The generator writes them with an indentation of two."""
    found: list[str] = []
    for path in rules:
        text = path.read_text(encoding="utf-8")
        if objective is not None:
            text = with_objective(text, objective)
        found.append(_indented(text.partition("groups:\n")[2], 2))
    return "".join(found)


def _indented(text: str, spaces: int) -> str:
    return "".join(" " * spaces + line if line.strip() else line for line in text.splitlines(keepends=True))


def _mapping(pairs: Mapping[str, str], spaces: int) -> str:
    # A JSON string is a YAML string.
    return "".join(f"{' ' * spaces}{json.dumps(key)}: {json.dumps(value)}\n" for key, value in pairs.items())
