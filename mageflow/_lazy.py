"""Public names of a package that are imported on first use (PEP 562).

``import mageflow`` alone loads no library, so that the local engine starts in well under a second and the pytest plugin
costs nothing until a test uses it. This module imports nothing of mageflow.
"""

from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazy_names"]


def lazy_names(
    module: dict[str, object], homes: Mapping[str, str], moved: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a module, for names that other modules define.

    Args:
        module: The ``globals()`` of the module. A name is stored there at its first use.
        homes: For each name, the module that defines it.
        moved: For names that another program of this import name has, the line to write instead. Python drops the text
            of an ``AttributeError`` when ``from ... import`` meets one, so these raise an ``ImportError``.
    """

    def get(name: str) -> object:
        if moved and name in moved:
            raise ImportError(f"{module['__name__']}.{name} is not a function of a module here: write {moved[name]}")
        if name not in homes:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
        value: object = getattr(import_module(homes[name]), name)
        module[name] = value
        return value

    def names() -> list[str]:
        return sorted({*module, *homes})

    return get, names
