"""The compose file matches the files it mounts and builds and the README; it has no secret and no open port."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.generator.log_queries import LINE_FIELDS
from dashboards.generator.readme import IMAGES
from dashboards.generator.spec import HATCHET_RUNS
from tests.dashboards.prometheus_server import FEATURES


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text(encoding="utf-8"))


def test_every_mounted_file_exists(compose: dict[str, Any], root: Path) -> None:
    """Docker creates an empty directory for a bind mount whose path is missing, and the service has no files."""
    mounts = [v for s in compose["services"].values() for v in s.get("volumes", []) if v.startswith("./")]
    assert mounts
    for mount in mounts:
        source, _, mode = mount.split(":")
        assert (root / source).exists(), mount
        assert mode == "ro"


def test_named_volumes_and_networks_are_declared(compose: dict[str, Any]) -> None:
    """Every volume, network and service that a service refers to is declared; otherwise Compose rejects the file."""
    for service in compose["services"].values():
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(("./", "/"))}
        assert named <= set(compose["volumes"])
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("depends_on", {})) <= set(compose["services"])


def test_ports_are_bound_to_loopback(compose: dict[str, Any]) -> None:
    """Every port is bound to loopback, so other machines cannot reach the stack."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned_and_documented(compose: dict[str, Any], root: Path) -> None:
    """Every image has a full version, and the README lists exactly these images."""
    images = {service["image"] for service in compose["services"].values() if "build" not in service}
    base = re.search(r"^FROM (\S+)$", (root / "dashboards/stack/Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert images | {base[1]} == {image for image, _ in IMAGES}
    assert all(re.search(r":v?\d+\.\d+", image) for image in images)
    readme = (root / "dashboards/README.md").read_text(encoding="utf-8")
    assert all(f"`{image}`" in readme for image in images)


def test_no_secret_is_in_the_file(compose: dict[str, Any]) -> None:
    """The file contains no password and no token."""
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not re.search(r"PASSWORD|SECRET|TOKEN|KEY", name), name
            assert not re.search(r"://[^/@:]+:[^/@]+@", str(value)), name


def test_services_have_a_health_check(compose: dict[str, Any]) -> None:
    """Every service has a health check, except Tempo, whose image has no HTTP client, and those that end."""
    services = compose["services"]
    without = {name for name, service in services.items() if "healthcheck" not in service}
    ending = {"hatchet-token", "tempo-ready"}
    assert without == {"tempo"} | ending
    assert {name for name, service in services.items() if service["restart"] == "no"} == ending
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if name in ending else "service_healthy"
            assert how["condition"] == ("service_started" if name == "tempo" else wanted)


def test_the_readiness_of_tempo_is_waited_for(compose: dict[str, Any], root: Path, tmp_path: Path) -> None:
    """The command of `tempo-ready` ends when the address answers with 200, and not before."""
    service = compose["services"]["tempo-ready"]
    port = yaml.safe_load((root / "dashboards/stack/tempo.yml").read_text())["server"]["http_listen_port"]
    assert service["image"] == compose["services"]["prometheus"]["image"]  # whose own health check uses wget
    assert compose["services"]["prometheus"]["healthcheck"]["test"][:4] == ["CMD", "wget", "-q", "--spider"]
    [script] = service["command"]
    assert f"http://tempo:{port}/ready" in script
    # wget is not everywhere: the loop runs with one that answers as Tempo does, first 503 and then 200.
    wget = tmp_path / "wget"
    wget.write_text('#!/bin/sh\necho "$@" >> calls\n[ "$(wc -l < calls)" -ge 2 ]\n')
    wget.chmod(0o755)
    run = subprocess.run(
        [*service["entrypoint"], script],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        timeout=200,
        check=False,
    )
    assert run.returncode == 0
    assert (tmp_path / "calls").read_text().splitlines() == [f"-q --spider http://tempo:{port}/ready"] * 2


def test_hatchet_is_named_as_its_cookie_is(compose: dict[str, Any], root: Path) -> None:
    """A login at 127.0.0.1 has no cookie: every page names Hatchet by the cookie's domain."""
    environment = compose["services"]["hatchet"]["environment"]
    assert environment["SERVER_URL"] == f"http://{environment['SERVER_AUTH_COOKIE_DOMAIN']}:8888"
    pages = [root / "docker-compose.yml", root / "README.md", *root.glob("dashboards/*.md"), *root.glob("docs/**/*.md")]
    assert [page.name for page in pages if "http://127.0.0.1:8888" in page.read_text()] == []
    assert any("http://localhost:8888" in page.read_text() for page in pages)


def test_grafana_finds_boards_where_they_are_mounted(compose: dict[str, Any], root: Path) -> None:
    """The provider's path, the home dashboard and the mount are the same."""
    grafana = compose["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    provider = yaml.safe_load((root / "dashboards/provisioning/dashboards/mageflow.yml").read_text())
    (entry,) = provider["providers"]
    assert mounts["./dashboards/grafana"] == entry["options"]["path"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == entry["options"]["path"]
    assert (root / "dashboards/grafana" / home.name).is_file()


def test_datasources_point_to_services_of_the_stack(compose: dict[str, Any], root: Path) -> None:
    """Addresses, the links from exemplars to traces and the scrape interval match the other files."""
    sources = yaml.safe_load((root / "dashboards/provisioning/datasources/mageflow.yml").read_text())["datasources"]
    by_type = {source["type"]: source for source in sources}
    for source in sources:
        host = re.fullmatch(r"http://(\w+):\d+", source["url"])
        assert host is not None
        assert host[1] in compose["services"]
    to_trace = by_type["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert [(each["name"], each["datasourceUid"]) for each in to_trace] == [("trace_id", by_type["tempo"]["uid"])]
    scrape = yaml.safe_load((root / "dashboards/stack/prometheus.yml").read_text())
    assert by_type["prometheus"]["jsonData"]["timeInterval"] == scrape["global"]["scrape_interval"]


def test_prometheus_of_the_stack_keeps_exemplars_and_loads_the_rules(compose: dict[str, Any], root: Path) -> None:
    """Prometheus has its feature flags, and the mounted rules are in its configuration."""
    prometheus = compose["services"]["prometheus"]
    assert FEATURES in prometheus["command"]
    assert any(volume.startswith("./dashboards/rules:/etc/prometheus/rules") for volume in prometheus["volumes"])
    config = yaml.safe_load((root / "dashboards/stack/prometheus.yml").read_text())
    assert config["rule_files"] == ["/etc/prometheus/rules/*.yml"]
    targets = [t for c in config["scrape_configs"] for s in c["static_configs"] for t in s["targets"]]
    assert {target.split(":")[0] for target in targets} - {"localhost"} <= set(compose["services"])


def test_tempo_listens_where_the_worker_sends(compose: dict[str, Any], root: Path) -> None:
    """The worker's OTLP endpoint is a receiver of Tempo, and Tempo's HTTP port is the one Grafana uses."""
    tempo = yaml.safe_load((root / "dashboards/stack/tempo.yml").read_text())
    endpoint = compose["services"]["worker"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert endpoint == "http://tempo:4318"
    assert tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    assert tempo["server"]["http_listen_port"] == 3200


def test_loki_listens_where_the_worker_sends(compose: dict[str, Any], root: Path) -> None:
    """The worker's endpoint for logs, the health check and Grafana's data source have Loki's port; its files may go."""
    loki = yaml.safe_load((root / "dashboards/stack/loki.yml").read_text())
    port = loki["server"]["http_listen_port"]
    worker, service = compose["services"]["worker"], compose["services"]["loki"]
    assert worker["environment"]["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] == f"http://loki:{port}/otlp/v1/logs"
    assert service["healthcheck"]["test"][-1] == f"-health.url=http://localhost:{port}/ready"
    sources = yaml.safe_load((root / "dashboards/provisioning/datasources/mageflow.yml").read_text())["datasources"]
    assert [each["url"] for each in sources if each["type"] == "loki"] == [f"http://loki:{port}"]
    assert [each.split(":")[0] for each in service["tmpfs"]] == [loki["common"]["path_prefix"]]


def test_spans_link_to_logs_and_logs_to_spans_and_runs(root: Path) -> None:
    """Tempo finds the lines of a trace in Loki; a line has a link to its trace and one to its run in Hatchet."""
    sources = yaml.safe_load((root / "dashboards/provisioning/datasources/mageflow.yml").read_text())["datasources"]
    by_type = {source["type"]: source for source in sources}
    to_logs = by_type["tempo"]["jsonData"]["tracesToLogsV2"]
    assert to_logs["datasourceUid"] == by_type["loki"]["uid"]
    assert to_logs["customQuery"] is True
    assert "$${__trace.traceId}" in to_logs["query"]
    links = {each["matcherRegex"]: each for each in by_type["loki"]["jsonData"]["derivedFields"]}
    assert set(links) == {"trace_id", "run_id"} <= LINE_FIELDS
    assert links["trace_id"]["datasourceUid"] == by_type["tempo"]["uid"]
    assert links["run_id"]["url"] == HATCHET_RUNS + "/$${__value.raw}"
    assert all(each["matcherType"] == "label" for each in links.values())


def test_worker_image_copies_only_what_exists(root: Path) -> None:
    """Every COPY source of the Dockerfile exists, and its ignore file does not exclude it."""
    dockerfile = (root / "dashboards/stack/Dockerfile").read_text()
    ignore = (root / "dashboards/stack/Dockerfile.dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (root / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignore


def test_the_environment_of_the_worker_is_one_that_is_read(compose: dict[str, Any]) -> None:
    """Every MAGEFLOW_ variable in the file is a setting."""
    from mageflow.config import Settings

    names = {f"MAGEFLOW_{name.upper()}" for name in Settings.model_fields}
    used = {n for s in compose["services"].values() for n in s.get("environment", {}) if n.startswith("MAGEFLOW_")}
    assert used
    assert used <= names
