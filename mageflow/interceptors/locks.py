"""Calls about locks: requests, leases, deadlocks. Facts only.

``name`` is the declared name of a resource and may become a label; ``key`` is the caller's and is never shown
unless the user asks for it (`Settings.lock_resource_detail`).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mageflow.errors import CycleEdge
from mageflow.interceptors.tasks import Attempt

__all__ = [
    "Deadlock",
    "DeadlockCheck",
    "LeaseLost",
    "LeaseRenewal",
    "LockAcquire",
    "LockHold",
    "LockParty",
    "LockReaped",
    "LockWaiting",
    "ResourceKey",
]


@dataclass(frozen=True, slots=True, order=True)
class ResourceKey:
    """One lockable thing: a declared resource, and a key within it (empty for the resource as a whole)."""

    name: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class LockParty:
    """A run that holds a lock or waits for one, as the lock's record tells it."""

    task: str
    run_id: str
    worker: str
    trace_id: str
    traceparent: str
    """Of the span that acquired (a holder) or is acquiring (a waiter); empty when nothing is traced."""
    seconds: float
    """How long it has held or waited, by the clock of Redis, when the record was read."""


@dataclass(slots=True, eq=False)
class LockAcquire:
    """One request for one or more locks, from the call until it is granted or given up.

    Live: `is_waiting`, `waiting_for` and `holders` are current and may be read from another thread.
    """

    resources: tuple[ResourceKey, ...]
    """In the order they are taken."""
    task: str
    """The task of the run that asks, or an empty string outside of runs."""
    attempt: Attempt | None
    policy: Literal["requester", "youngest", "lowest_priority"]
    timeout_seconds: float | None
    traceparent: str = ""
    """Set by an observer on entry: the span others should link to. Kept with the lock while it is held."""
    outcome: Literal["acquired", "timeout", "deadlock", "cancelled", "error"] = "error"
    """Filled in."""
    waited_seconds: float = 0.0
    """Filled in."""
    queued_at: float = 0.0
    """Epoch seconds at which the request was queued, or 0 when it was granted at once."""
    queue_position: int = 0
    """Requests that were to be served before this one when it was queued, the holder included."""
    is_waiting: bool = False
    waiting_for: ResourceKey | None = None
    """The one it waits for, or waited for last."""
    holders: tuple[LockParty, ...] = ()
    """Who holds that one, as last heard: when the request was queued and with every renewal."""
    cycle: tuple[CycleEdge, ...] = ()
    """Filled in for the victim of a deadlock."""
    monotonic: Callable[[], float] = time.monotonic
    started_at: float = field(default=0.0)

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started_at = self.monotonic()

    @property
    def elapsed_seconds(self) -> float:
        """Time since the request was made."""
        return self.monotonic() - self.started_at


@dataclass(slots=True, eq=False)
class LockWaiting:
    """A request that has waited for a second, with those it waits for."""

    request: LockAcquire


@dataclass(slots=True, eq=False)
class LockHold:
    """One lock held by one run, from the grant to the release or the loss."""

    resource: ResourceKey
    task: str
    attempt: Attempt | None
    token: int
    monotonic: Callable[[], float] = time.monotonic
    is_lost: bool = False
    """Filled in."""
    started_at: float = field(default=0.0)

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started_at = self.monotonic()

    @property
    def elapsed_seconds(self) -> float:
        """Time since the grant."""
        return self.monotonic() - self.started_at


@dataclass(slots=True, eq=False)
class LeaseLost:
    """A lease that ended while its lock was still held: the work under it is no longer exclusive."""

    hold: LockHold


@dataclass(frozen=True, slots=True)
class LeaseRenewal:
    """One lease in one renewal: ``lost`` when Redis no longer knows it, ``error`` when Redis did not answer."""

    resource: ResourceKey
    result: Literal["ok", "lost", "error"]


@dataclass(frozen=True, slots=True)
class DeadlockCheck:
    """One search for a cycle. It happens inside the acquiring script, so its time is that of the round trip."""

    result: Literal["clean", "cycle", "error"]
    duration_seconds: float
    error_type: str = ""


@dataclass(frozen=True, slots=True)
class Deadlock:
    """A cycle that was found and broken, told once: by the process whose round trip found it."""

    cycle: tuple[CycleEdge, ...]
    traceparents: tuple[str, ...]
    """Of every member's acquire span, in the order of the cycle; empty strings where nothing is traced."""
    victim: CycleEdge
    policy: Literal["requester", "youngest", "lowest_priority"]
    resolution: Literal["victim_retried", "victim_failed", "lease_broken"]
    duration_seconds: float
    """From sending the request that closed the cycle to the verdict."""


@dataclass(frozen=True, slots=True)
class LockReaped:
    """A lock that was taken from an owner whose lease had run out."""

    resource: ResourceKey
    owner: LockParty
