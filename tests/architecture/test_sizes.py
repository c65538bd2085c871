"""A file is small enough to be read in one go."""

import ast
from pathlib import Path

LIMIT = 500
VAGUE = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}


def python_files(root: Path) -> list[Path]:
    """Every Python file of the project."""
    return [
        path
        for folder in ("mageflow", "dashboards", "tests", "examples")
        for path in (root / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    ]


def test_no_file_is_longer_than_500_lines(root: Path):
    """A file over 500 lines holds more than one behaviour and is split."""
    sizes = {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in python_files(root)}

    assert len(sizes) > 20
    assert {name: size for name, size in sizes.items() if size > LIMIT} == {}


def test_no_file_is_called_after_nothing(root: Path):
    """A module is named after what it owns."""
    assert [path for path in python_files(root) if path.stem.strip("_") in VAGUE] == []


def test_every_module_says_what_it_owns(root: Path):
    """Every module of the package and of the dashboards' generator that holds code has a docstring."""
    silent = [
        str(path.relative_to(root))
        for folder in ("mageflow", "dashboards")
        for path in (root / folder).rglob("*.py")
        if (tree := ast.parse(path.read_text())).body and ast.get_docstring(tree) is None
    ]

    assert silent == []
