"""Imports go down the floors of the house."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest


def test_imports_go_down_the_floors(root: Path):
    """Every contract of import-linter in pyproject.toml holds."""
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("folder", ["mageflow/dashboards", "dashboards/generator"])
def test_dashboards_need_only_the_names_of_the_signals(root: Path, folder: str):
    """Boards and rules are built from the dictionary of signals, so no other room of the package is imported."""
    allowed = ("mageflow.dashboards", "mageflow.telemetry.names", "mageflow.errors")
    files = sorted((root / folder).rglob("*.py"))
    imported = [
        (path.name, node.module or "")
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
    ]

    assert any(module.startswith("mageflow.telemetry.names") for _, module in imported)
    assert [
        (file, module)
        for file, module in imported
        if module.split(".")[0] == "mageflow" and not module.startswith(allowed)
    ] == []
