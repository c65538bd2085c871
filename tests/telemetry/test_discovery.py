"""Service discovery files: one per worker, none for the dead."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mageflow.telemetry.discovery import ServiceDirectory


def entry(path: Path) -> dict:
    return json.loads(path.read_text())[0]


def publish_elsewhere(directory: Path, port: int, worker: str) -> None:
    """Have another process write an entry and die without taking it back."""
    program = (
        "import sys; from pathlib import Path; from mageflow.telemetry.discovery import ServiceDirectory; "
        "ServiceDirectory(Path(sys.argv[1]), host='here').publish('127.0.0.1', int(sys.argv[2]), sys.argv[3])"
    )
    subprocess.run([sys.executable, "-c", program, str(directory), str(port), worker], check=True)


def test_an_entry_names_the_target_and_nothing_that_becomes_a_series(tmp_path: Path):
    """All labels are ``__meta_``: they vanish after relabelling."""
    path = ServiceDirectory(tmp_path / "new", host="here").publish("127.0.0.1", 18001, "mailer")

    assert path.name == "mageflow-here-18001.json"
    assert entry(path)["targets"] == ["127.0.0.1:18001"]
    assert entry(path)["labels"]["__meta_mageflow_worker"] == "mailer"
    assert entry(path)["labels"]["__meta_mageflow_pid"] == str(os.getpid())
    assert all(label.startswith("__meta_mageflow_") for label in entry(path)["labels"])
    assert [each.name for each in path.parent.iterdir()] == [path.name], "nothing unfinished is left"


@pytest.mark.parametrize(("address", "target"), [("0.0.0.0", "here:1"), ("::", "here:1"), ("::1", "[::1]:1")])  # noqa: S104
def test_a_target_can_be_reached(tmp_path: Path, address: str, target: str):
    """Bound to every address, the host's name is what others can use."""
    assert entry(ServiceDirectory(tmp_path, host="here").publish(address, 1, "w"))["targets"] == [target]


def test_entries_of_dead_processes_of_this_host_are_removed(tmp_path: Path):
    """And their ports are returned; entries of running workers and other hosts, and foreign files, stay."""
    mine = ServiceDirectory(tmp_path, host="here").publish("127.0.0.1", 18001, "alive")
    elsewhere = ServiceDirectory(tmp_path, host="there").publish("10.0.0.1", 18001, "alive")
    foreign = tmp_path / "mageflow-here-oddity.json"
    foreign.write_text("[]")
    publish_elsewhere(tmp_path, 18007, "mailer")

    assert ServiceDirectory(tmp_path, host="here").prune() == {"mailer": [18007]}
    assert sorted(tmp_path.iterdir()) == sorted([mine, elsewhere, foreign])


def test_a_process_id_that_was_given_away_is_not_the_worker(tmp_path: Path):
    """The kernel's start time differs for two processes with the same number."""
    path = ServiceDirectory(tmp_path, host="here").publish("127.0.0.1", 18001, "w")
    document = json.loads(path.read_text())
    if not document[0]["labels"]["__meta_mageflow_started"]:
        pytest.skip("no /proc here")
    document[0]["labels"]["__meta_mageflow_started"] = "1"
    path.write_text(json.dumps(document))

    assert ServiceDirectory(tmp_path, host="here").prune() == {"w": [18001]}


def test_a_worker_takes_back_its_own_entry_only(tmp_path: Path):
    """Where another took the port over, its entry stays."""
    directory = ServiceDirectory(tmp_path, host="here")
    path = directory.publish("127.0.0.1", 18001, "w")
    publish_elsewhere(tmp_path, 18001, "heir")
    directory.withdraw()

    assert entry(path)["labels"]["__meta_mageflow_worker"] == "heir"
    again = ServiceDirectory(tmp_path, host="here")
    again.publish("127.0.0.1", 18001, "w")
    again.withdraw()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_accepts_the_entries(tmp_path: Path):
    """As a file_sd file of a real configuration."""
    ServiceDirectory(tmp_path, host="here").publish("127.0.0.1", 18001, "w")
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text("scrape_configs:\n- job_name: workers\n  file_sd_configs:\n  - files: ['*.json']\n")
    run = subprocess.run(
        ["promtool", "check", "config", str(configuration)], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stdout + run.stderr
