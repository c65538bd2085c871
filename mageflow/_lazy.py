"""Doors that open on first use: a room's public names without the libraries behind them (PEP 562).

``import mageflow`` must cost nothing, so that the local engine starts in well under a second and a pytest plugin is
free until it is used. This module imports nothing of mageflow.
"""

from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["lazy_names"]


def lazy_names(
    module: dict[str, object], homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """A module's ``__getattr__`` and ``__dir__``, for names that live elsewhere.

    Args:
        module: The ``globals()`` of the module; a name is put there when it is first asked for.
        homes: By name, the module it is imported from.
    """

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
        value: object = getattr(import_module(homes[name]), name)
        module[name] = value
        return value

    def names() -> list[str]:
        return sorted({*module, *homes})

    return get, names
