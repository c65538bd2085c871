"""Calls about stored state: signatures and round trips to Redis. Facts only."""

from dataclasses import dataclass
from typing import Literal

from mageflow.types import SignatureKind

__all__ = ["RedisCall", "SignatureLoad", "SignatureWrite"]


@dataclass(slots=True, eq=False)
class SignatureLoad:
    """Reading a signature for a run (and marking it active in the same round trip)."""

    kind: SignatureKind
    signature_id: str
    result: Literal["hit", "missing", "invalid", "error"] = "error"
    """Filled in."""
    size_bytes: int = 0
    """Filled in."""


@dataclass(slots=True, eq=False)
class SignatureWrite:
    """Writing a signature."""

    kind: SignatureKind
    operation: Literal["create", "update", "delete", "touch"]
    signature_id: str
    size_bytes: int = 0
    """Filled in where the whole document is written."""


@dataclass(slots=True, eq=False)
class RedisCall:
    """One round trip to Redis. ``operation`` is the Lua script's file name or the command."""

    operation: str
