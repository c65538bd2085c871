"""Calls about stored state: signatures and round trips to Redis. Facts only."""

from dataclasses import dataclass
from typing import Literal

from mageflow.interceptors.events import Event
from mageflow.types import SignatureKind

__all__ = ["DamageFound", "RedisCall", "SignatureLoad", "SignatureWrite"]


@dataclass(slots=True, eq=False)
class SignatureLoad:
    """The load of a signature: by the client, or for a run that is admitted in the same round trip."""

    kind: SignatureKind
    signature_id: str
    """Id of the signature; for a member of a flow, of the flow."""
    result: Literal["hit", "missing", "invalid", "error"] = "error"
    """Filled in. ``invalid``: what is stored does not validate."""
    size_bytes: int = 0
    """Filled in: size of the stored definition."""


@dataclass(slots=True, eq=False)
class SignatureWrite:
    """The write of a signature."""

    kind: SignatureKind
    operation: Literal["create", "update", "delete", "touch"]
    """``touch`` fills the free places of a swarm without adding items."""
    signature_id: str
    """Id of the signature; for a member of a flow, of the flow."""
    size_bytes: int = 0
    """Size of the definitions that are written; 0 where only state changes."""


@dataclass(slots=True, eq=False)
class RedisCall:
    """One round trip to Redis."""

    operation: str
    """File name of the Lua script without ``.lua``, or the command in lower case."""


@dataclass(frozen=True, slots=True)
class DamageFound(Event):
    """Something in Redis cannot be read and was put aside. Published once, until the notes are cleared."""

    kind: Literal["record", "index", "entry"]
    """``record``: no reconciler visits it; ``index``: an index of another type, deleted; ``entry``: an entry of an
    index that names nothing, removed."""
    key: str
    """Redis key, or the entry."""
    reason: str
    """What cannot be read."""
