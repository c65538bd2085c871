"""What a signature, a flow or a run waits for now, from what is stored and from what the workers of a host say.

Pure functions. ``mageflow inspect`` and ``mageflow mcp`` show the same waits in the same words.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from mageflow.cli.console import span
from mageflow.cli.top.sources.snapshot import RunAttempt, Sleeper, TaskRow, WorkerRow
from mageflow.locks import LocksReport, Waiter
from mageflow.store import Description, MemberDescription

__all__ = ["Surroundings", "Wait", "name_of", "waits_of", "waits_of_member", "waits_of_record", "waits_of_run"]

_MOST = 20


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing that is waited for."""

    path: str
    """The member; empty for the record itself, and for a run."""
    kind: str
    """``start``, ``resume``, ``dispatch``, ``worker``, ``stagger``, ``lock``, ``body``, ``flow``, ``place`` or
    ``close``."""
    text: str
    """What is waited for, as the rest of a sentence that begins with "waits for"."""
    seconds: float | None = None
    """Since when, if that is known."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Ids and numbers, as JSON values."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What was read beside the record."""

    locks: LocksReport | None = None
    """The locks of the namespace; None if they were not read."""
    attempts: Sequence[RunAttempt] = ()
    """Attempts in the workers that were read."""
    sleepers: Sequence[Sleeper] = ()
    """Those of them that sleep in their stagger window."""
    workers: Sequence[WorkerRow] | None = None
    """The workers that were read; None if their metrics were not read."""
    tasks: Sequence[TaskRow] = ()

    def attempt_of(self, run_id: str) -> RunAttempt | None:
        """The attempt of a run that has not ended; None if no worker that was read has it."""
        found = (each for each in self.attempts if each.phase and run_id and run_id in (each.run_id, each.task_run_id))
        return next(found, None)

    def waiters_of(self, run_id: str) -> list[Waiter]:
        """Requests of a run that wait for a lock."""
        if self.locks is None or not run_id:
            return []
        return [each for each in self.locks.waiters if run_id in (each.run_id, each.task_run_id)]


def waits_of(described: Description, surroundings: Surroundings) -> tuple[Wait, ...]:
    """What the record or member waits for, at most 20: of the record first, then of the members that are described."""
    members = (wait for each in described.members for wait in waits_of_member(described, each, surroundings))
    found = list(islice(members, _MOST))
    return tuple(islice((*waits_of_record(described, has_members=bool(found)), *found), _MOST))


def waits_of_record(described: Description, *, has_members: bool) -> Iterator[Wait]:
    """What the record itself waits for.

    Args:
        described: The record.
        has_members: Whether a member of it waits for something.
    """
    signature = described.signature
    if signature.status == "suspended":
        last = signature.history[-1] if signature.history else None
        by = f" by {last.by}" if last is not None and last.by else ""
        why = f": {last.why}" if last is not None and last.why else ""
        since = None if last is None else (described.at - last.at).total_seconds()
        yield Wait("", "resume", f"resume; it was suspended{by}{why}", since, {"held": described.held})
    elif signature.status == "pending" and described.path.is_record and not has_members:
        verb = "the flow that it is part of" if described.parent and described.kind != "task" else "a start"
        at = signature.starts_at
        text, facts = (verb, {}) if at is None else (f"its time, {at:%Y-%m-%d %H:%M:%S} UTC", {"at": at.isoformat()})
        yield Wait("", "start", text, (described.at - signature.created_at).total_seconds(), facts)
    late = described.checked_in_seconds
    if described.unsent and late is not None and late < 0:
        text = f"a worker that reconciles: {described.unsent} to be sent, none does it"
        yield Wait("", "dispatch", text, -late, {"unsent": described.unsent})
    if signature.kind == "swarm" and signature.status == "active":
        at_once = signature.config.max_concurrency
        if signature.pending and at_once and signature.running >= at_once:
            yield Wait(
                "",
                "place",
                f"a place for {signature.pending} items: {signature.running} run, and at most {at_once} run at once",
                None,
                {"pending": signature.pending, "running": signature.running, "max_concurrency": at_once},
            )
        elif not has_members and not signature.is_closed:
            yield Wait("", "close", "an item, or its close: a swarm ends when it is closed", None)


def waits_of_member(described: Description, member: MemberDescription, surroundings: Surroundings) -> Iterator[Wait]:
    """What a member waits for; nothing if it has not begun or has ended."""
    path = str(member.path)
    since = None if member.changed_at is None else (described.at - member.changed_at).total_seconds()
    facts = {"key": member.key, "task": member.task}
    if member.stage == "held":
        yield Wait(path, "resume", "resume; it is held", since, facts)
    elif member.stage == "queued":
        text = "a worker that sends it to Hatchet: it is decided, not known to be sent"
        yield Wait(path, "dispatch", text, since, facts)
    elif member.flow_key and member.stage in ("sent", "active"):
        yield Wait(path, "flow", f"the flow {member.flow_key}", since, {"key": member.key, "flow": member.flow_key})
    elif member.stage in ("sent", "active"):
        run_id = "" if member.last_run is None else member.last_run.workflow_run_id
        started = member.stage == "active"
        for wait in waits_of_run(run_id, member.task, surroundings, since=since, has_started=started):
            yield Wait(path, wait.kind, wait.text, wait.seconds, {**facts, **wait.facts})


def waits_of_run(
    run_id: str, task: str, surroundings: Surroundings, *, since: float | None = None, has_started: bool = False
) -> Iterable[Wait]:
    """What a run that Hatchet has waits for: locks, its stagger, its own function, or a worker.

    Args:
        run_id: Hatchet's id of the run or of its task; empty if it is not known.
        task: Name of the task.
        surroundings: What was read.
        since: Seconds since its state changed.
        has_started: Whether Redis knows that a worker has admitted it.
    """
    waiters = surroundings.waiters_of(run_id)
    if waiters:
        return [_lock(each) for each in waiters]
    attempt = surroundings.attempt_of(run_id)
    if attempt is not None:
        return [_running(attempt, surroundings, since)]
    if has_started:
        return [Wait("", "body", f"the end of {task}, which runs or sleeps in its stagger", since, {"run_id": run_id})]
    return [_queued(run_id, task, surroundings, since)]


def name_of(described: Description) -> str:
    """The kind and name of a record, for a sentence."""
    return f"the {described.kind} {described.name}" if described.name else f"the {described.kind}"


def _lock(waiter: Waiter) -> Wait:
    name = f"{waiter.lock} {waiter.resource}".rstrip()
    held = f", held by {waiter.holder_task or 'a program'}" if waiter.holder_run_id or waiter.holder_task else ""
    run = f" run {waiter.holder_run_id}" if waiter.holder_run_id else ""
    facts = {
        "run_id": waiter.run_id,
        "lock": waiter.lock,
        "resource": waiter.resource,
        "position": waiter.position,
        "holder_run_id": waiter.holder_run_id,
    }
    return Wait("", "lock", f"the lock {name}{held}{run}; place {waiter.position} in line", waiter.waited_s, facts)


def _running(attempt: RunAttempt, surroundings: Surroundings, since: float | None) -> Wait:
    facts = {"run_id": attempt.run_id, "attempt": attempt.attempt, "worker": attempt.worker, "phase": attempt.phase}
    sleeper = next((each for each in surroundings.sleepers if each.run_id == attempt.run_id), None)
    if sleeper is not None:
        left = max(0.0, sleeper.delay_s - sleeper.slept_s)
        text = f"its stagger: it sleeps {span(left)} more"
        return Wait("", "stagger", text, sleeper.slept_s, {**facts, "wakes_in_s": round(left, 3)})
    if attempt.phase == "lock_wait":
        return Wait("", "lock", "a lock", since, facts)
    text = f"its body: {attempt.task} runs, attempt {attempt.attempt} of {attempt.max_attempts}"
    return Wait("", "body", text, attempt.elapsed_s, facts)


def _queued(run_id: str, task: str, surroundings: Surroundings, since: float | None) -> Wait:
    facts: dict[str, Any] = {"run_id": run_id}
    text = f"a worker with a free slot for {task}: Hatchet has its run"
    if surroundings.workers is None:
        return Wait("", "worker", text, since, facts)
    row = next((each for each in surroundings.tasks if each.task == task), None)
    free = sum(each.slots - each.slots_used for each in surroundings.workers)
    if not surroundings.workers:
        why = "no worker is read here: check that one runs, with mageflow doctor"
    elif row is None:
        why = "no worker that is read here has run or declared it: add it to the workflows of a worker"
    elif free < 1:
        why = "every slot of the workers that are read here is taken"
    else:
        why = "slots are free here, so it is about to start, waits for a retry, or another limit of Hatchet holds it"
    facts["free_slots"] = free
    if row is not None and row.waiting is not None:
        facts["runs_of_this_task_waiting"] = row.waiting
    return Wait("", "worker", f"{text}; {why}", since, facts)
