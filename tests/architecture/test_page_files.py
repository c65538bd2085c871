"""Configuration on the pages: YAML fits the schema of its kind, JSON starts what it names, queries are PromQL."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mageflow.cli.group import COMMANDS
from mageflow.config import Settings
from mageflow.dashboards.kubernetes import MATCH_LABELS
from mageflow.telemetry.names.metrics import METRICS
from tests.architecture.pages import all_pages, blocks
from tests.dashboards.test_alert_rules import needs_promtool
from tests.dashboards.test_kubernetes_manifests import HEAD, LABELS, META, NAME, PORT, TEXT, violations

PAGES = all_pages(Path(__file__).parents[2])
NUMBER = re.compile(r"\d+")
ANYTHING = re.compile(r"(?s).*")
ENV = {
    "name": re.compile(r"[A-Z][A-Z0-9_]*"),
    "value?": ANYTHING,
    "valueFrom?": {
        "secretKeyRef?": {"name": NAME, "key": TEXT},
        "fieldRef?": {"fieldPath": TEXT},
    },
}
PROBE = {"httpGet": {"path": re.compile(r"/.*"), "port": PORT}, "periodSeconds?": NUMBER}
CONTAINER = {
    "name": NAME, "image": TEXT, "command?": [TEXT], "env?": [ENV], "livenessProbe?": PROBE,
    "ports?": [{"name": PORT, "containerPort": NUMBER}],
}  # fmt: skip
POD = {"terminationGracePeriodSeconds?": NUMBER, "containers": [CONTAINER]}
SCHEMAS: dict[str, Any] = {
    "Deployment": {
        **HEAD, "metadata": META,
        "spec": {
            "replicas?": NUMBER, "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": POD},
        },
    },
    "ScaledObject": {
        **HEAD, "metadata": META,
        "spec": {
            "scaleTargetRef": {"name": NAME}, "minReplicaCount?": NUMBER, "maxReplicaCount?": NUMBER,
            "cooldownPeriod?": NUMBER, "fallback?": {"failureThreshold": NUMBER, "replicas": NUMBER},
            "triggers": [{"type": TEXT, "metadata": {TEXT: TEXT}}],
        },
    },
    "env": {"env": [ENV]},
}  # fmt: skip
"""The fields of Kubernetes (apps/v1) and KEDA (keda.sh/v1alpha1), as far as the pages use them, and no others."""


def texts(value: Any) -> Any:
    """Numbers as texts, for the patterns. A number where Kubernetes wants a text stays, so that it is found."""
    if isinstance(value, dict):
        return {key: each if key in ("value", "threshold") else texts(each) for key, each in value.items()}
    if isinstance(value, list):
        return [texts(each) for each in value]
    return str(value) if type(value) is int else value


def found(language: str) -> list[tuple[str, str]]:
    """The blocks of a language, each with its page."""
    return [(page, block.text) for page, text in PAGES.items() for block in blocks(text) if block.language == language]


def test_yaml_fits_its_schema(tmp_path: Path) -> None:
    """Manifests have the fields of their kind and no others; a configuration of Prometheus is one."""
    manifests = [(page, yaml.safe_load(text)) for page, text in found("yaml")]
    kinds = [document.get("kind", next(iter(document))) for _, document in manifests]
    assert sorted(kinds) == ["Deployment", "ScaledObject", "env", "scrape_configs"]
    for (page, document), kind in zip(manifests, kinds, strict=True):
        if kind in SCHEMAS:
            assert violations(texts(document), SCHEMAS[kind], page) == []


def test_a_wrong_manifest_is_found() -> None:
    """A misspelt field, a number for a text, and a field at the wrong level."""
    [text] = [text for _, text in found("yaml") if "kind: Deployment" in text]
    for right, wrong in (
        ("terminationGracePeriodSeconds", "terminationGracePeriod"),
        ('value: "20"', "value: 20"),
        ("livenessProbe: { httpGet", "livenessProbe: { httpget"),
    ):
        assert right in text
        assert violations(texts(yaml.safe_load(text.replace(right, wrong))), SCHEMAS["Deployment"], "x") != []


def test_the_deployment_selects_its_pods_and_sets_what_exists() -> None:
    """The selectors of the Deployment and of the exported PodMonitor find the pods; the probe names a port.

    Each variable of mageflow is a setting.
    """
    [document] = [yaml.safe_load(text) for _, text in found("yaml") if "kind: Deployment" in text]
    template = document["spec"]["template"]
    [container] = template["spec"]["containers"]
    labels = template["metadata"]["labels"].items()
    assert document["spec"]["selector"]["matchLabels"].items() <= labels
    assert MATCH_LABELS.items() <= labels
    assert container["livenessProbe"]["httpGet"]["port"] in {port["name"] for port in container["ports"]}
    names = {each["name"] for each in container["env"]} - {"HATCHET_CLIENT_TOKEN"}
    assert names <= {f"MAGEFLOW_{name.upper()}" for name in Settings.model_fields}


def test_the_scaler_asks_for_a_metric_that_exists() -> None:
    """The query of KEDA names a metric of the dictionary."""
    [document] = [yaml.safe_load(text) for _, text in found("yaml") if "kind: ScaledObject" in text]
    [trigger] = document["spec"]["triggers"]
    assert set(re.findall(r"mageflow_\w+", trigger["metadata"]["query"])) <= {metric.name for metric in METRICS}


@needs_promtool
def test_the_scrape_configuration_is_one_of_prometheus(tmp_path: Path) -> None:
    """Prometheus's own tool accepts it."""
    [text] = [text for _, text in found("yaml") if "scrape_configs" in text]
    path = tmp_path / "prometheus.yml"
    path.write_text(text)
    done = subprocess.run(
        [str(shutil.which("promtool")), "check", "config", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_queries_are_those_that_prometheus_takes(tmp_path: Path) -> None:
    """Every query of the runbook parses, as the expression of a rule."""
    queries = [text for _, text in found("promql")]
    assert len(queries) > 20
    path = tmp_path / "rules.yml"
    rules = [{"record": f"page:query:{number}", "expr": query} for number, query in enumerate(queries)]
    path.write_text(json.dumps({"groups": [{"name": "pages", "rules": rules}]}))
    done = subprocess.run(
        [str(shutil.which("promtool")), "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", found("json"), ids=lambda case: case[0])
def test_json_parses_and_names_what_exists(case: tuple[str, str]) -> None:
    """A configuration of a client starts a command of ours, with variables that are settings."""
    document = json.loads(case[1])
    for servers in (document.get("mcpServers", {}), document.get("servers", {})):
        for server in servers.values():
            assert server["command"] == "mageflow"
            assert server["args"][0] in COMMANDS
            assert set(server["env"]) <= {f"MAGEFLOW_{name.upper()}" for name in Settings.model_fields}
