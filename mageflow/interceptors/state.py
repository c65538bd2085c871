"""Calls about stored state: signatures and round trips to Redis. Facts only."""

from dataclasses import dataclass
from typing import Literal

from mageflow._frozen import frozen
from mageflow.interceptors.events import Event
from mageflow.types import OutageReason, SignatureKind

__all__ = [
    "ClockReading",
    "DamageFound",
    "PendingSettlements",
    "RedisCall",
    "RedisOutage",
    "SignatureLoad",
    "SignatureWrite",
]


@dataclass(slots=True, eq=False)
class SignatureLoad:
    """The load of a signature: by the client, or for a run that is admitted in the same round trip."""

    kind: SignatureKind
    signature_id: str
    """Id of the signature; for a member of a flow, of the flow."""
    result: Literal["hit", "missing", "invalid", "foreign", "error"] = "error"
    """Filled in. ``invalid``: what is stored does not validate. ``foreign``: the run's metadata was copied
    from another run, or it executes another task than the signature: it is a plain run."""
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
    is_dropped: bool = False
    """Filled in: a run has ended, and its record is gone. Nothing was written, and nothing follows from that end. False
    for a run that was cancelled: who removes a record cancels its runs."""


@dataclass(slots=True, eq=False)
class RedisCall:
    """One round trip to Redis."""

    operation: str
    """File name of the Lua script without ``.lua``, or the command in lower case."""


@frozen
class DamageFound(Event):
    """Something in Redis cannot be read and was put aside. Published once, until the notes are cleared."""

    kind: Literal["record", "index", "entry"]
    """``record``: no reconciler visits it; ``index``: an index of another type, deleted; ``entry``: an entry of an
    index that names nothing, removed."""
    key: str
    """Redis key, or the entry."""
    reason: str
    """What cannot be read."""


@frozen
class RedisOutage(Event):
    """Redis went away or began to refuse, or it answers again. Published once for each of the two, per client."""

    is_over: bool
    reason: OutageReason
    operation: str
    """The operation that failed first; at the end, the one that succeeded."""
    advice: str
    """What to do about it, one clause."""
    seconds: float = 0.0
    """How long it lasted; 0 at its begin."""
    failures: int = 1
    """Failed round trips in it."""


@frozen
class PendingSettlements(Event):
    """The number of ended attempts whose outcome Redis does not have yet has changed. This process repeats them."""

    count: int


@frozen
class ClockReading(Event):
    """The clock of this process was compared with that of Redis. A worker with Redis does so every few seconds."""

    skew_seconds: float
    """How far the clock of this process is ahead of that of Redis; negative if it is behind."""
    error_seconds: float
    """By how much `skew_seconds` may be wrong, in both directions: half of the round trip."""
    valid_until: float
    """By ``time.monotonic()``: the reading must not be used after that."""
