"""Import a submodule without running the ``__init__`` of its package.

``cel`` loads far more in its ``__init__`` than the engine needs: a terminal program with prompt-toolkit. While its
submodule is imported, an empty package with the same search path replaces the real one. It is removed afterwards, so a
later import of the real package in the same process works as usual and finds the submodule already loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

from mageflow.distribution import installs


@contextmanager
def without_package_init(name: str) -> Generator[None]:
    """Let submodules of a package be imported without its ``__init__``. A package already imported stays as it is.

    Raises:
        ImportError: the package is not installed.
    """
    if name in sys.modules:
        yield
        return
    spec = find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"the local engine needs the package {name!r}: {installs('local')}")
    replacement = ModuleType(name)
    replacement.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = replacement
    try:
        yield
    finally:
        del sys.modules[name]
