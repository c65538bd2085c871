"""No file in the tree depends on one machine."""

import re
import subprocess
from pathlib import Path

import pytest

# Spelled in pieces, so that this file does not find itself.
MACHINE = re.compile(
    "|".join(
        [
            r"(?<![\w.])/" + r"work/(?!flow)",
            r"/tm" + r"p/venv",
            r"(?<![\w.-])/" + r"root/",
            r"(?<![\w.-])/" + r"home/\w",
            r"/" + r"Users/\w",
            r"pythonhosted" + r"\.org",
            r"pypi\.org/" + r"simple",
            r"https?://[A-Za-z0-9.-]+/[^ \"]*\.(?:whl|tar\.gz|tgz)" + r"\b",
            r"--index" + r"-url",
        ]
    )
)
BINARY = {".png", ".gif", ".ico", ".rdb"}


def tracked(root: Path) -> list[Path]:
    """Every file under version control."""
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    return [root / name for name in listed.split("\0") if name and (root / name).is_file()]


def test_no_machine_path_or_registry_host_is_in_the_tree(root: Path):
    """Another machine has other paths and another package index."""
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in tracked(root)
        if path.suffix not in BINARY
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE.search(line)
    ]

    assert found == []


def test_version_stands_in_one_place(root: Path):
    """The version is in pyproject.toml and nowhere in the code."""
    import tomllib

    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    stated = [path for path in (root / "mageflow").rglob("*.py") if f'"{version}"' in path.read_text()]

    assert stated == []


def test_every_lint_exception_states_its_rule(root: Path):
    """A bare ``noqa`` or ``type: ignore`` hides new errors too; each names its rule."""
    bare = re.compile(r"#\s*(noqa(?!:)|type:\s*ignore(?!\[)|pyright:\s*ignore(?!\[))")
    found = [
        f"{path.relative_to(root)}:{number}"
        for folder in ("mageflow", "dashboards", "tests", "examples")
        for path in (root / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if bare.search(line) and path.name != Path(__file__).name
    ]

    assert found == []
