"""Calls about locks: requests, holds, leases, deadlocks. Facts only.

`ResourceKey.name` is the declared name of a resource and may become a metric label. `ResourceKey.key` is the
program's own data: signals show it as a hash, unless `Settings.lock_resource_detail` is ``raw``.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from mageflow._frozen import frozen
from mageflow.errors import CycleEdge
from mageflow.interceptors.events import Event
from mageflow.interceptors.tasks import Attempt

__all__ = [
    "Deadlock",
    "DeadlockCheck",
    "LeaseLost",
    "LeaseRenewal",
    "LockAcquire",
    "LockDeclared",
    "LockExpired",
    "LockHold",
    "LockHolder",
    "LockWaiting",
    "ResourceKey",
]


@dataclass(frozen=True, slots=True, order=True)
class ResourceKey:
    """One lockable thing: a declared resource, and a key within it (empty for the resource as a whole)."""

    name: str
    key: str = ""


@frozen
class LockHolder:
    """A run that holds a lock, as its record in Redis describes it."""

    task: str
    """Empty for a program outside of tasks."""
    run_id: str
    worker: str
    trace_id: str
    traceparent: str
    """Of the span that acquired the lock; empty when that process does not trace."""
    seconds: float
    """How long it has held the lock, by the clock of Redis, when the record was read."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Timed:
    """A call with a duration. Its clock starts when the object is made."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds; must not stop while the process is stopped."""
    started_at: float = field(default=0.0, init=False)
    """A reading of ``monotonic``."""

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started_at = self.monotonic()

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the call began: since the request of a `LockAcquire`, since the grant of a `LockHold`."""
        return self.monotonic() - self.started_at


@dataclass(slots=True, eq=False)
class LockAcquire(_Timed):
    """One request for one or more locks, from the call until it is granted or given up.

    Live: `is_waiting`, `waiting_for` and `holders` are current and may be read from another thread.
    """

    resources: tuple[ResourceKey, ...]
    """Sorted by name, then key; taken in this order."""
    task: str
    """Name of the requesting task; empty outside of tasks."""
    attempt: Attempt | None
    policy: Literal["requester", "youngest", "lowest_priority"]
    timeout_seconds: float | None
    """Maximum wait; None means no limit."""
    traceparent: str = ""
    """An interceptor may set it on entry: the span that waiters and deadlock spans link to. Stored with the lock."""
    outcome: Literal["acquired", "timeout", "deadlock", "cancelled", "error"] = "error"
    """Filled in."""
    waited_seconds: float = 0.0
    """Filled in."""
    queued_at: float = 0.0
    """Epoch seconds at which the request was queued; 0 if it was granted at once."""
    queue_position: int = 0
    """Requests ahead of this one when it was queued, the holder included."""
    is_waiting: bool = False
    waiting_for: ResourceKey | None = None
    """The resource it waits for, or waited for last."""
    holders: tuple[LockHolder, ...] = ()
    """The holder of that resource. Updated when the request is queued and with every renewal."""
    cycle: tuple[CycleEdge, ...] = ()
    """Filled in for the victim of a deadlock."""


@frozen
class LockDeclared(Event):
    """A resource was declared. Its name appears in signals from now on; no request has been made yet."""

    name: str


@dataclass(slots=True, eq=False)
class LockWaiting(Event):
    """A request has waited for one second."""

    request: LockAcquire


@dataclass(slots=True, eq=False)
class LockHold(_Timed):
    """One lock held by one run, from the grant to the release or the loss."""

    resource: ResourceKey
    task: str
    """Name of the holding task; empty outside of tasks."""
    attempt: Attempt | None
    token: int
    """The fencing token."""
    is_lost: bool = False
    """Filled in."""


@dataclass(slots=True, eq=False)
class LeaseLost(Event):
    """A lease ended while its lock was still held: the work under it is no longer exclusive."""

    hold: LockHold


@frozen
class LeaseRenewal(Event):
    """One lease in one renewal: ``lost`` when Redis no longer has it, ``error`` when Redis did not answer."""

    resource: ResourceKey
    result: Literal["ok", "lost", "error"]


@frozen
class DeadlockCheck(Event):
    """One search for a cycle. It runs inside the acquiring script, so the duration is that of the round trip."""

    result: Literal["clean", "cycle", "error"]
    duration_seconds: float
    error_type: str = ""


@frozen
class Deadlock(Event):
    """A cycle that was found and broken. Published once, by the process whose round trip found it."""

    cycle: tuple[CycleEdge, ...]
    traceparents: tuple[str, ...]
    """Of every member's acquire span, in the order of the cycle; an empty string for a member without a trace."""
    victim: CycleEdge
    policy: Literal["requester", "youngest", "lowest_priority"]
    resolution: Literal["victim_retried", "victim_failed"]
    """Whether Hatchet starts another attempt of the victim."""
    duration_seconds: float
    """From sending the request that closed the cycle to its answer."""


@frozen
class LockExpired(Event):
    """A lock was taken from an owner whose lease had run out."""

    resource: ResourceKey
    owner: LockHolder
