"""Types that every module of the engine uses, and the form of an id."""

from __future__ import annotations

from typing import Any, TypeAlias
from uuid import uuid4

Json: TypeAlias = Any
JsonObject: TypeAlias = dict[str, Any]


def new_id() -> str:
    """Return a new UUID as text, the form of every id in the protocol."""
    return str(uuid4())
