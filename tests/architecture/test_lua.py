"""Decisions are Lua files: each is declared, and its header matches its declaration."""

import importlib
import pkgutil
from pathlib import Path

import pytest

from mageflow import store
from mageflow.store.redis.scripts import Script


def declared() -> dict[str, Script]:
    """Every script that a module of the store declares, by the name of its file."""
    found: dict[str, Script] = {}
    for module in pkgutil.walk_packages(store.__path__, "mageflow.store."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Script):
                found[value.name] = value
    return found


def test_every_file_is_declared_and_every_declaration_has_a_file(root: Path):
    """No script is unused and none is missing; ``lib_*`` files are parts of others."""
    files = {path.stem for path in (root / "mageflow" / "store" / "lua").glob("*.lua")}

    assert len(declared()) > 10
    assert set(declared()) == {name for name in files if not name.startswith("lib_")}


@pytest.mark.parametrize("name", sorted(declared()))
def test_header_says_what_the_declaration_says(name: str):
    """Keys and arguments in the header are those the caller gives; a mismatch is an error when the source is read."""
    assert declared()[name].source


def test_no_lua_stands_in_python(root: Path):
    """Scripts are files with a header, never strings; a test's own tool may be one."""
    allowed = {"mageflow/testing/valkey.py"}
    inline = [
        str(path.relative_to(root))
        for path in (root / "mageflow").rglob("*.py")
        if "redis.call(" in path.read_text() and str(path.relative_to(root)) not in allowed
    ]

    assert inline == []
