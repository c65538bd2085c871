"""mageflow: an observability-first client for Hatchet.

This is the only door users need. Names are resolved on first use (PEP 562), so that ``import mageflow`` alone loads
neither the SDK nor Redis, and the local engine starts in well under a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mageflow.client import HatchetMageflow, Mageflow
    from mageflow.config import Settings
    from mageflow.signatures import TaskSignature
    from mageflow.types import AcceptParams

__all__ = ["AcceptParams", "HatchetMageflow", "Mageflow", "Settings", "TaskSignature"]

_HOMES = {
    "AcceptParams": "mageflow.types",
    "HatchetMageflow": "mageflow.client",
    "Mageflow": "mageflow.client",
    "Settings": "mageflow.config",
    "TaskSignature": "mageflow.signatures",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
