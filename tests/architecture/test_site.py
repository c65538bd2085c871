"""The documentation site builds without a warning, and leads to everything that the pages name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mageflow
from mageflow import engine, telemetry
from mageflow.cli.group import COMMANDS
from mageflow.interceptors import __all__ as interceptors

OWN_PAGES = {"mageflow.engine.EngineStartError", "mageflow.telemetry.names"}
"""Public names of a package that are on another page: with the errors, and as tables."""


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `poe docs` builds it: a link or an anchor that leads nowhere ends the build."""
    directory = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", directory],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return directory


def ids(site: Path, page: str) -> set[str]:
    """The anchors of a page."""
    return set(re.findall(r' id="([^"]+)"', (site / page / "index.html").read_text()))


def test_front_page_is_the_readme(site):
    """The links of README.md lead to pages of the site, and its picture is there."""
    page = (site / "index.html").read_text()

    assert "Your first task" in page
    assert 'href="tutorial/"' in page
    assert "docs/tutorial" not in page
    for picture in re.findall(r'<img [^>]*src="([^"]+)"', page):
        assert (site / picture).exists(), picture
    assert 'src="pictures/live-view-overview.svg"' in page


def test_every_file_outside_of_docs_that_a_page_links_to_is_a_page(site):
    """An example is shown with its code, and a page of the repository has its own links mended too."""
    assert "fastapi_sender.py/" in (site / "repository/examples/index.html").read_text()
    assert "place_order" in (site / "repository/examples/fastapi_sender.py/index.html").read_text()
    assert 'href="../../decisions/"' in (site / "repository/CONTRIBUTING/index.html").read_text()


def test_every_public_name_is_in_the_reference(site):
    """What `mageflow` and `mageflow.interceptors` export is explained, with its methods."""
    names = ids(site, "reference/api")

    assert {f"mageflow.{name}" for name in mageflow.__all__} - {"mageflow.HatchetMageflow"} <= names  # another name
    assert {"mageflow.Mageflow.stagger_execution", "mageflow.Mageflow.chain"} <= names
    assert {f"mageflow.interceptors.{name}" for name in interceptors} <= ids(site, "reference/interceptors")
    for module in (engine, telemetry):
        page = f"reference/{module.__name__.rpartition('.')[2]}"
        assert {f"{module.__name__}.{name}" for name in module.__all__} - OWN_PAGES <= ids(site, page)


def test_every_command_is_in_the_reference(site):
    """With what it prints for --help."""
    page = (site / "reference/commands/index.html").read_text()

    assert {f"mageflow-{name}" for name in COMMANDS} <= ids(site, "reference/commands")
    assert "mageflow engine --redis" in page
