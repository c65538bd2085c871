"""Importing a submodule without running its package's ``__init__``.

Two libraries of the engine load far more at their door than the engine needs: ``hatchet_sdk`` the whole client (1.5 to
2 seconds), ``cel`` a terminal program with prompt-toolkit. While the submodules are imported, a bare package with the
same search path stands in for the real one. It is taken out again right after, so a later import of the real package
in the same process runs as always (and finds the submodules already loaded).
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

from mageflow.distribution import installs


@contextmanager
def bare_package(name: str) -> Generator[None]:
    """Let submodules of a package be imported without its ``__init__``; a package already imported is left as it is.

    Raises:
        ImportError: the package is not installed.
    """
    if name in sys.modules:
        yield
        return
    spec = find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"the local engine needs the package {name!r}: {installs('local')}")
    stand_in = ModuleType(name)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]
