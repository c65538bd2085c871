"""What ``mageflow tail`` prints: one happening, as a line for people and as an object for programs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from mageflow.cli.console import span
from mageflow.store import Description, MemberDescription
from mageflow.terminal import printable

__all__ = ["Happening", "of_attempt", "of_deadlock", "of_record"]

_STAGES = {"lock_wait": "lock", "signature_load": "loading"}


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened."""

    at: float
    """Epoch seconds."""
    what: str
    """What it became or did: a status, ``sent``, ``held``, an outcome of an attempt, or ``deadlock``."""
    subject: str
    """``task``, ``chain`` or ``swarm`` for a record; ``step``, ``item``, ``run`` or a callback for a member;
    ``attempt`` or ``deadlock``."""
    name: str
    """Of the task, or of the flow."""
    key: str = ""
    """Of the record or member; empty for what Redis does not know."""
    run: str = ""
    detail: str = ""
    """Error, reason, or where the time went."""
    seconds: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def identity(self) -> tuple[object, ...]:
        """The same for the same happening, in whichever look it is found."""
        return (self.at, self.what, self.subject, self.name, self.key, self.run)

    def document(self) -> dict[str, Any]:
        """The happening as JSON values."""
        return {**asdict(self), "at": datetime.fromtimestamp(self.at, UTC).isoformat()}

    def line(self) -> str:
        """The happening as one line of text without control characters."""
        moment = datetime.fromtimestamp(self.at).astimezone()
        clock = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"
        took = "" if self.seconds is None else f"  {span(self.seconds)}"
        detail = f"  {self.detail}" if self.detail else ""
        where = f"  {self.key or self.run}" if self.key or self.run else ""
        return printable(f"{clock}  {self.what:<11} {self.subject} {self.name}{took}{detail}{where}")


def of_record(described: Description) -> Iterator[Happening]:
    """Every change of a record and of its members that is stored with its time, in no order."""
    signature = described.signature
    name = described.name
    for each in signature.history:
        by = f"by {each.by}" if each.by else ""
        detail = ": ".join(part for part in (by, each.why) if part)
        seconds = None
        if described.ended_at is not None and described.started_at is not None and each.at == described.ended_at:
            seconds = (described.ended_at - described.started_at).total_seconds()
        yield Happening(
            each.at.timestamp(), str(each.status), described.kind, name, described.record, "", detail, seconds
        )
    for each in described.members:
        if each.changed_at is not None and each.stage:
            yield _of_member(each)


def _of_member(each: MemberDescription) -> Happening:
    ended = each.stage in ("done", "failed", "cancelled", "interrupted")
    error = each.last_error
    seconds = None
    if ended and each.changed_at is not None and each.decided_at is not None:
        seconds = (each.changed_at - each.decided_at).total_seconds()
    return Happening(
        each.changed_at.timestamp() if each.changed_at is not None else 0.0,
        each.stage,
        each.role,
        each.task or each.flow_key,
        each.key,
        "" if each.last_run is None else each.last_run.workflow_run_id,
        f"{error.type}: {error.message}" if error is not None and each.stage != "done" else "",
        seconds,
        dict(each.stages) if ended else {},
    )


def of_attempt(row: Mapping[str, Any]) -> Happening:
    """An attempt that ended, as a worker reports it in ``/debug/runs``.

    Raises:
        KeyError: A field is missing: it is no attempt.
        TypeError: A field has another type.
    """
    stages: Mapping[str, float] = row["stages"]
    parts = {_STAGES.get(name, name): float(value) for name, value in stages.items()}
    if row["queue_wait_s"] is not None:
        parts = {"queue": float(row["queue_wait_s"]), **parts}
    shown = ", ".join(f"{name} {span(value)}" for name, value in parts.items() if value >= 0.001)  # noqa: PLR2004 - 1 ms
    error = ": ".join(part for part in (str(row["exception"]), str(row["message"])) if part)
    return Happening(
        float(row["started_at"]) + float(row["elapsed_s"]),
        str(row["outcome"] or "evicted"),
        "attempt",
        str(row["task"]),
        "",
        str(row["run_id"]),
        "; ".join(each for each in (error, shown) if each),
        float(row["elapsed_s"]),
        parts,
    )


def of_deadlock(row: Mapping[str, Any]) -> Happening:
    """A deadlock that was broken, as a worker reports it in ``/debug/runs``.

    Raises:
        KeyError: A field is missing: it is no deadlock.
        TypeError: A field has another type.
    """
    cycle = " -> ".join(f"{each['task'] or 'a program'} waits for {each['lock']}" for each in row["cycle"])
    victim = row["victim"]
    return Happening(
        float(row["at"]), "broken", "deadlock", str(victim["task"]), "", str(victim["run_id"]), f"{cycle} -> the first"
    )
