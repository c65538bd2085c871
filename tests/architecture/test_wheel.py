"""The wheel carries every file the package needs and works without the checkout it was built from."""

import ast
import email.parser
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mageflow.dashboards import differences, find_bundle
from mageflow.dashboards.bundle import CONTENTS

DEVELOPMENT_ONLY = {"build", "grafana_foundation_sdk", "grpc_tools", "hatchling", "hypothesis", "importlinter"}
"""Modules of the extra ``test``: a user who runs ``pip install hatchet-mageflow`` does not have them."""


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a wheel or an sdist of a source tree into a directory."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory) -> Path:
    """The wheel of this checkout."""
    return build("wheel", root, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory) -> Path:
    """A directory with the files of the wheel, as pip would install them."""
    directory = tmp_path_factory.mktemp("site")
    shutil.unpack_archive(wheel, directory, "zip")
    return directory


def run_installed(site: Path, program: str) -> str:
    """Run a program outside the checkout that imports mageflow from ``site``, and return its output."""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_wheel_carries_every_file_of_the_package(root: Path, wheel: Path):
    """Code, Lua scripts and the ``py.typed`` marker are in the wheel; tests and examples are not."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(path.relative_to(root))
        for path in (root / "mageflow").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert any(name.endswith(".lua") for name in package)
    assert "mageflow/py.typed" in package
    assert package - inside == set()
    assert {name.split("/")[0] for name in inside if ".dist-info/" not in name} == {"mageflow"}


def test_wheel_carries_the_dashboards_and_not_their_generator(root: Path, site: Path):
    """Boards, rules, runbook and provisioning are in the wheel unchanged; generator and compose stack are not."""
    carried = site / "mageflow/dashboards/bundle"
    kinds = {path.relative_to(carried).parts[0] for path in carried.rglob("*") if path.is_file()}

    assert kinds == set(CONTENTS)
    assert len(list(carried.glob("grafana/*.json"))) == 5
    assert differences(find_bundle(), carried) == []
    assert {path.name for path in (root / "dashboards").iterdir()} - kinds == {"generator", "stack"}
    folders = {path.name for path in (site / "mageflow/dashboards").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == {"bundle"}


def test_wheel_imports_no_development_dependency(site: Path):
    """No file in the wheel imports the generator or a module that only the extra ``test`` installs."""
    imported = {
        (name.split(".")[0], path.name)
        for path in site.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and node.level == 0
            else []
        )
    }

    assert {module for module, _ in imported} >= {"mageflow", "redis", "click"}
    forbidden = {*DEVELOPMENT_ONLY, "dashboards", "tests"}
    assert [(module, file) for module, file in imported if module in forbidden] == []


def test_wheel_works_without_the_checkout(site: Path):
    """Outside the checkout the package imports, finds its Lua scripts and dashboards, and has its entry points."""
    program = """
import importlib.metadata, json, pathlib, sys
import mageflow
from mageflow.dashboards import find_bundle
from mageflow.store.records.declarations import RECORD_SCRIPTS
from mageflow import Mageflow
found = importlib.metadata.distribution("hatchet-mageflow")
print(json.dumps({
    "home": mageflow.__file__,
    "bundle": str(find_bundle().root),
    "boards": len(find_bundle().boards),
    "scripts": [each.name for each in RECORD_SCRIPTS if each.source],
    "entry_points": sorted(f"{each.group}:{each.name}" for each in found.entry_points),
}))
"""
    found = json.loads(run_installed(site, program))

    assert Path(found["home"]).is_relative_to(site)
    assert Path(found["bundle"]).is_relative_to(site)
    assert found["boards"] == 5
    assert {"admit", "settle"} <= set(found["scripts"])
    assert found["entry_points"] == ["console_scripts:mageflow", "console_scripts:mageflow-engine", "pytest11:mageflow"]


def test_installed_command_exports_the_dashboards(site: Path, tmp_path: Path):
    """``mageflow dashboards export`` writes the same files from a wheel as from the checkout, without Grafana's SDK."""
    program = (
        "import sys; sys.modules['grafana_foundation_sdk'] = None\n"
        "from mageflow.cli.dashboards import dashboards\n"
        f"dashboards(['export', {str(tmp_path / 'out')!r}])"
    )
    run_installed(site, program)

    assert differences(find_bundle(), tmp_path / "out") == []
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(CONTENTS)


def test_sdist_builds_the_same_wheel(root: Path, wheel: Path, tmp_path: Path):
    """The sdist holds all that the wheel is built from."""
    (tmp_path / "sdist").mkdir()
    shutil.unpack_archive(build("sdist", root, tmp_path / "sdist"), tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    (tmp_path / "wheel").mkdir()
    rebuilt = build("wheel", source, tmp_path / "wheel")

    assert set(zipfile.ZipFile(rebuilt).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_long_description_has_no_relative_link_or_picture(root: Path, site: Path):
    """An index page shows README.md without the files beside it: each link is its text and the path of its file."""
    (found,) = site.glob("hatchet_mageflow-*.dist-info/METADATA")
    metadata = email.parser.HeaderParser().parsestr(found.read_text())
    shown = metadata.get_payload()
    readme = (root / "README.md").read_text()
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)\s#]+)", readme)

    assert metadata["Description-Content-Type"] == "text/markdown"
    assert isinstance(shown, str)
    assert re.findall(r"\]\((?!https://)[^)]*\)", shown) == []
    assert re.findall(r"<(?:img|a)\b|^\[[^\]]+\]:", shown, re.MULTILINE) == []
    assert {target for picture, target in links if picture} == {"docs/pictures/live-view-overview.svg"}
    for picture, target in links:
        assert (target if target.startswith("https://") else f"(`{target}`)") in shown or picture
    outside = [line for line in readme.splitlines() if "](" not in line]
    assert [line for line in outside if line not in shown.splitlines()] == []
