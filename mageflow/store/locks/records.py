"""Lock state as typed values: what the scripts in ``lua/lock_*.lua`` are given and what they answer.

This file owns the values and the arguments of a claim. Replies are parsed in `mageflow.store.locks.replies`.
"""

import json
from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, Literal, cast

from mageflow._frozen import frozen
from mageflow.errors import CycleEdge
from mageflow.interceptors import LockHolder, ResourceKey

__all__ = [
    "FoundCycle",
    "LockClaim",
    "LockHolding",
    "LockOwner",
    "LockReply",
    "LockSnapshot",
    "LockVerdict",
    "LockWait",
    "VerdictKind",
    "VictimPolicy",
    "lock_name",
    "owner_id",
    "token_text",
    "whole_ms",
]

VictimPolicy = Literal["requester", "youngest", "lowest_priority"]
VerdictKind = Literal["granted", "queued", "deadlock", "busy", "session_lost", "ended", "gone", "renewed", "lost"]


@frozen
class LockOwner:
    """The facts about a run that holds or waits, as reports show them."""

    task: str = ""
    run_id: str = ""
    task_run_id: str = ""
    attempt: int = 0
    worker: str = ""
    trace_id: str = ""
    will_retry: bool = False
    """Whether Hatchet starts another attempt if this one fails."""

    def to_json(self) -> str:
        """The text stored in Redis as ``info``."""
        return (
            f'{{"task":{_ascii(self.task)},"run_id":{_ascii(self.run_id)},"task_run_id":{_ascii(self.task_run_id)}'
            f',"attempt":{self.attempt:d},"worker":{_ascii(self.worker)},"trace_id":{_ascii(self.trace_id)}'
            f',"will_retry":{"true" if self.will_retry else "false"}}}'
        )

    @classmethod
    def from_json(cls, text: object) -> "LockOwner":
        """Parse the text of `to_json`; a field that is missing or has another type stays empty."""
        try:
            document = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            return cls()
        known = cast("dict[str, Any]", document)
        return cls(**{name: known[name] for name, kind in _OWNER_FIELDS if type(known.get(name)) is kind})


_ascii = json.JSONEncoder().encode
_quoted = json.JSONEncoder(ensure_ascii=False).encode
"""Text as JSON. Records are written as text around it: that costs a third of an encoder for whole documents."""

_OWNER_FIELDS = tuple((each.name, type(each.default)) for each in fields(LockOwner))


@frozen
class LockClaim:
    """One request for locks, as ``lock_acquire`` takes it."""

    request_id: str
    """Unique; the same id sent again gets the same answer."""
    attempt_id: str
    """Locks are re-entrant per attempt id within one session."""
    session_id: str
    session_is_open: bool
    """False for the first claim of a session; True makes the script refuse once the session has ended."""
    resources: tuple[ResourceKey, ...]
    """In the order they are taken."""
    owner: LockOwner
    lease_seconds: float
    wake_id: str
    """Names the wake list on which the verdict arrives if the request is queued."""
    policy: VictimPolicy = "requester"
    born_ms: int = 0
    """Epoch milliseconds at which the run was enqueued."""
    priority: int = 1
    traceparent: str = ""
    enclosing_tokens: tuple[int, ...] = ()
    """Tokens of the leases whose blocks enclose this request."""
    can_wait: bool = True

    def arguments(self) -> tuple[str, ...]:
        """The arguments of ``lock_acquire``, in the order of its header."""
        owner = owner_id(self.session_id, self.attempt_id)
        locks = [lock_name(each) for each in self.resources]
        enclosing = ",".join([f'"{token_text(each)}"' for each in self.enclosing_tokens])
        lock_record = (
            f'{{"request_ids":[{_quoted(self.request_id)}],"owner_id":{_quoted(owner)}'
            f',"traceparent":{_quoted(self.traceparent)}'
        )
        owner_record = (
            f'{{"locks":[{_quoted(locks[0])}],"request_ids":{{}},"wake_id":{_quoted(self.wake_id)}'
            f',"born_ms":{self.born_ms},"priority":{self.priority},"info":{_quoted(self.owner.to_json())}}}'
        )
        terms = f"{self.session_is_open:d} {self.can_wait:d} {whole_ms(self.lease_seconds)} {self.policy} [{enclosing}]"
        return (self.request_id, owner, terms, lock_record, owner_record, *locks)


@frozen
class FoundCycle:
    """A deadlock a script found and broke."""

    cycle: tuple[CycleEdge, ...]
    traceparents: tuple[str, ...]
    victim_index: int
    """From 0."""
    victim: LockOwner
    policy: VictimPolicy


@frozen
class LockVerdict:
    """Where a request stands, or how the call about it ended.

    ``granted``, ``queued``, ``deadlock``: the request's own state. ``busy``: a lock is held and the request may not
    wait. ``ended``: it was released or withdrawn. ``gone``: Redis has no such request. ``session_lost`` and ``lost``:
    the session has ended. ``renewed``: the session goes on.
    """

    kind: VerdictKind
    tokens: tuple[int, ...] = ()
    """For ``granted``: one per resource, in the order of the claim."""
    waiting_for: ResourceKey | None = None
    position: int = 0
    holder: LockHolder | None = None
    cycle: tuple[CycleEdge, ...] = ()
    policy: VictimPolicy = "requester"
    released: int = 0
    """For ``ended``: how many locks the request (or the attempt) still held."""


@frozen
class LockReply:
    """The answer of a script: the verdict, and what else the script did in that instant."""

    verdict: LockVerdict
    expired: tuple[tuple[ResourceKey, LockHolder], ...] = ()
    """Locks taken from owners whose lease had run out."""
    resolved: tuple[FoundCycle, ...] = ()
    gone_tokens: frozenset[int] = frozenset()
    """After a renewal: tokens that are no longer held."""
    waits: Mapping[str, LockVerdict] = field(default_factory=dict[str, LockVerdict])
    """After a renewal: where each waiting request stands, by request id."""
    unknown_requests: Mapping[str, tuple[ResourceKey, ...]] = field(default_factory=dict[str, tuple[ResourceKey, ...]])
    """After a renewal: requests Redis has for this session and the renewal did not name, with the locks they hold."""


@frozen
class LockHolding:
    """One held lock in a snapshot."""

    resource: ResourceKey
    owner_id: str
    owner: LockOwner
    token: int
    seconds: float
    """How long it has been held."""
    lease_remaining_seconds: float
    """Negative once the session has ended and no script has noticed yet."""


@frozen
class LockWait:
    """One waiting request in a snapshot."""

    request_id: str
    resource: ResourceKey
    """The one it waits for."""
    resources: tuple[ResourceKey, ...]
    """All it wants."""
    owner_id: str
    owner: LockOwner
    seconds: float
    """How long it has waited."""
    enclosing_tokens: frozenset[int]
    """Leases that cannot be released before this wait ends."""


@frozen
class LockSnapshot:
    """Every lock and every wait of a namespace at one instant, up to the limit of the call."""

    at: float
    """Epoch seconds by the clock of Redis."""
    holdings: tuple[LockHolding, ...]
    waits: tuple[LockWait, ...]
    """By resource; within one, in the order they are served."""
    locks_total: int
    waits_total: int
    owners_total: int


def whole_ms(seconds: float) -> int:
    """Whole milliseconds, at least one."""
    return max(1, round(seconds * 1000))


def token_text(token: int) -> str:
    """A token as the scripts write it."""
    return f"{token:016d}"


def owner_id(session_id: str, attempt_id: str) -> str:
    """An attempt in one session, as the scripts name it."""
    return f"{session_id}/{attempt_id}"


def lock_name(resource: ResourceKey) -> str:
    """A resource as the scripts name it."""
    return f"{resource.name}:{resource.key}"
