"""What is built is what works: the wheel carries every file the package needs, and stands on its own."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return next(directory.glob("*.whl"))


def test_wheel_carries_every_file_of_the_package(root, wheel):
    """Code, scripts for Redis, the typing promise and the dashboards are all in it; tests and examples are not."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(path.relative_to(root))
        for path in (root / "mageflow").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    boards = {f"mageflow/{path.relative_to(root)}" for path in (root / "dashboards").rglob("*.json")}

    assert any(name.endswith(".lua") for name in package)
    assert boards
    assert (package | boards) - inside == set()
    assert [name for name in inside if name.startswith(("tests", "examples", "mageflow/tests"))] == []


def test_wheel_stands_on_its_own(wheel, tmp_path):
    """Away from the checkout the package imports, finds its scripts and its dashboards, and has its entry points."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = """
import importlib.metadata, json, pathlib, sys
import mageflow
from mageflow.dashboards import find_bundle
from mageflow.store.records.declarations import RECORD_SCRIPTS
from mageflow import Mageflow
found = importlib.metadata.distribution("hatchet-mageflow")
print(json.dumps({
    "home": mageflow.__file__,
    "boards": len(find_bundle().boards),
    "scripts": [each.name for each in RECORD_SCRIPTS if each.source],
    "entry_points": sorted(f"{each.group}:{each.name}" for each in found.entry_points),
}))
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert Path(told["home"]).is_relative_to(site)
    assert told["boards"] == 5
    assert {"admit", "settle"} <= set(told["scripts"])
    assert told["entry_points"] == ["console_scripts:mageflow", "console_scripts:mageflow-engine", "pytest11:mageflow"]
