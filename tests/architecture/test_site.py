"""The documentation site builds without a warning, and leads to everything that the pages name."""

import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mageflow
from mageflow import engine, errors, telemetry
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
    for module in (engine, errors, telemetry):
        page = f"reference/{module.__name__.rpartition('.')[2]}"
        assert {f"{module.__name__}.{name}" for name in module.__all__} - OWN_PAGES <= ids(site, page)


def named_types(annotation: object) -> Iterator[type]:
    """The classes of mageflow in an annotation, also in its parts."""
    if isinstance(annotation, type) and annotation.__module__.startswith("mageflow"):
        yield annotation
    for part in typing.get_args(annotation):
        yield from named_types(part)


def methods(owner: type) -> Iterator[Callable[..., Any]]:
    """The methods and properties of a public class that mageflow defines."""
    for name, member in inspect.getmembers(owner):
        function = inspect.unwrap(member.fget if isinstance(member, property) else member)
        own = inspect.isfunction(function) and function.__module__.startswith("mageflow")
        if own and not name.startswith("_"):
            yield function


def test_what_a_public_call_returns_is_in_the_reference(site):
    """Its class is on one of the pages. A method that only parts of the package call is on none."""
    pages = set().union(*(ids(site, f"reference/{name}") for name in ("api", "errors", "interceptors", "telemetry")))
    classes = [each for name in mageflow.__all__ if isinstance(each := getattr(mageflow, name), type)]
    shown = [
        (owner, method)
        for owner in classes
        for method in methods(owner)
        if {f"mageflow.{owner.__name__}.{method.__name__}"} & pages
    ]
    returned = {found for _, method in shown for found in named_types(typing.get_type_hints(method).get("return"))}

    assert len(shown) > 80
    assert "mageflow.SwarmSignature.add" in pages
    assert {each.__name__ for each in returned} >= {"FoundSignature", "FailedItem", "LockBlock"}
    assert [each for each in returned if not any(page.endswith(f".{each.__name__}") for page in pages)] == []
    assert not {f"mageflow.{owner.__name__}.bind" for owner in classes} & pages


def test_every_command_is_in_the_reference(site):
    """With what it prints for --help."""
    page = (site / "reference/commands/index.html").read_text()

    assert {f"mageflow-{name}" for name in COMMANDS} <= ids(site, "reference/commands")
    assert "mageflow engine --redis" in page
