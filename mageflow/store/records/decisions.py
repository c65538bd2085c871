"""What the scripts answer, as values.

A script never builds the input of a run: user data passes through it as text. What it hands back is a `Decision`, and
in it, for each thing to be sent, the pieces the input is made of.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from mageflow.signatures import RunIdentity, TaskSignature
from mageflow.store.keys import RecordKeys

__all__ = ["Admission", "ClosedFlow", "Decision", "OutboxEntry", "ResentRun", "SilentRun", "dedupe_key", "locate"]

_UNSAFE: Final = re.compile(r"[^\w-]")
"""What may not stand in the path of a member."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One entry of the outbox.

    Attributes:
        path: The member, ``^`` for news to the parent flow, ``!…`` for a cancellation or a verb to a nested flow.
        kind: ``run`` a task, ``start`` a nested flow, tell the parent (``up``), ``cancel`` a run, pass on a ``verb``.
        epoch: Which dispatch of the member this is.
        definition_json: The member's definition.
        role: Why: ``step``, ``item``, ``success``, ``error``, ``rerun``; for ``up`` the status reached.
        value_json: The previous result or the error; for ``cancel`` the run id, for ``verb`` ``<verb>:<key>``.
        extra: The input that failed, or the message of a rerun; for ``up`` the parent's member.
        link: Traceparent of what led to this.
        tries: How often a reconciler had to try before.
    """

    path: str
    kind: Literal["run", "start", "up", "cancel", "verb"]
    epoch: int
    definition_json: str
    role: str
    value_json: str
    extra: str
    link: str
    tries: int = 0


@dataclass(frozen=True, slots=True)
class ClosedFlow:
    """A flow that has just ended, by the clock of Redis."""

    kind: Literal["chain", "swarm"]
    status: str
    started_at: float
    ended_at: float
    steps: int


@dataclass(frozen=True, slots=True)
class SilentRun:
    """A live run nobody has heard of for long."""

    path: str
    run_id: str
    attempt: int
    error_json: str
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class ResentRun:
    """A member that is handed to Hatchet again because its run is gone there."""

    path: str
    reason: Literal["lost", "unscheduled"]
    run_id: str
    times: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What a script decided, and everything that has to be sent because of it."""

    keys: RecordKeys
    verdict: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    definition_json: str = ""
    message_json: str = ""
    carry_json: str = ""
    traceparent: str = ""
    outbox: tuple[OutboxEntry, ...] = ()

    @classmethod
    def parse(cls, keys: RecordKeys, reply: Any) -> "Decision":
        """Read the envelope of ``lib_flow.lua``."""
        verdict, facts, definition, message, carry, trace, sends = cast("list[Any]", reply)
        return cls(
            keys=keys,
            verdict=verdict,
            facts=json.loads(facts),
            definition_json=definition,
            message_json=message,
            carry_json=carry,
            traceparent=trace,
            outbox=tuple(
                OutboxEntry(path, kind, int(epoch), text, role, value, extra, link, int(tries))
                for path, kind, epoch, text, role, value, extra, link, tries in sends
            ),
        )

    @property
    def closed(self) -> ClosedFlow | None:
        """The flow, when this very decision ended it; so exactly one process sees it."""
        closed = self.facts.get("closed")
        if closed is None:
            return None
        return ClosedFlow(
            kind=closed["kind"],
            status=closed["status"],
            started_at=closed["started"] / 1000,
            ended_at=closed["ended"] / 1000,
            steps=int(closed["steps"]),
        )

    @property
    def resent(self) -> ResentRun | None:
        """What this very decision has sent again; so exactly one process sees it."""
        found = self.facts.get("resent")
        return found and ResentRun(found["path"], found["reason"], found["run"], int(found["times"]))

    @property
    def silent(self) -> tuple[SilentRun, ...]:
        """Runs to ask Hatchet about (`inspect` only)."""
        return tuple(
            SilentRun(path, run, int(attempt), error, int(silence) / 1000)
            for path, run, attempt, error, silence in self.facts.get("silent", ())
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a run may execute its body.

    Attributes:
        verdict: ``run``: it owns the member now. ``replay``: the member had succeeded; hand out `result_json`.
            ``ended``: an earlier attempt of this run, `ended_attempt`, has ended the member as `status`; whether it
            goes on depends on what gave the run another attempt (`Flows.admit` asks). ``skip``: turn the run away
            visibly; `status` says why (a status, ``duplicate`` when another run owns the member, ``superseded`` when a
            newer dispatch or attempt does).
        status: The record's status, or the reason.
        signature: Set when the verdict is ``run``.
        result_json: Set when the verdict is ``replay``.
        flow_kind: ``chain`` or ``swarm`` for a step or an item (not for callbacks), else empty.
        flow_id: Id of the flow, as in telemetry.
        flow_name: Name of the flow.
        step: Number of the step or item, from 0.
        steps: How many there are.
        handover_seconds: From the end of the step before to now, by the clock of Redis; None for anything else.
        failed_attempts: How many earlier attempts of this run told that they failed. What is missing to the attempt's
            number was lost with its worker, and Hatchet does not count it against the task's retries.
        ended_attempt: The attempt that ended the member; 0 when it never began.
        traceparent: The context a flow's runs belong under.
    """

    verdict: Literal["run", "replay", "skip", "ended"]
    status: str = ""
    signature: TaskSignature | None = None
    result_json: str | None = None
    flow_kind: Literal["", "chain", "swarm"] = ""
    flow_id: str = ""
    flow_name: str = ""
    step: int = 0
    steps: int = 0
    handover_seconds: float | None = None
    failed_attempts: int = 0
    ended_attempt: int = 0
    traceparent: str = ""


def dedupe_key(keys: RecordKeys, path: str, epoch: int) -> str:
    """The deterministic key of one dispatch of one member.

    A run a user makes of a signature (path ``@<nonce>``) has ``<record>@<nonce>/<epoch>``, everything else
    ``<record>#<path>/<epoch>``.
    """
    is_user_run = path.startswith("@") and "." not in path
    return f"{keys.record}{path}/{epoch}" if is_user_run else f"{keys.record}#{path}/{epoch}"


def locate(keys: RecordKeys, run: RunIdentity) -> tuple[str, str]:
    """Path and epoch of the member a run belongs to; the epoch is empty when the run does not say.

    A run of a signature that carries no dedupe key of ours stands for itself: its member is its own run id.
    """
    if keys.path or keys.kind != "task":
        prefix = f"{keys.record}#{keys.path}/"
        epoch = run.dedupe_key.removeprefix(prefix) if run.dedupe_key.startswith(prefix) else ""
        return keys.path, epoch if epoch.isdigit() else ""
    prefix = f"{keys.record}@"
    if run.dedupe_key.startswith(prefix):
        nonce, _, epoch = run.dedupe_key.removeprefix(prefix).partition("/")
    else:
        nonce, epoch = run.dedupe_key or run.workflow_run_id, ""
    return f"@{_UNSAFE.sub('_', nonce)}", epoch if epoch.isdigit() else ""
