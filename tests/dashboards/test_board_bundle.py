"""``mageflow dashboards export`` and ``check``. That both work from a wheel: ``tests/architecture/test_wheel.py``."""

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
    """The exported files are equal to the bundle byte by byte; other files are not touched."""
    (tmp_path / "mine.txt").write_text("kept")
    written = export(find_bundle(), tmp_path)
    assert {str(path) for path in written} >= ESSENTIAL
    assert differences(find_bundle(), tmp_path) == []
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_export_command_reports_what_it_did(tmp_path: Path) -> None:
    """The directory is created, and the output names the file to start with."""
    done = CliRunner().invoke(dashboards, ["export", str(tmp_path / "new" / "place")])
    assert done.exit_code == 0, done.output
    assert "README.md" in done.output
    assert (tmp_path / "new" / "place" / "runbook.md").is_file()


def test_check_command_finds_a_changed_and_a_missing_file(tmp_path: Path) -> None:
    """The check fails for a copy that was edited or is incomplete, and names the files."""
    export(find_bundle(), tmp_path)
    runner = CliRunner()
    assert runner.invoke(dashboards, ["check", str(tmp_path)]).exit_code == 0
    (tmp_path / "runbook.md").write_text("edited")
    (tmp_path / "grafana/mageflow-task.json").unlink()
    done = runner.invoke(dashboards, ["check", str(tmp_path)])
    assert done.exit_code == 1
    assert "runbook.md differs" in done.output
    assert "grafana/mageflow-task.json is missing" in done.output
    assert f"mageflow dashboards export {tmp_path}\n" in done.output


def test_check_command_finds_a_wrong_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails for a board with an unknown metric, and names board and panel."""
    export(find_bundle(), tmp_path)
    path = tmp_path / "grafana/mageflow-task.json"
    path.write_text(path.read_text().replace("mageflow_task_timeout_seconds{", "mageflow_task_limit_seconds{"))
    monkeypatch.setattr("mageflow.dashboards.find_bundle", lambda: Bundle(tmp_path))
    done = CliRunner().invoke(dashboards, ["check"])
    assert done.exit_code == 1
    assert "mageflow-task / Configured timeout: mageflow_task_limit_seconds is not a metric of mageflow" in done.output


def test_check_command_reports_an_unreachable_prometheus_once() -> None:
    """A wrong address gives one clear line, not one per query and no traceback."""
    done = CliRunner().invoke(dashboards, ["check", "--prometheus", "http://127.0.0.1:9"])
    assert done.exit_code == 1
    (line,) = [each for each in done.output.splitlines() if each.startswith("Error: ")]
    assert "http://127.0.0.1:9/api/v1/query could not be queried" in line
    assert done.output.count("could not be queried") == 1
