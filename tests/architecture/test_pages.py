"""Every name on the front page and on the pages of docs/ is one the code has."""

import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from mageflow.cli.group import COMMANDS
from mageflow.config import Settings
from mageflow.dashboards.kubernetes import MATCH_LABELS
from mageflow.metadata import OWN_KEYS
from mageflow.telemetry import names
from mageflow.telemetry.names import metrics, traces
from tests.architecture.pages import SETTINGS_PAGE, blocks, pages, with_settings


@pytest.fixture(scope="module")
def front_page(root: Path) -> str:
    """README.md."""
    return (root / "README.md").read_text()


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    """All pages, one after another."""
    return "\n\n".join(pages(root).values())


def in_backticks(page: str) -> list[str]:
    """What stands in backticks outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL))


def resolve(dotted: str) -> object:
    """The object a dotted name stands for: a module, or something in one."""
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return getattr(resolve(module), name)


def test_every_dotted_name_resolves(page):
    """``mageflow.a.b`` on the page is something that can be imported, a signal, or the label of pods."""
    signals = {*traces.ATTRIBUTES, *traces.SPAN_EVENTS, *(event.name for event in names.EVENTS), *MATCH_LABELS}
    dotted = {found.rstrip(".") for found in re.findall(r"\bmageflow(?:\.\w+)+", page)} - signals

    dotted = {name for name in dotted if not name.endswith((".py", ".git"))}
    assert len(dotted) > 3
    for name in dotted:
        assert resolve(name) is not None


def test_every_imported_name_resolves(page):
    """``from mageflow... import x, y`` in a code block works."""
    imports = re.findall(r"^from (mageflow[\w.]*) import ([\w, ]+)$", page, re.MULTILINE)

    assert len(imports) > 3
    for module, imported in imports:
        for name in imported.split(","):
            assert getattr(importlib.import_module(module), name.strip()) is not None


def test_every_metric_on_the_page_exists(page):
    """A metric on the page is in the dictionary; the keys that travel with a run look alike."""
    known = {*(metric.name for metric in metrics.METRICS), *OWN_KEYS}
    named = {word for word in in_backticks(page) if re.fullmatch(r"mageflow_\w+", word)}
    fixtures = {
        word
        for word in named
        if f"def {word}(" in Path(importlib.import_module("mageflow.testing.plugin").__file__).read_text()
    }

    assert len(named - fixtures) > 8
    assert named - fixtures - known == set()


def test_every_fixture_is_on_the_page(page):
    """The plugin's fixtures are all explained."""
    plugin = Path(importlib.import_module("mageflow.testing.plugin").__file__).read_text()
    fixtures = set(re.findall(r"^def (mageflow_\w+)\(", plugin, re.MULTILINE)) - {"mageflow_redis_server"}

    assert len(fixtures) >= 6
    assert [name for name in fixtures if f"| `{name}` |" not in page] == []


def test_every_span_and_event_in_the_table_exists(page):
    """Spans, attributes, log events and their fields of the telemetry table are in the dictionary."""
    section = page.partition("# What the tasks report")[2].partition("\n## ")[0]
    cells = {word for line in section.splitlines() if line.startswith("|") for word in re.findall(r"`([^`]+)`", line)}
    known = {
        *(metric.name for metric in metrics.METRICS),
        *(span.template for span in traces.SPANS),
        *traces.ATTRIBUTES,
        *traces.SPAN_EVENTS,
        *(event.name for event in names.EVENTS),
        *(field for event in names.EVENTS for field in event.fields),
    }

    assert len(cells) > 20
    assert cells - known == set()


def test_every_error_on_the_page_exists(page):
    """An error on the page is one that is raised."""
    errors = {word for word in in_backticks(page) if re.fullmatch(r"\w+Error", word)}

    assert errors
    homes = [importlib.import_module(name) for name in ("mageflow.errors", "mageflow", "hatchet_sdk.exceptions")]
    assert [name for name in errors if not any(hasattr(home, name) for home in homes)] == []


def test_table_of_settings_is_generated_from_the_settings(root):
    """Every setting with its default and meaning; ``python -m tests.architecture.pages`` writes it anew."""
    page = (root / SETTINGS_PAGE).read_text()
    assert with_settings(page, root) == page
    assert all(f"MAGEFLOW_{name.upper()}" in page for name in Settings.model_fields)


def test_commands_on_the_page_exist(page):
    """``mageflow <command>`` on the page is a command."""
    named = set(re.findall(r"(?:`|^|/)mageflow ([a-z]+)", page, re.MULTILINE))

    assert {"demo", "engine", "dashboards"} <= named
    assert named <= set(COMMANDS)


def test_two_commands_are_marked_for_ci(front_page):
    """What `.ci/run` runs is the page's own command."""
    marked = re.findall(r"<!-- command: (\w+) -->\n```sh\n(.*?)\n```", front_page)

    assert [name for name, _ in marked] == ["demo", "test"]
    assert all(command.startswith("python3 -m venv .venv && ") for _, command in marked)
    assert all(len(block.text.splitlines()) == 1 for block in blocks(front_page) if block.language == "sh")


def test_oldest_supported_versions_are_those_of_the_package(page, root):
    """The compatibility table says what pyproject.toml says."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    oldest_sdk = next(re.search(r">=([\d.]+)", each) for each in project["dependencies"] if each.startswith("hatchet"))
    pythons = [each.rpartition(" ")[2] for each in project["classifiers"] if "Python :: 3." in each]

    assert f"| hatchet-sdk | {oldest_sdk.group(1)} and newer 1.x |" in page
    assert f"| Python | {', '.join(pythons)} |" in page


def test_ci_runs_the_command_of_the_page(front_page, root):
    """`.ci/run` is executable, is sound bash, and finds the page's own test command."""
    script = root / ".ci" / "run"
    extraction = next(line for line in script.read_text().splitlines() if line.startswith("command=$("))
    run = subprocess.run(
        ["bash", "-c", f'set -euo pipefail; bash -n .ci/run; {extraction}; printf %s "$command"'],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )

    assert script.stat().st_mode & 0o111
    assert f"<!-- command: test -->\n```sh\n{run.stdout}\n```" in front_page


def test_a_line_of_a_drawing_has_no_semicolon(root):
    """Mermaid ends a statement at a semicolon, so the rest of the line is a syntax error in place of the drawing."""
    drawings = {
        path: re.findall(r"^```mermaid\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
        for path in sorted((root / "docs").rglob("*.md"))
    }
    assert sum(map(len, drawings.values())) > 0
    found = [
        f"{path.name}: {line}" for path, each in drawings.items() for line in "".join(each).splitlines() if ";" in line
    ]

    assert found == []
