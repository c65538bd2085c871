"""Public names of a package that are imported on first use (PEP 562).

``import mageflow`` alone loads no library, so that the local engine starts in well under a second and the pytest plugin
costs nothing until a test uses it. A room that a worker without Redis does not use is lazy too: code that such a worker
runs imports the room (``from mageflow import locks``) and names what it uses of it (``locks.LockService(...)``).
This module imports nothing of mageflow.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

__all__ = ["lazy_names"]


def lazy_names(
    module: dict[str, object], homes: Mapping[str, Sequence[str]], moved: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a module, for names that other modules define.

    Args:
        module: The ``globals()`` of the module. A name is stored there at its first use.
        homes: For each module, the names that it defines.
        moved: For names that another program of this import name has, the line to write instead. Python drops the text
            of an ``AttributeError`` when ``from ... import`` meets one, so these raise an ``ImportError``.
    """
    modules = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> object:
        if moved and name in moved:
            raise ImportError(f"{module['__name__']}.{name} is not a function of a module here: write {moved[name]}")
        if name not in modules:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}")
        try:
            home = import_module(modules[name])
        except AttributeError as error:  # ``from ... import`` would take it for an absent name, and drop its text
            raise ImportError(f"{modules[name]} cannot be loaded: {error}") from error
        value: object = getattr(home, name)
        module[name] = value
        return value

    def names() -> list[str]:
        return sorted({*module, *modules})

    return get, names
