"""Lock scripts as typed calls, and what they answer as typed values.

Keys, all under the one hash tag of a namespace's locks (why: ``lua/lib_lock.lua``), owned by the lock service:
``locks``, ``owners``, ``waits``, ``queue``, ``sessions``, ``members`` live a day and are refreshed by every script
that writes; ``fence`` a week; ``wake:<process>`` a minute. Empty ones vanish by themselves.

This module owns the wire form of lock state. It refuses to wait, to retry and to decide anything.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, cast

import redis.exceptions

from mageflow.errors import CycleEdge, StoreError, StoreUnavailableError
from mageflow.interceptors import LockParty, ResourceKey
from mageflow.store.keys import Keys
from mageflow.store.redis import RedisPort
from mageflow.store.scripts import Script

__all__ = [
    "FoundCycle",
    "LockClaim",
    "LockHolding",
    "LockOwner",
    "LockPicture",
    "LockReply",
    "LockStore",
    "LockVerdict",
    "LockWait",
    "VictimPolicy",
]

VictimPolicy = Literal["requester", "youngest", "lowest_priority"]

_KEYS: Final = ("locks", "owners", "waits", "queue", "sessions", "members", "fence", "wake")
_ACQUIRE: Final = Script(
    "lock_acquire",
    _KEYS,
    (
        "owner",
        "session",
        "lease_ms",
        "is_open",
        "request",
        "mode",
        "policy",
        "born_ms",
        "priority",
        "info",
        "traceparent",
        "wake_id",
        "under",
        "...",
    ),
)
_RELEASE: Final = Script("lock_release", _KEYS, ("request", "mode", "..."))
_END: Final = Script("lock_end", _KEYS, ("scope", "..."))
_RENEW: Final = Script("lock_renew", _KEYS, ("session", "lease_ms", "leases", "requests"))
_SNAPSHOT: Final = Script("lock_snapshot", _KEYS, ("limit",))


@dataclass(frozen=True, slots=True)
class LockOwner:
    """What others are shown of a run that holds or waits."""

    task: str = ""
    run_id: str = ""
    step_run_id: str = ""
    attempt: int = 0
    worker: str = ""
    trace_id: str = ""
    will_retry: bool = False
    """Whether Hatchet would start another attempt if this one failed."""

    def to_json(self) -> str:
        """The text kept in Redis."""
        return json.dumps(asdict(self), separators=(",", ":"))

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
        return cls(**{name: known[name] for name in cls.__dataclass_fields__ if name in known})


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


class LockStore:
    """Runs the lock scripts of one namespace; each method is one round trip.

    Every method raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError`.
    """

    def __init__(self, port: RedisPort, keys: Keys) -> None:
        self._port = port
        self._keys = tuple(keys.lock(each) for each in _KEYS)
        self._wake = keys.lock("wake")

    async def acquire(self, claim: LockClaim) -> LockReply:
        """Take the locks, or queue for the first that is held: granted, queued, deadlock, busy or session_lost."""
        return await self._run(
            _ACQUIRE,
            _owner_id(claim.session, claim.run),
            claim.session,
            _ms(claim.lease_seconds),
            int(claim.session_is_open),
            claim.request,
            "wait" if claim.can_wait else "try",
            claim.policy,
            claim.born_ms,
            claim.priority,
            claim.owner.to_json(),
            claim.traceparent,
            claim.wake_id,
            json.dumps([_token_text(each) for each in claim.under]),
            *(_lock_id(each) for each in claim.resources),
        )

    async def release(self, request: str, resources: Sequence[ResourceKey]) -> LockReply:
        """End a request; its locks go to the next in each queue. Ending it again does nothing."""
        return await self._run(_RELEASE, request, "end", *(_lock_id(each) for each in resources))

    async def withdraw(self, request: str, resources: Sequence[ResourceKey]) -> LockReply:
        """Leave the queue, unless the request was granted meanwhile: then it keeps its locks and is told so."""
        return await self._run(_RELEASE, request, "withdraw", *(_lock_id(each) for each in resources))

    async def end_runs(self, session: str, runs: Sequence[str]) -> LockReply:
        """End everything these runs hold and wait for."""
        return await self._run(_END, "owner", *(_owner_id(session, each) for each in runs))

    async def end_session(self, session: str) -> LockReply:
        """End everything a process holds and waits for."""
        return await self._run(_END, "session", session)

    async def renew(
        self,
        session: str,
        lease_seconds: float,
        leases: Sequence[tuple[ResourceKey, int]],
        requests: Sequence[str],
    ) -> LockReply:
        """Keep a session alive, and learn which of its leases are gone and where its requests stand."""
        held = [[_lock_id(resource), _token_text(token)] for resource, token in leases]
        return await self._run(_RENEW, session, _ms(lease_seconds), json.dumps(held), json.dumps(list(requests)))

    async def verdicts(self, wake_id: str, timeout_seconds: float) -> list[tuple[str, LockVerdict]] | None:
        """Block until verdicts for this process's queued requests arrive, or the timeout; may return none.

        Delivery is at most once (the server forgets what it has handed to a connection that then breaks): `renew`
        tells again.

        Returns:
            Requests and their verdicts, or None when the client's own socket timeout was shorter.
        """
        try:
            reply = await self._port.command(
                "BLMPOP", timeout_seconds, 1, f"{self._wake}:{wake_id}", "LEFT", "COUNT", 128, operation="lock_wake"
            )
        except StoreUnavailableError as error:
            if isinstance(error.__cause__, redis.exceptions.TimeoutError | TimeoutError):
                return None
            raise
        texts = cast("list[str]", reply[1]) if reply else []
        found: list[tuple[str, LockVerdict]] = []
        for text in texts:
            document = _document(text, "lock_wake")
            found.append((str(document.get("q", "")), _verdict(document, _number(document.get("now")))))
        return found

    async def aclose(self) -> None:
        """Close the connections made for the running loop; not a round trip."""
        await self._port.aclose()

    async def snapshot(self, limit: int = 1000) -> LockPicture:
        """Every holder and waiter at one instant; at most ``limit`` of each."""
        text = await self._port.call(_SNAPSHOT, self._keys, (limit,))
        document = _document(text, _SNAPSHOT.name)
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

    async def _run(self, script: Script, *args: str | int) -> LockReply:
        document = _document(await self._port.call(script, self._keys, args), script.name)
        now = _number(document.get("now"))
        waits = document.get("waits")
        return LockReply(
            verdict=_verdict(document, now),
            reaped=tuple((_resource(each["l"]), _party(each, now)) for each in _list(document.get("reaped"))),
            resolved=tuple(_found(each) for each in _list(document.get("resolved"))),
            gone=frozenset(int(each) for each in _list(document.get("gone"))),
            waits={request: _verdict(each, now) for request, each in waits.items()} if isinstance(waits, dict) else {},
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


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _token_text(token: int) -> str:
    return f"{token:016d}"


def _owner_id(session: str, run: str) -> str:
    return f"{session}/{run}"


def _lock_id(resource: ResourceKey) -> str:
    return f"{resource.name}:{resource.key}"


def _resource(lock: str) -> ResourceKey:
    name, _, key = lock.partition(":")
    return ResourceKey(name, key)
