"""Flows as trees, from Redis: what runs now and what ended in the last hour."""

import asyncio
import heapq
import time
from collections.abc import Sequence
from contextlib import suppress

from mageflow.cli.top.sources.snapshot import FlowNode, MemberNode
from mageflow.errors import SignatureError
from mageflow.signatures import ENDED, FailureRecord, Status
from mageflow.store import (
    Description,
    FoundSignature,
    Keys,
    MemberDescription,
    RedisPort,
    describe_record,
    search_records,
)

__all__ = ["read_flow", "read_flows"]

_SHOWN = 15
_MEMBERS = 12
_DEPTH = 3
_READ_ENTRIES = 3000
"""Entries of the indexes that one reading looks at: Redis serves other clients meanwhile, and the view stays quick."""
_ENDED_SECONDS = 3600.0


async def read_flows(port: RedisPort, keys: Keys) -> tuple[FlowNode, ...]:
    """Flows that have not ended first, then those that ended in the last hour; each with the latest change first.

    A nested flow is below the member of its parent that it stands for.

    Raises:
        StoreError: Redis does not answer.
    """
    going = [each for each in Status if each not in ENDED and each != Status.PENDING]
    ended = [each for each in Status if each in ENDED]
    found = await _latest(port, keys, going, since=0.0)
    found += await _latest(port, keys, ended, since=time.time() - _ENDED_SECONDS)
    described = await asyncio.gather(*(_describe(port, keys, each.key, _DEPTH) for each in found[:_SHOWN]))
    nodes = [each for each in described if each is not None]
    nested = {member.nested.key for node in nodes for member in _all_members(node) if member.nested is not None}
    return tuple(node for node in nodes if node.key not in nested)


async def read_flow(port: RedisPort, keys: Keys, key: str) -> FlowNode | None:
    """One flow with its nested ones; None if it expired, was removed, or cannot be read.

    Raises:
        StoreError: Redis does not answer.
    """
    return await _describe(port, keys, key, _DEPTH)


def _all_members(node: FlowNode) -> "list[MemberNode]":
    found: list[MemberNode] = []
    for member in node.members:
        found.append(member)
        if member.nested is not None:
            found += _all_members(member.nested)
    return found


async def _latest(port: RedisPort, keys: Keys, statuses: Sequence[Status], *, since: float) -> list[FoundSignature]:
    latest: list[tuple[float, str, FoundSignature]] = []
    read = 0
    async for each in search_records(port, keys, kinds=("chain", "swarm"), statuses=statuses, since=since):
        entry = (each.updated_at.timestamp(), each.key, each)
        if len(latest) < _SHOWN:
            heapq.heappush(latest, entry)
        else:
            heapq.heappushpop(latest, entry)
        read += 1
        if read >= _READ_ENTRIES:
            break
    return [each for _, _, each in sorted(latest, key=lambda entry: entry[:2], reverse=True)]


async def _describe(port: RedisPort, keys: Keys, key: str, depth: int) -> FlowNode | None:
    # It may expire meanwhile, or be damaged: the others are shown.
    with suppress(SignatureError):
        described = await describe_record(port, keys, key, limit=_MEMBERS)
        nested = await asyncio.gather(
            *(
                _describe(port, keys, each.flow_key, depth - 1) if each.flow_key and depth else _nothing()
                for each in described.members
            )
        )
        return _node(described, nested)
    return None


async def _nothing() -> None:
    return None


def _node(described: Description, nested: Sequence[FlowNode | None]) -> FlowNode:
    signature = described.signature
    done, total = 0, described.members_total
    if signature.kind == "chain":
        done = signature.step
    elif signature.kind == "swarm":
        done, total = signature.succeeded + signature.failed, signature.total
    end = described.ended_at or described.at
    return FlowNode(
        key=signature.key,
        kind=described.kind,
        name=described.name,
        status=str(signature.status),
        started_at=None if described.started_at is None else described.started_at.timestamp(),
        seconds=None if described.started_at is None else (end - described.started_at).total_seconds(),
        done=done,
        total=total,
        error=_text(signature.last_error),
        members=tuple(_member(each, node) for each, node in zip(described.members, nested, strict=True)),
        members_total=described.members_total,
    )


def _member(each: MemberDescription, nested: FlowNode | None) -> MemberNode:
    run = each.last_run
    return MemberNode(
        path=str(each.path),
        role=each.role,
        task=each.task,
        status=str(each.status),
        stage=each.stage,
        attempts=each.attempts,
        run_id="" if run is None else run.workflow_run_id,
        changed_at=None if each.changed_at is None else each.changed_at.timestamp(),
        error=_text(each.last_error),
        nested=nested,
    )


def _text(error: FailureRecord | None) -> str:
    return "" if error is None else f"{error.type}: {error.message}"
