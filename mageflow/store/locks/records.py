"""Lock state as typed values, and how the scripts write it down.

This file owns the form of what ``lua/lock_*.lua`` are given and answer. It refuses to talk to Redis and to decide
anything.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from mageflow.errors import CycleEdge, StoreError
from mageflow.interceptors import LockParty, ResourceKey

__all__ = [
    "FoundCycle",
    "LockClaim",
    "LockHolding",
    "LockOwner",
    "LockPicture",
    "LockReply",
    "LockVerdict",
    "LockWait",
    "VictimPolicy",
    "lock_id",
    "owner_id",
    "picture_of",
    "reply_of",
    "token_text",
    "verdicts_of",
    "whole_ms",
]

VictimPolicy = Literal["requester", "youngest", "lowest_priority"]


@dataclass(frozen=True, slots=True)
class LockOwner:
    """What others are shown of a run that holds or waits."""

    task: str = ""
    run_id: str = ""
    task_run_id: str = ""
    attempt: int = 0
    worker: str = ""
    trace_id: str = ""
    will_retry: bool = False
    """Whether Hatchet would start another attempt if this one failed."""

    def to_json(self) -> str:
        """The text kept in Redis."""
        return json.dumps({name: getattr(self, name) for name in _OWNER_FIELDS}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: object) -> "LockOwner":
        """Read what `to_json` wrote; anything else reads as an unknown owner."""
        try:
            document = json.loads(text) if isinstance(text, str) else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            return cls()
        known = cast("dict[str, Any]", document)
        return cls(**{name: known[name] for name in _OWNER_FIELDS if name in known})


_OWNER_FIELDS = tuple(LockOwner.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class LockClaim:
    """One request for locks, as the script takes it."""

    request: str
    """Unique; the same request sent again gets the same answer."""
    run: str
    """Locks are re-entrant per run (and session)."""
    session: str
    session_is_open: bool
    """False for the first claim of a session; True makes the script refuse once the session has ended."""
    resources: tuple[ResourceKey, ...]
    owner: LockOwner
    lease_seconds: float
    wake_id: str
    policy: VictimPolicy = "requester"
    born_ms: int = 0
    priority: int = 1
    traceparent: str = ""
    under: tuple[int, ...] = ()
    """Tokens of the leases whose blocks this request is made in."""
    can_wait: bool = True

    def to_json(self) -> str:
        """The first argument of ``lock_acquire``."""
        return json.dumps(
            {
                "o": owner_id(self.session, self.run),
                "s": self.session,
                "ms": whole_ms(self.lease_seconds),
                "open": self.session_is_open,
                "q": self.request,
                "wait": self.can_wait,
                "p": self.policy,
                "b": self.born_ms,
                "pr": self.priority,
                "i": self.owner.to_json(),
                "tp": self.traceparent,
                "k": self.wake_id,
                "u": [token_text(each) for each in self.under],
            },
            separators=(",", ":"),
        )


@dataclass(frozen=True, slots=True)
class FoundCycle:
    """A deadlock a script found and broke."""

    cycle: tuple[CycleEdge, ...]
    traceparents: tuple[str, ...]
    victim_index: int
    victim: LockOwner
    policy: VictimPolicy


@dataclass(frozen=True, slots=True)
class LockVerdict:
    """Where a request stands."""

    kind: Literal["granted", "queued", "deadlock", "busy", "session_lost", "ended", "gone", "renewed", "lost"]
    tokens: tuple[int, ...] = ()
    """For granted: one per resource, in the order of the claim."""
    waiting_for: ResourceKey | None = None
    position: int = 0
    holder: LockParty | None = None
    cycle: tuple[CycleEdge, ...] = ()
    policy: VictimPolicy = "requester"
    ended: int = 0
    """How many locks the request (or the run) still held when it was ended."""


@dataclass(frozen=True, slots=True)
class LockReply:
    """What a script answered: the verdict, and what else happened in that instant."""

    verdict: LockVerdict
    reaped: tuple[tuple[ResourceKey, LockParty], ...] = ()
    resolved: tuple[FoundCycle, ...] = ()
    gone: frozenset[int] = frozenset()
    """After a renewal: tokens that are no longer held."""
    waits: Mapping[str, LockVerdict] = field(default_factory=dict[str, LockVerdict])
    """After a renewal: where each waiting request stands."""
    strange: Mapping[str, tuple[ResourceKey, ...]] = field(default_factory=dict[str, tuple[ResourceKey, ...]])
    """After a renewal: requests the server keeps for this session that the renewal did not name, with their locks."""


@dataclass(frozen=True, slots=True)
class LockHolding:
    """One held lock in a snapshot."""

    resource: ResourceKey
    owner_id: str
    owner: LockOwner
    token: int
    seconds: float
    lease_remaining_seconds: float
    """Negative once the session has ended and nobody has noticed yet."""


@dataclass(frozen=True, slots=True)
class LockWait:
    """One waiting request in a snapshot."""

    request: str
    resource: ResourceKey
    """The one it waits for."""
    resources: tuple[ResourceKey, ...]
    """All it asked for."""
    owner_id: str
    owner: LockOwner
    seconds: float
    under: frozenset[int]


@dataclass(frozen=True, slots=True)
class LockPicture:
    """Every lock and every wait of a namespace at one instant, up to the limit that was asked for."""

    at: float
    """Epoch seconds by the clock of Redis."""
    holdings: tuple[LockHolding, ...]
    waits: tuple[LockWait, ...]
    """By resource; within one, in the order they will be served."""
    locks_total: int
    waits_total: int
    owners_total: int


def reply_of(text: object, operation: str) -> LockReply:
    """What one of the scripts that change something answered.

    Raises:
        StoreError: It is no reply of theirs.
    """
    document = _document(text, operation)
    now = _number(document.get("now"))
    waits, strange = document.get("waits"), document.get("strange")
    return LockReply(
        verdict=_verdict(document, now),
        reaped=tuple((_resource(each["l"]), _party(each, now)) for each in _list(document.get("reaped"))),
        resolved=tuple(_found(each) for each in _list(document.get("resolved"))),
        gone=frozenset(int(each) for each in _list(document.get("gone"))),
        waits={request: _verdict(each, now) for request, each in waits.items()} if isinstance(waits, dict) else {},
        strange=_strange(strange) if isinstance(strange, dict) else {},
    )


def verdicts_of(texts: Sequence[str]) -> list[tuple[str, LockVerdict]]:
    """What was pushed to a process's list."""
    found: list[tuple[str, LockVerdict]] = []
    for text in texts:
        document = _document(text, "lock_wake")
        found.append((str(document.get("q", "")), _verdict(document, _number(document.get("now")))))
    return found


def picture_of(text: object) -> LockPicture:
    """What ``lock_snapshot`` answered."""
    document = _document(text, "lock_snapshot")
    now = _number(document.get("now"))
    owners = cast("dict[str, dict[str, Any]]", document.get("owners") or {})
    totals = cast("dict[str, int]", document.get("totals") or {})
    holdings: list[LockHolding] = []
    for each in _list(document.get("locks")):
        record = owners.get(each["o"], {})
        holdings.append(
            LockHolding(
                resource=_resource(each["l"]),
                owner_id=each["o"],
                owner=LockOwner.from_json(record.get("i")),
                token=int(each["t"]),
                seconds=_age(now, each["a"]),
                lease_remaining_seconds=(_number(record.get("until")) - now) / 1000,
            )
        )
    waits = tuple(
        LockWait(
            request=each["q"],
            resource=_resource(each["l"]),
            resources=tuple(_resource(lock) for lock in each["n"]),
            owner_id=each["o"],
            owner=LockOwner.from_json(owners.get(each["o"], {}).get("i")),
            seconds=_age(now, each["a"]),
            under=frozenset(int(token) for token in _list(each.get("u"))),
        )
        for each in _list(document.get("waits"))
    )
    return LockPicture(
        at=now / 1000,
        holdings=tuple(sorted(holdings, key=lambda each: each.resource)),
        waits=waits,
        locks_total=totals.get("locks", 0),
        waits_total=totals.get("waits", 0),
        owners_total=totals.get("owners", 0),
    )


def _document(text: object, operation: str) -> dict[str, Any]:
    try:
        document = json.loads(text) if isinstance(text, str) else None
    except ValueError as error:
        raise StoreError(operation, "the answer is not JSON") from error
    if not isinstance(document, dict):
        raise StoreError(operation, "the answer is not a JSON object")
    return cast("dict[str, Any]", document)


def _list(value: object) -> list[Any]:
    """Lua has one empty table, which JSON shows as an object."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def _verdict(document: Mapping[str, Any], now: float) -> LockVerdict:
    holder = document.get("by")
    lock = document.get("l")
    ended = document.get("n", 0)
    kind = document.get("v", "gone")
    return LockVerdict(
        kind=kind,
        tokens=tuple(int(each) for each in _list(document.get("t"))) if kind == "granted" else (),
        waiting_for=_resource(lock) if isinstance(lock, str) else None,
        position=ended if kind == "queued" else 0,
        holder=_party(holder, now) if isinstance(holder, dict) else None,
        cycle=_cycle(document.get("c")),
        policy=document.get("vp") or "requester",
        ended=ended if kind == "ended" else 0,
    )


def _cycle(members: object) -> tuple[CycleEdge, ...]:
    edges: list[CycleEdge] = []
    for each in _list(members):
        owner, resource = LockOwner.from_json(each.get("i")), _resource(each["l"])
        edges.append(CycleEdge(owner.task, owner.run_id, resource.name, resource.key))
    return tuple(edges)


def _found(document: Mapping[str, Any]) -> FoundCycle:
    members = _list(document.get("c"))
    index = int(document["x"]) - 1
    return FoundCycle(
        cycle=_cycle(members),
        traceparents=tuple(str(each.get("tp") or "") for each in members),
        victim_index=index,
        victim=LockOwner.from_json(members[index].get("i")),
        policy=document["p"],
    )


def _party(document: Mapping[str, Any], now: float) -> LockParty:
    owner = LockOwner.from_json(document.get("i"))
    return LockParty(
        task=owner.task,
        run_id=owner.run_id,
        worker=owner.worker,
        trace_id=owner.trace_id,
        traceparent=str(document.get("tp") or ""),
        seconds=_age(now, document.get("a")),
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _age(now: float, since: object) -> float:
    return max(0.0, (now - _number(since)) / 1000)


def whole_ms(seconds: float) -> int:
    """Whole milliseconds, at least one."""
    return max(1, round(seconds * 1000))


def token_text(token: int) -> str:
    """A token as the scripts write it: text, as JSON numbers are not exact enough in Lua."""
    return f"{token:016d}"


def owner_id(session: str, run: str) -> str:
    """A run in one session."""
    return f"{session}/{run}"


def lock_id(resource: ResourceKey) -> str:
    """A resource as the scripts name it."""
    return f"{resource.name}:{resource.key}"


def _resource(lock: str) -> ResourceKey:
    name, _, key = lock.partition(":")
    return ResourceKey(name, key)


def _strange(found: Mapping[str, Any]) -> dict[str, tuple[ResourceKey, ...]]:
    return {request: tuple(_resource(each) for each in _list(locks)) for request, locks in found.items()}
