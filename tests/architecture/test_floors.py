"""Imports go down the floors of the package, and never in a circle."""

import ast
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import grimp
import pytest


@pytest.fixture(scope="module")
def contracts(root: Path) -> list[dict[str, Any]]:
    """The contracts of import-linter."""
    return tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


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


def test_every_package_is_on_a_floor(root: Path, contracts: list[dict[str, Any]]):
    """A new package has a floor from its first commit. The engine has a contract of its own."""
    floors = next(each["layers"] for each in contracts if each["name"] == "imports go down the floors")
    placed = {name.strip() for floor in floors for name in floor.split("|")}
    found = {
        f"mageflow.{path.stem}"
        for path in (root / "mageflow").iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }

    assert found - placed == {"mageflow.engine", "mageflow.__main__"} & found
    assert placed - found == set()


def test_the_contract_against_circles_has_no_exception(contracts: list[dict[str, Any]]):
    """Packages and modules beside each other import in one direction only, in every package."""
    (contract,) = (each for each in contracts if each["type"] == "acyclic_siblings")

    assert contract["ancestors"] == ["mageflow"]
    assert set(contract) == {"name", "type", "ancestors"}


def test_no_module_is_in_a_circle():
    """Imports that only type checkers see count too: a circle of types hides who needs whom."""
    graph = grimp.build_graph("mageflow", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) & graph.modules for module in graph.modules}

    assert len(imports) > 200
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


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
