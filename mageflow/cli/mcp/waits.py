"""Why a run, a signature or a flow does not go on, also through the flows inside of it."""

from typing import Any

from mageflow.cli.console import span
from mageflow.cli.inspect import find_description
from mageflow.cli.inspect.waits import Surroundings, Wait, name_of, waits_of_member, waits_of_record, waits_of_run
from mageflow.cli.mcp.sources import Sources
from mageflow.cli.top.sources import Snapshot
from mageflow.errors import SignatureError
from mageflow.signatures import ENDED, Status
from mageflow.store import Description

__all__ = ["surroundings_of", "why"]

_DEPTH = 4
"""Flows inside of flows that are followed."""
_MEMBERS = 200
"""Members that are read at once, and reasons that are enough."""
_PAGES = 20
"""Of so many members: a huge swarm does not keep Redis busy."""


def surroundings_of(snapshot: Snapshot) -> Surroundings:
    """What the workers of this host and Redis say at one moment."""
    return Surroundings(snapshot.locks, snapshot.attempts, snapshot.sleepers, snapshot.workers, snapshot.tasks)


async def why(sources: Sources, key: str, snapshot: Snapshot) -> list[dict[str, Any]]:
    """One reason for each thing that is waited for: ``waits_for`` (its kind), ``sentence`` and facts.

    Args:
        sources: What is read.
        key: A key or an id of a signature, a chain or a swarm, or the id of a run.
        snapshot: Workers and locks now.

    Raises:
        SignatureNotFoundError: Nothing is stored under it, and no worker that was read runs it.
        StoreError: Redis does not answer.
    """
    surroundings = surroundings_of(snapshot)
    if ":" not in key:
        attempt, waiters = surroundings.attempt_of(key), surroundings.waiters_of(key)
        if attempt is not None or waiters:
            task = attempt.task if attempt is not None else waiters[0].task
            return [_reason(task or "a program", each) for each in waits_of_run(key, task, surroundings)]
    return await _of_record(sources, key, surroundings, _DEPTH)


async def _of_record(sources: Sources, key: str, surroundings: Surroundings, depth: int) -> list[dict[str, Any]]:
    described = await find_description(sources.port, sources.settings, sources.namespace, key, first=0, limit=_MEMBERS)
    name = name_of(described)
    status = described.signature.status
    if status in ENDED:
        sentence = f"{name} waits for nothing: it has ended: {status}"
        return [{"waits_for": "nothing", "sentence": sentence, "status": str(status)}]
    if status == Status.SUSPENDED:
        return [_reason(name, each) for each in waits_of_record(described, has_members=False)]
    reasons: list[dict[str, Any]] = []
    for page in range(1, _PAGES + 1):
        reasons += await _of_members(sources, described, surroundings, depth)
        first = page * _MEMBERS
        if first >= described.members_total or len(reasons) >= _MEMBERS:
            break
        described = await find_description(
            sources.port, sources.settings, sources.namespace, key, first=first, limit=_MEMBERS
        )
    reasons += [_reason(name, each) for each in waits_of_record(described, has_members=bool(reasons))]
    return reasons or [_unknown(described)]


async def _of_members(
    sources: Sources, described: Description, surroundings: Surroundings, depth: int
) -> list[dict[str, Any]]:
    reasons: list[dict[str, Any]] = []
    for member in described.members:
        for wait in waits_of_member(described, member, surroundings):
            if wait.kind == "flow" and depth:
                try:
                    reasons += await _of_record(sources, member.flow_key, surroundings, depth - 1)
                except SignatureError as error:
                    reasons.append({"waits_for": "flow", "sentence": f"the nested flow cannot be read: {error}"})
            else:
                place = f"{member.role} {member.path}".strip()
                reasons.append(_reason(f"{place} ({member.task})" if member.task else place, wait))
    return reasons


def _reason(subject: str, wait: Wait) -> dict[str, Any]:
    since = "" if wait.seconds is None else f", for {span(wait.seconds)}"
    return {"waits_for": wait.kind, "sentence": f"{subject} waits for {wait.text}{since}", **wait.facts}


def _unknown(described: Description) -> dict[str, Any]:
    counts = {"live": described.live, "unsent": described.unsent, "held": described.held}
    return {
        "waits_for": "dispatch",
        "sentence": f"{name_of(described)} is {described.signature.status}: {described.live} members are with Hatchet, "
        f"{described.unsent} are to be sent",
        **counts,
    }
