"""The compose file fits what it mounts, builds and documents; it has no secret and no open port."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.generator.readme import IMAGES


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text(encoding="utf-8"))


def test_every_mounted_file_exists(compose: dict[str, Any], root: Path) -> None:
    """A bind mount of a path that is missing becomes an empty directory, and the service starts with nothing."""
    mounts = [v for s in compose["services"].values() for v in s.get("volumes", []) if v.startswith("./")]
    assert mounts
    for mount in mounts:
        source, _, mode = mount.split(":")
        assert (root / source).exists(), mount
        assert mode == "ro"


def test_named_volumes_and_networks_are_declared(compose: dict[str, Any]) -> None:
    """Compose refuses a file that uses what it does not declare."""
    for service in compose["services"].values():
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if not volume.startswith(("./", "/"))}
        assert named <= set(compose["volumes"])
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("depends_on", {})) <= set(compose["services"])


def test_ports_are_bound_to_loopback(compose: dict[str, Any]) -> None:
    """Nothing in the stack is meant for the network the machine is in."""
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_images_are_pinned_and_documented(compose: dict[str, Any], root: Path) -> None:
    """Every image has a full version, and is in the list of the README; the list has nothing else."""
    images = {service["image"] for service in compose["services"].values() if "build" not in service}
    base = re.search(r"^FROM (\S+)$", (root / "dashboards/stack/Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert images | {base[1]} == {image for image, _ in IMAGES}
    assert all(re.search(r":v?\d+\.\d+", image) for image in images)
    readme = (root / "dashboards/README.md").read_text(encoding="utf-8")
    assert all(f"`{image}`" in readme for image in images)


def test_no_secret_is_in_the_file(compose: dict[str, Any]) -> None:
    """Neither a password nor a token is written down, not even an example."""
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not re.search(r"PASSWORD|SECRET|TOKEN|KEY", name), name
            assert not re.search(r"://[^/@:]+:[^/@]+@", str(value)), name


def test_everything_that_can_be_asked_has_a_health_check(compose: dict[str, Any]) -> None:
    """Whoever is waited for as healthy has a check; only Tempo, whose image has no client, and one-shots do without."""
    without = {name for name, service in compose["services"].items() if "healthcheck" not in service}
    assert without == {"tempo", "hatchet-token"}
    for service in compose["services"].values():
        for name, how in service.get("depends_on", {}).items():
            assert (how["condition"] == "service_healthy") == (name not in without)


def test_grafana_finds_boards_where_they_are_mounted(compose: dict[str, Any], root: Path) -> None:
    """The provider's path, the home dashboard and the mount agree."""
    grafana = compose["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    provider = yaml.safe_load((root / "dashboards/provisioning/dashboards/mageflow.yml").read_text())
    (entry,) = provider["providers"]
    assert mounts["./dashboards/grafana"] == entry["options"]["path"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == entry["options"]["path"]
    assert (root / "dashboards/grafana" / home.name).is_file()


def test_datasources_point_to_services_of_the_stack(compose: dict[str, Any], root: Path) -> None:
    """Addresses, the way from exemplars to traces, and the scrape interval agree with the other files."""
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
    """Without the feature flag exemplars are dropped; without the mount the alerts are."""
    prometheus = compose["services"]["prometheus"]
    assert "--enable-feature=exemplar-storage" in prometheus["command"]
    assert any(volume.startswith("./dashboards/rules:/etc/prometheus/rules") for volume in prometheus["volumes"])
    config = yaml.safe_load((root / "dashboards/stack/prometheus.yml").read_text())
    assert config["rule_files"] == ["/etc/prometheus/rules/*.yml"]
    targets = [t for c in config["scrape_configs"] for s in c["static_configs"] for t in s["targets"]]
    assert {target.split(":")[0] for target in targets} - {"localhost"} <= set(compose["services"])


def test_tempo_listens_where_the_worker_sends(compose: dict[str, Any], root: Path) -> None:
    """The worker's OTLP endpoint is a receiver of Tempo, and Grafana asks Tempo where it serves."""
    tempo = yaml.safe_load((root / "dashboards/stack/tempo.yml").read_text())
    endpoint = compose["services"]["worker"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert endpoint == "http://tempo:4318"
    assert tempo["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    assert tempo["server"]["http_listen_port"] == 3200


def test_worker_image_copies_only_what_exists(root: Path) -> None:
    """Every COPY source of the Dockerfile is there, and not hidden by its ignore file."""
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
