"""What the lock scripts answer, parsed into the values of `mageflow.store.locks.records`."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, cast, get_args

from mageflow.error_text import shown, text_of
from mageflow.errors import CycleEdge, StoreError
from mageflow.interceptors import LockHolder, ResourceKey
from mageflow.store.locks.records import (
    FoundCycle,
    LockHolding,
    LockOwner,
    LockReply,
    LockSnapshot,
    LockVerdict,
    LockWait,
    VerdictKind,
    VictimPolicy,
)

__all__ = ["parse_reply", "parse_snapshot", "parse_verdicts"]


_UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What an answer of another shape leads to. The answers repeat what is stored of a lock, which may be damaged."""


def parse_reply(text: object, operation: str) -> LockReply:
    """Parse the answer of a script that changes something.

    Raises:
        StoreError: The answer is neither the text of the usual case nor a JSON object, or it repeats a damaged record.
    """
    if text == "ended":
        return _ENDED
    try:
        if isinstance(text, str) and text.startswith("granted "):
            return LockReply(LockVerdict("granted", (int(text[8:]),)))
        return _parsed(_object(text))
    except _UNREADABLE as error:
        raise _unreadable(operation, error) from error


def _unreadable(operation: str, error: Exception) -> StoreError:
    reason = f"{type(error).__name__}: {text_of(error, 200)}"
    return StoreError(operation, f"what is stored of a lock cannot be read ({reason})")


def _parsed(document: Mapping[str, Any]) -> LockReply:
    now_ms = _number(document.get("now_ms"))
    verdict = _verdict(document, now_ms)
    if document.keys() <= _OF_A_VERDICT:
        return LockReply(verdict)
    return LockReply(
        verdict=verdict,
        expired=tuple((_resource(each["lock"]), _holder(each, now_ms)) for each in _list(document.get("expired"))),
        resolved=tuple(_found_cycle(each) for each in _list(document.get("resolved"))),
        gone_tokens=frozenset(int(each) for each in _list(document.get("gone_tokens"))),
        waits={
            request_id: _verdict_of_one(each, now_ms) for request_id, each in _mapping(document.get("waits")).items()
        },
        unknown_requests={
            request_id: tuple(_resource(each) for each in _list(locks))
            for request_id, locks in _mapping(document.get("unknown_requests")).items()
        },
    )


_ENDED: Final = LockReply(LockVerdict("ended", released=1))
"""The answer to most releases."""


def parse_verdicts(texts: Sequence[str]) -> list[tuple[str, LockVerdict]]:
    """Parse entries of a wake list into pairs of request id and verdict.

    A verdict that repeats a damaged record is ``gone``; an entry without a request id is left out.
    """
    found: list[tuple[str, LockVerdict]] = []
    for text in texts:
        with suppress(*_UNREADABLE):
            document = _object(text)
            request_id = _text(document["request_id"])
            found.append((request_id, _verdict_of_one(document, document.get("now_ms"))))
    return found


def _verdict_of_one(document: Mapping[str, Any], now_ms: object) -> LockVerdict:
    """The verdict on one of several requests: damage of its record stops no other. What is gone is sent again."""
    try:
        return _verdict(document, _number(now_ms))
    except _UNREADABLE:
        return LockVerdict("gone")


def parse_snapshot(text: object) -> LockSnapshot:
    """Parse the answer of ``lock_snapshot``.

    Raises:
        StoreError: The answer is not a JSON object, or it repeats a damaged record.
    """
    try:
        return _snapshot(_object(text))
    except _UNREADABLE as error:
        raise _unreadable("lock_snapshot", error) from error


def _snapshot(document: dict[str, Any]) -> LockSnapshot:
    now_ms = _number(document.get("now_ms"))
    owners, totals = _mapping(document.get("owners")), _mapping(document.get("totals"))
    holdings = [
        LockHolding(
            resource=_resource(each["lock"]),
            owner_id=_text(each["owner_id"]),
            owner=LockOwner.from_json(_mapping(owners.get(each["owner_id"])).get("info")),
            token=int(each["token"]),
            seconds=_seconds_since(each["held_since_ms"], now_ms),
            lease_remaining_seconds=(_number(_mapping(owners.get(each["owner_id"])).get("session_ends_ms")) - now_ms)
            / 1000,
        )
        for each in _list(document.get("locks"))
    ]
    waits = tuple(
        LockWait(
            request_id=_text(each["request_id"]),
            resource=_resource(each["waiting_for"]),
            resources=tuple(_resource(lock) for lock in each["locks"]),
            owner_id=_text(each["owner_id"]),
            owner=LockOwner.from_json(_mapping(owners.get(each["owner_id"])).get("info")),
            seconds=_seconds_since(each["asked_ms"], now_ms),
            enclosing_tokens=frozenset(int(token) for token in _list(each.get("enclosing_tokens"))),
        )
        for each in _list(document.get("waits"))
    )
    return LockSnapshot(
        at=now_ms / 1000,
        holdings=tuple(sorted(holdings, key=lambda each: each.resource)),
        waits=waits,
        locks_total=_integer(totals.get("locks", 0)),
        waits_total=_integer(totals.get("waits", 0)),
        owners_total=_integer(totals.get("owners", 0)),
    )


_OF_A_VERDICT: Final = frozenset({"verdict", "now_ms", "tokens", "released", "waiting_for", "position", "holder"})
"""The fields of an answer that reports nothing else, which is most of them."""


def _verdict(document: Mapping[str, Any], now_ms: float) -> LockVerdict:
    kind = _verdict_kind(document.get("verdict", "gone"))
    if kind == "granted":
        return LockVerdict(kind, tuple(map(int, _list(document.get("tokens")))))
    if kind == "ended":
        return LockVerdict(kind, released=_integer(document.get("released", 0)))
    holder, lock = document.get("holder"), document.get("waiting_for")
    return LockVerdict(
        kind=kind,
        waiting_for=_resource(lock) if isinstance(lock, str) else None,
        position=_integer(document.get("position", 0)),
        holder=_holder(holder, now_ms) if isinstance(holder, dict) else None,
        cycle=_edges(document.get("cycle")),
        policy=_policy(document.get("cycle_policy") or "requester"),
    )


def _found_cycle(document: Mapping[str, Any]) -> FoundCycle:
    members = _list(document.get("cycle"))
    victim_index = int(document["victim_index"]) - 1  # Lua counts from 1
    return FoundCycle(
        cycle=_edges(members),
        traceparents=tuple(str(each.get("traceparent") or "") for each in members),
        victim_index=victim_index,
        victim=LockOwner.from_json(members[victim_index].get("info")),
        policy=_policy(document["policy"]),
    )


def _edges(members: object) -> tuple[CycleEdge, ...]:
    edges: list[CycleEdge] = []
    for each in _list(members):
        owner, resource = LockOwner.from_json(each.get("info")), _resource(each["lock"])
        edges.append(CycleEdge(owner.task, owner.run_id, resource.name, resource.key))
    return tuple(edges)


def _holder(document: Mapping[str, Any], now_ms: float) -> LockHolder:
    owner = LockOwner.from_json(document.get("info"))
    return LockHolder(
        task=owner.task,
        run_id=owner.run_id,
        worker=owner.worker,
        trace_id=owner.trace_id,
        traceparent=str(document.get("traceparent") or ""),
        seconds=_seconds_since(document.get("held_since_ms"), now_ms),
    )


def _resource(lock: str) -> ResourceKey:
    name, _, key = lock.partition(":")
    return ResourceKey(name, key)


def _object(text: object) -> dict[str, Any]:
    document = json.loads(text) if isinstance(text, str) else None
    if not isinstance(document, dict):
        raise TypeError("the answer is not a JSON object")
    return cast("dict[str, Any]", document)


def _verdict_kind(value: object) -> VerdictKind:
    if value not in _VERDICT_KINDS:
        raise ValueError(f"{shown(value)} is no verdict")
    return cast("VerdictKind", value)


_VERDICT_KINDS: Final = frozenset(get_args(VerdictKind))


def _policy(value: object) -> VictimPolicy:
    if value not in _POLICIES:
        raise ValueError(f"{shown(value)} is no policy")
    return cast("VictimPolicy", value)


_POLICIES: Final = frozenset(get_args(VictimPolicy))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in the place of a text")
    return value


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{type(value).__name__} in the place of an integer")
    return value


def _list(value: object) -> list[Any]:
    """An empty list of Lua arrives as an empty JSON object."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _seconds_since(since_ms: object, now_ms: float) -> float:
    return max(0.0, (now_ms - _number(since_ms)) / 1000)
