"""The public surface is a decision: it changes here and in CHANGELOG.md, or not at all."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import mageflow

SURFACE = {
    "mageflow": [
        "AcceptParams",
        "ChainSignature",
        "HatchetMageflow",
        "Interceptor",
        "Lease",
        "Mageflow",
        "Resource",
        "ReturnValue",
        "Settings",
        "Status",
        "SwarmConfig",
        "SwarmSignature",
        "TaskError",
        "TaskSignature",
    ],
    "mageflow.testing": [
        "EmbeddedValkey",
        "Leftovers",
        "LogCapture",
        "RunningWorker",
        "Samples",
        "SpanCapture",
        "StaggerControl",
        "StartedRun",
        "StartedRuns",
        "WorkerProcess",
        "capture_logs",
        "capture_spans",
        "control_stagger",
        "running_worker",
        "samples",
    ],
    "mageflow.cli": ["main"],
}


def public_modules() -> list[str]:
    """Every module of the package that declares an ``__all__``."""
    names = [found.name for found in pkgutil.walk_packages(mageflow.__path__, "mageflow.")]
    return [name for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize("room", SURFACE)
def test_public_surface_is_the_frozen_list(room: str):
    """Each package exports exactly the names listed above."""
    assert importlib.import_module(room).__all__ == SURFACE[room]


@pytest.mark.parametrize("room", SURFACE)
def test_every_public_name_resolves(room: str):
    """Each name in ``__all__`` resolves, also if it is imported on first use."""
    module = importlib.import_module(room)

    assert [name for name in module.__all__ if getattr(module, name, None) is None] == []
    assert set(module.__all__) <= set(dir(module))


def test_every_all_is_sorted(root: Path):
    """An ``__all__`` is sorted, so that a change to it is one line."""
    unsorted = []
    for path in (root / "mageflow").rglob("*.py"):
        found = re.search(r"^__all__ = \[(.*?)\]", path.read_text(), re.DOTALL | re.MULTILINE)
        names = re.findall(r'"(\w+)"', found.group(1)) if found else []
        # Constants first, then classes, then functions: ruff's RUF022, the field's isort-style order.
        key = [(0 if name.isupper() else 1 if name[0].isupper() else 2, name) for name in names]
        if key != sorted(key):
            unsorted.append(str(path.relative_to(root)))

    assert unsorted == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    """A lazy module answers like any module."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mageflow.nothing  # noqa: B018 - the access is the point


def test_changelog_mentions_every_public_name(root: Path):
    """CHANGELOG.md mentions every name that can be imported from ``mageflow``."""
    changelog = (root / "CHANGELOG.md").read_text()

    assert [name for name in mageflow.__all__ if f"`{name}`" not in changelog] == []
