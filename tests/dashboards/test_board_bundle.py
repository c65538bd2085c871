"""The boards come out of a checkout and out of a wheel, and the command says what is wrong with them."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from mageflow.cli.dashboards import dashboards
from mageflow.dashboards import Bundle, differences, export, find_bundle

ESSENTIAL = {
    "README.md",
    "runbook.md",
    "prometheus-local.yml",
    "rules/mageflow-alerts.yml",
    "rules/mageflow-recording.yml",
    "provisioning/dashboards/mageflow.yml",
    "provisioning/datasources/mageflow.yml",
    *(f"grafana/mageflow-{board}.json" for board in ("overview", "task", "stagger", "locks", "flows")),
}


def test_export_copies_everything_and_nothing_else(tmp_path: Path) -> None:
    """What is exported is the bundle, byte for byte; a file beside it is left alone."""
    (tmp_path / "mine.txt").write_text("kept")
    written = export(find_bundle(), tmp_path)
    assert {str(path) for path in written} >= ESSENTIAL
    assert differences(find_bundle(), tmp_path) == []
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_export_command_reports_what_it_did(tmp_path: Path) -> None:
    """The directory is made, and the answer names where to start."""
    done = CliRunner().invoke(dashboards, ["export", str(tmp_path / "new" / "place")])
    assert done.exit_code == 0, done.output
    assert "README.md" in done.output
    assert (tmp_path / "new" / "place" / "runbook.md").is_file()


def test_check_command_finds_a_changed_and_a_missing_file(tmp_path: Path) -> None:
    """A copy that was edited or is incomplete fails the check, by name."""
    export(find_bundle(), tmp_path)
    runner = CliRunner()
    assert runner.invoke(dashboards, ["check", str(tmp_path)]).exit_code == 0
    (tmp_path / "runbook.md").write_text("edited")
    (tmp_path / "grafana/mageflow-task.json").unlink()
    done = runner.invoke(dashboards, ["check", str(tmp_path)])
    assert done.exit_code == 1
    assert "runbook.md differs" in done.output
    assert "grafana/mageflow-task.json is missing" in done.output


def test_check_command_finds_a_wrong_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that names a metric this version does not have fails the check, with board and panel."""
    export(find_bundle(), tmp_path)
    path = tmp_path / "grafana/mageflow-task.json"
    path.write_text(path.read_text().replace("mageflow_task_timeout_seconds{", "mageflow_task_limit_seconds{"))
    monkeypatch.setattr("mageflow.dashboards.find_bundle", lambda: Bundle(tmp_path))
    done = CliRunner().invoke(dashboards, ["check"])
    assert done.exit_code == 1
    assert "mageflow-task / Timeout set: mageflow_task_limit_seconds is no metric of mageflow" in done.output


def test_check_command_says_when_prometheus_cannot_be_asked() -> None:
    """A wrong address is one clear line, not one for each of the queries and no traceback."""
    done = CliRunner().invoke(dashboards, ["check", "--prometheus", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    (said,) = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert "http://127.0.0.1:9/api/v1/query could not be asked" in said
    assert done.output.count("could not be asked") == 1


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_wheel_carries_the_boards_and_exports_them(tmp_path: Path, root: Path) -> None:
    """Built and unpacked, the package finds its boards inside itself, without the development dependency."""
    pytest.importorskip("build", reason="the package build is not installed")
    pytest.importorskip("hatchling", reason="the package hatchling is not installed")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    done = subprocess.run(build, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shipped = {str(p.relative_to(site / "mageflow/dashboards")) for p in (site / "mageflow/dashboards").rglob("*")}
    assert shipped >= ESSENTIAL

    program = (
        "import sys; sys.modules['grafana_foundation_sdk'] = None\n"
        "import mageflow, pathlib\n"
        f"assert pathlib.Path(mageflow.__file__).is_relative_to({str(site)!r}), mageflow.__file__\n"
        "from mageflow.cli.dashboards import dashboards\n"
        f"dashboards(['export', {str(tmp_path / 'out')!r}])"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, timeout=60, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "out/grafana/mageflow-task.json").read_text())["uid"] == "mageflow-task"
    assert differences(find_bundle(), tmp_path / "out") == []
