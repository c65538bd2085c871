"""Why a run, a signature or a flow does not go on: one reason for each thing it waits for, as a sentence with facts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mageflow.cli.console import span
from mageflow.cli.inspect import find_description
from mageflow.cli.mcp.sources import Sources
from mageflow.cli.top.sources import RunAttempt, Snapshot
from mageflow.errors import SignatureError
from mageflow.locks import Waiter
from mageflow.signatures import ENDED, Status
from mageflow.store import Description, MemberDescription

__all__ = ["Reason", "waits_of"]

_DEPTH = 4
"""Flows inside of flows that are followed."""
_MEMBERS = 200
"""Members that are read at once, and reasons that are enough."""
_PAGES = 20
"""Of so many members: a huge swarm does not keep Redis busy."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is waited for."""

    waits_for: str
    """``start``, ``resume``, ``dispatch``, ``worker``, ``stagger``, ``lock``, ``body``, ``place`` or ``close``;
    ``nothing`` for what has ended."""
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def document(self) -> dict[str, Any]:
        """The reason as data for JSON."""
        return {"waits_for": self.waits_for, "sentence": self.sentence, **self.facts}


async def waits_of(sources: Sources, key: str, snapshot: Snapshot) -> list[Reason]:
    """Why something does not go on.

    Args:
        sources: What is read.
        key: A key or an id of a signature, a chain or a swarm, or the id of a run.
        snapshot: Workers and locks now.

    Raises:
        SignatureNotFoundError: Nothing is stored under it, and no worker that was read runs it.
        StoreError: Redis does not answer.
    """
    if ":" not in key:
        attempts = _attempts(snapshot, key)
        waiters = _waiters(snapshot, key)
        if attempts or waiters:
            return list(_of_run(key, attempts[0].task if attempts else waiters[0].task, snapshot))
    return await _of_record(sources, key, snapshot, _DEPTH)


async def _of_record(sources: Sources, key: str, snapshot: Snapshot, depth: int) -> list[Reason]:
    described = await find_description(sources.port, sources.settings, sources.namespace, key, first=0, limit=_MEMBERS)
    status = described.signature.status
    if status in ENDED:
        return [Reason("nothing", f"{_name(described)} has ended: {status}.", {"status": str(status)})]
    if status == Status.SUSPENDED:
        return [_suspended(described)]
    if status == Status.PENDING and not described.live and not described.unsent:
        return [Reason("start", f"{_name(described)} was not started, or its first run is not known to Redis.")]
    reasons: list[Reason] = []
    for page in range(1, _PAGES + 1):
        for member in described.members:
            if member.flow_key and member.stage in ("sent", "active") and depth:
                try:
                    reasons += await _of_record(sources, member.flow_key, snapshot, depth - 1)
                except SignatureError as error:
                    reasons.append(Reason("nothing", f"The nested flow cannot be read: {error}."))
            else:
                reasons += _of_member(member, described, snapshot)
        first = page * _MEMBERS
        if first >= described.members_total or len(reasons) >= _MEMBERS:
            break
        described = await find_description(
            sources.port, sources.settings, sources.namespace, key, first=first, limit=_MEMBERS
        )
    if described.kind == "swarm":
        reasons += _of_swarm(described)
    return reasons or [_unknown(described)]


def _name(described: Description) -> str:
    return f"The {described.kind} {described.name}" if described.name else f"The {described.kind}"


def _suspended(described: Description) -> Reason:
    entry = next((each for each in reversed(described.signature.history) if each.status == Status.SUSPENDED), None)
    by = f" by {entry.by}" if entry is not None and entry.by else ""
    why = f" ({entry.why})" if entry is not None and entry.why else ""
    since = "" if entry is None else f" {span((described.at - entry.at).total_seconds())} ago"
    return Reason(
        "resume",
        f"{_name(described)} was suspended{by}{since}{why}: nothing starts before resume.",
        {"key": described.signature.key, "held": described.held, "live": described.live},
    )


def _of_member(member: MemberDescription, described: Description, snapshot: Snapshot) -> Iterator[Reason]:
    facts = {"key": member.key, "task": member.task}
    place = f"{member.role} {member.path}".strip()
    if member.stage == "held" or (member.status == Status.SUSPENDED and not member.stage):
        yield Reason("resume", f"{place} ({member.task}) is suspended: it starts after resume.", facts)
    elif member.stage == "queued":
        wait = described.checked_in_seconds
        if wait is not None and wait < -1:
            check = f"a reconciler is {span(-wait)} late: start a worker of this namespace"
        else:
            check = "its sender or a reconciler does it" + (f", in {span(wait)} at the latest" if wait else "")
        yield Reason("dispatch", f"{place} ({member.task}) is not known to be sent to Hatchet: {check}.", facts)
    elif member.stage in ("sent", "active"):
        run = member.last_run.workflow_run_id if member.last_run is not None else ""
        for reason in _of_run(run, member.task, snapshot, has_started=member.stage == "active"):
            yield Reason(reason.waits_for, f"{place}: {reason.sentence}", {**facts, **reason.facts})


def _of_run(run_id: str, task: str, snapshot: Snapshot, *, has_started: bool = False) -> Iterator[Reason]:
    """What a run that was sent waits for: a worker, its stagger, locks, or its own function."""
    waiters = _waiters(snapshot, run_id)
    attempt = next(iter(_attempts(snapshot, run_id)), None)
    for waiter in waiters:
        yield _lock(waiter)
    if waiters:
        return
    if attempt is not None:
        yield _running(attempt, snapshot)
    elif has_started:
        yield Reason(
            "body",
            f"{task} has started on a worker that is not read here: read its host with --metrics, or its logs.",
            {"run_id": run_id},
        )
    else:
        yield _queued(run_id, task, snapshot)


def _attempts(snapshot: Snapshot, run_id: str) -> list[RunAttempt]:
    """Attempts of a run that have not ended."""
    return [each for each in snapshot.attempts if each.phase and run_id in (each.run_id, each.task_run_id)]


def _waiters(snapshot: Snapshot, run_id: str) -> list[Waiter]:
    if snapshot.locks is None or not run_id:
        return []
    return [each for each in snapshot.locks.waiters if run_id in (each.run_id, each.task_run_id)]


def _lock(waiter: Waiter) -> Reason:
    name = f"{waiter.lock}({waiter.resource})" if waiter.resource else waiter.lock
    holder = f"{waiter.holder_task or 'a program'} (run {waiter.holder_run_id or 'unknown'}) holds it"
    return Reason(
        "lock",
        f"{waiter.task or 'a program'} waits for the lock {name} for {span(waiter.waited_s)}, at position "
        f"{waiter.position}; {holder}.",
        {
            "run_id": waiter.run_id,
            "lock": waiter.lock,
            "resource": waiter.resource,
            "waited_s": round(waiter.waited_s, 3),
            "holder_run_id": waiter.holder_run_id,
        },
    )


def _running(attempt: RunAttempt, snapshot: Snapshot) -> Reason:
    facts = {"run_id": attempt.run_id, "attempt": attempt.attempt, "worker": attempt.worker, "phase": attempt.phase}
    if attempt.phase == "stagger":
        sleeper = next((each for each in snapshot.sleepers if each.run_id == attempt.run_id), None)
        if sleeper is not None:
            left = max(0.0, sleeper.delay_s - sleeper.slept_s)
            return Reason(
                "stagger",
                f"{attempt.task} sleeps in its stagger window of {span(sleeper.window_s)}: it wakes in {span(left)}.",
                {**facts, "wakes_in_s": round(left, 3)},
            )
        return Reason("stagger", f"{attempt.task} sleeps in its stagger window.", facts)
    if attempt.phase == "lock_wait":
        return Reason("lock", f"{attempt.task} waits for a lock.", facts)
    return Reason(
        "body",
        f"{attempt.task} runs on {attempt.worker or 'a worker'} (attempt {attempt.attempt} of {attempt.max_attempts}, "
        f"phase {attempt.phase}) since {span(attempt.elapsed_s)}.",
        {**facts, "elapsed_s": round(attempt.elapsed_s, 3)},
    )


def _queued(run_id: str, task: str, snapshot: Snapshot) -> Reason:
    row = next((each for each in snapshot.tasks if each.task == task), None)
    free = sum(each.slots - each.slots_used for each in snapshot.workers)
    if not snapshot.workers:
        why = "no worker is read here: check that one runs, with mageflow doctor"
    elif row is None:
        why = "no worker that is read here has run or declared it: add it to the workflows of a worker"
    elif free < 1:
        why = "every slot of the workers that are read here is taken"
    else:
        why = "slots are free here, so it is about to start, waits for a retry, or another limit of Hatchet holds it"
    facts: dict[str, Any] = {"run_id": run_id, "free_slots": free}
    if row is not None and row.waiting is not None:
        facts |= {"runs_of_this_task_waiting": row.waiting}
    return Reason("worker", f"{task} was sent to Hatchet and waits for a worker; {why}.", facts)


def _of_swarm(described: Description) -> Iterator[Reason]:
    swarm = described.signature
    if swarm.kind != "swarm":
        return
    at_once = swarm.config.max_concurrency
    if swarm.pending and at_once and swarm.running >= at_once:
        yield Reason(
            "place",
            f"{swarm.pending} items wait for a place: {swarm.running} run, and at most {at_once} run at once.",
            {"pending": swarm.pending, "running": swarm.running, "max_concurrency": at_once},
        )
    if not swarm.is_closed and not swarm.pending and not swarm.running:
        yield Reason(
            "close",
            f"{_name(described)} is open and has nothing left to run: it ends after close().",
            {"key": swarm.key, "total": swarm.total},
        )


def _unknown(described: Description) -> Reason:
    return Reason(
        "dispatch",
        f"{_name(described)} is {described.signature.status}: {described.live} members are with Hatchet, "
        f"{described.unsent} are to be sent.",
        {"live": described.live, "unsent": described.unsent, "held": described.held},
    )
