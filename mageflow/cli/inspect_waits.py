"""What a signature or flow waits for now, as sentences with the place of each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mageflow.cli.console import span
from mageflow.locks import LocksReport
from mageflow.store import Description, MemberDescription

__all__ = ["Wait", "waits_of"]

_MOST = 20


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that is waited for."""

    path: str
    """The member; empty for the record itself."""
    kind: str
    """``start``, ``resume``, ``close``, ``reconciler``, ``sender``, ``worker``, ``lock``, ``stagger``, ``flow``,
    ``body`` or ``running``."""
    text: str
    seconds: float | None
    """Since when, if that is known."""


def waits_of(
    described: Description, locks: LocksReport | None, attempts: Sequence[Mapping[str, Any]]
) -> tuple[Wait, ...]:
    """What the record or member waits for, at most 20.

    Args:
        described: The record or member.
        locks: The locks of its namespace; None if they were not read.
        attempts: Attempts that run now in the workers of this host, as in ``/debug/runs``.
    """
    found = [*_of_members(described, locks, attempts)]
    return (*_of_record(described, has_members=bool(found)), *found)[:_MOST]


def _of_record(described: Description, *, has_members: bool) -> Iterator[Wait]:
    signature = described.signature
    if signature.status == "suspended":
        last = signature.history[-1] if signature.history else None
        by = f" by {last.by}" if last is not None and last.by else ""
        why = f": {last.why}" if last is not None and last.why else ""
        since = None if last is None else (described.at - last.at).total_seconds()
        yield Wait("", "resume", f"resume; it was suspended{by}{why}", since)
    elif signature.status == "pending" and described.path.is_record:
        verb = "a run" if described.kind == "task" else "the flow that it is part of" if described.parent else "a start"
        yield Wait("", "start", verb, (described.at - signature.created_at).total_seconds())
    elif signature.kind == "swarm" and signature.status == "active" and not has_members and not signature.is_closed:
        yield Wait("", "close", "an item, or its close: a swarm ends when it is closed", None)
    late = described.checked_in_seconds
    if described.unsent and late is not None and late < 0:
        yield Wait("", "reconciler", f"a worker that reconciles: {described.unsent} to be sent, none does it", -late)


def _of_members(
    described: Description, locks: LocksReport | None, attempts: Sequence[Mapping[str, Any]]
) -> Iterator[Wait]:
    for each in described.members:
        wait = _of_member(described, each, locks, attempts)
        if wait is not None:
            yield wait


def _of_member(
    described: Description, each: MemberDescription, locks: LocksReport | None, attempts: Sequence[Mapping[str, Any]]
) -> Wait | None:
    path = str(each.path)
    since = None if each.changed_at is None else (described.at - each.changed_at).total_seconds()
    if each.stage == "held":
        return Wait(path, "resume", "resume; it is held", since)
    if each.stage == "queued":
        return Wait(path, "sender", "a worker that sends it to Hatchet: it is decided, not known to be sent", since)
    if each.stage == "sent":
        return Wait(path, "worker", f"a worker with a free slot for {each.task}: Hatchet has its run", since)
    if each.stage != "active":
        return None
    if each.flow_key:
        return Wait(path, "flow", f"the flow {each.flow_key}", since)
    return _of_run(each, path, since, locks, attempts)


def _of_run(
    each: MemberDescription,
    path: str,
    since: float | None,
    locks: LocksReport | None,
    attempts: Sequence[Mapping[str, Any]],
) -> Wait:
    run_id = "" if each.last_run is None else each.last_run.workflow_run_id
    for wait in locks.waiters if locks is not None else ():
        if wait.run_id == run_id:
            name = f"{wait.lock} {wait.resource}".rstrip()
            held = f", held by {wait.holder_task or 'a program'}" if wait.holder_run_id or wait.holder_task else ""
            run = f" run {wait.holder_run_id}" if wait.holder_run_id else ""
            return Wait(path, "lock", f"the lock {name}{held}{run}; place {wait.position} in line", wait.waited_s)
    for attempt in attempts:
        if attempt.get("run_id") != run_id:
            continue
        stagger = attempt.get("stagger")
        if isinstance(stagger, Mapping):
            left = max(0.0, float(stagger["delay_s"]) - float(stagger["slept_s"]))
            return Wait(path, "stagger", f"its stagger: it sleeps {span(left)} more", float(stagger["slept_s"]))
        return Wait(path, "body", f"its body: {each.task} runs, attempt {attempt.get('attempt')}", since)
    return Wait(path, "running", f"the end of {each.task}, which runs or sleeps in its stagger", since)
