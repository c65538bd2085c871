"""The table of what mageflow costs: one command measures it, and the page is written from it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as benchmarks


def test_an_idle_worker_is_measured(root: Path, tmp_path: Path) -> None:
    """One real part of the table, with stored numbers beside it."""
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    scripts = "idle worker, nothing stored: scripts a minute"
    before.write_text(json.dumps({scripts: 66}))
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "idle"]
    files = ["--before", str(before), "--json", str(after)]

    done = subprocess.run([*command, *files], cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert f"| {scripts} | 66.0 | 30.0 |" in done.stdout.splitlines()
    assert json.loads(after.read_text())[scripts] == 30


def test_the_page_is_written_between_its_marks(tmp_path: Path) -> None:
    """The text around the table stays."""
    page = tmp_path / "performance.md"
    page.write_text(benchmarks.PAGE.read_text())
    content = benchmarks.table([("bulk run over bare: CPU", "", 1.063), ("free lock", "µs", 1450.2)], {})

    benchmarks.write(page, content)

    assert "| bulk run over bare: CPU | 1.06 |\n| free lock | 1,450 µs |\n" in page.read_text()
    for text in ("# What it costs\n", "## Idle workers\n"):
        assert page.read_text().count(text) == benchmarks.PAGE.read_text().count(text) == 1
    benchmarks.write(page, content)
    assert page.read_text().count(content) == 1


@pytest.mark.parametrize(("value", "unit", "shown"), [(None, "µs", ""), (0.5, "%", "0.50 %"), (12.34, "", "12.3")])
def test_numbers_have_three_digits(value: float | None, unit: str, shown: str) -> None:
    """What was not measured before is an empty cell."""
    assert benchmarks.text(value, unit) == shown
