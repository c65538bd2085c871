"""What the scripts decide, as typed values.

A script never builds the input of a run: user data passes through it as text. A `Decision` holds, for each thing that
has to be sent, the parts the input is built from.
"""

import json
from enum import StrEnum
from typing import Any, Literal, Self, cast

from mageflow._frozen import frozen
from mageflow.signatures import Status
from mageflow.store.keys import RecordKeys
from mageflow.store.paths import MemberPath
from mageflow.store.records.copies import StoredCopies
from mageflow.store.records.entries import OutboxEntry, read_entry, read_path

__all__ = [
    "ClosedFlow",
    "Decision",
    "FilledPlaces",
    "Inspection",
    "LifecycleDecision",
    "LifecycleVerdict",
    "ResentRun",
    "SettleVerdict",
    "Settlement",
    "SilentRun",
    "StartDecision",
    "StartVerdict",
    "SwarmDecision",
    "SwarmVerdict",
]


@frozen
class ClosedFlow:
    """A flow that this decision ended. Times are seconds since the epoch by the clock of Redis."""

    kind: Literal["chain", "swarm"]
    status: Status
    started_at: float
    ended_at: float
    steps: int
    """How many steps or items it has."""


@frozen
class FilledPlaces:
    """Places of a swarm that this decision filled."""

    count: int
    running: int
    """Items that run, with those."""
    pending: int
    """Items that wait for a place, without those."""


@frozen
class ResentRun:
    """A member that is handed to Hatchet again because its run is gone there."""

    path: MemberPath
    reason: Literal["lost", "unscheduled"]
    run_id: str
    """The run that is gone."""
    times: int
    """How often this member has been sent again, with this time."""


@frozen
class SilentRun:
    """A live run that no script has heard of for the check time."""

    path: MemberPath
    run_id: str
    attempt_number: int
    """The attempt that was admitted; 0 when the run has not been admitted yet."""
    error_json: str
    """The error of its last failed attempt; empty when there is none."""
    silent_seconds: float
    is_workflow: bool = False
    """Its run has several tasks."""


@frozen(kw_only=True)
class Decision:
    """What follows from one script, for the outbox relay to deliver.

    Exactly one process receives each part: the one whose script decided it.

    Attributes:
        keys: The record.
        outbox: The entries to send.
        closed: The flow, when this decision ended it.
        filled: Set when places of a swarm were filled.
        resent: Set when a member is sent again.
        failed_callback: The callback that failed for good, if one did.
        refill_after_seconds: Free places of a swarm are to be filled after this time; None when none waits for that.
        member_count: How many steps or items the flow has; 0 when nothing is sent.
        definition_json: The record's definition; empty when nothing here needs it.
        message_json: The whole message a flow was started with; empty when nothing is sent.
        message_set_json: The part of it that the caller set; empty where this is the whole.
        parent_value_json: What a nested flow was handed by its parent, ``{"result": …}`` or ``{"error": …}``.
        traceparent: The context that the flow's runs belong under.
    """

    keys: RecordKeys
    outbox: tuple[OutboxEntry, ...] = ()
    closed: ClosedFlow | None = None
    filled: FilledPlaces | None = None
    resent: ResentRun | None = None
    failed_callback: MemberPath | None = None
    refill_after_seconds: float | None = None
    member_count: int = 0
    definition_json: str = ""
    message_json: str = ""
    message_set_json: str = ""
    parent_value_json: str = ""
    traceparent: str = ""


class StartVerdict(StrEnum):
    """The result of starting a flow."""

    STARTED = "started"
    HELD = "held"
    """It is suspended; it begins at resume."""
    REPEATED = "repeated"
    """The same caller had started it before."""
    OWNED = "owned"
    """It was started before by another parent, or it has ended without a start."""
    EARLY = "early"
    """It is scheduled for later, or no more."""
    GONE = "gone"
    """It expired or was removed."""


@frozen(kw_only=True)
class StartDecision(Decision):
    """What the start of a flow led to.

    Attributes:
        verdict: What became of the start.
        status: The flow's status; None when it had none to report (see `verdict`).
        steps: How many steps or items it has.
    """

    verdict: StartVerdict
    status: Status | None = None
    steps: int = 0

    @classmethod
    def parse(cls, keys: RecordKeys, reply: Any) -> Self:
        """Read the reply of ``start.lua``."""
        verdict, facts, common = _open(keys, reply)
        status = facts.get("status")
        return cls(
            **common,
            verdict=StartVerdict(verdict),
            status=Status(status) if status else None,
            steps=int(facts.get("steps", 0)),
        )


class SettleVerdict(StrEnum):
    """The result of a settlement."""

    SETTLED = "settled"
    """The member has ended."""
    RECORDED = "recorded"
    """The failure is noted; another attempt is to come."""
    REPEATED = "repeated"
    """It had been settled before, as the end of the same run."""
    STALE = "stale"
    """Another run or attempt owns the member."""
    ENDED = "ended"
    """The member was interrupted."""
    RESENT = "resent"
    """The member is sent to Hatchet again."""
    ALIVE = "alive"
    """The worker reported that the run's task function still runs."""
    GONE = "gone"
    """The record expired or was removed."""


@frozen(kw_only=True)
class Settlement(Decision):
    """What a settlement led to."""

    verdict: SettleVerdict

    @classmethod
    def parse(cls, keys: RecordKeys, reply: Any) -> Self:
        """Read the reply of ``settle.lua``."""
        if reply == "settled":
            return cls(keys=keys, verdict=SettleVerdict.SETTLED)
        verdict, _, common = _open(keys, reply)
        return cls(**common, verdict=SettleVerdict(verdict))


class LifecycleVerdict(StrEnum):
    """The result of a lifecycle action."""

    APPLIED = "applied"
    """Now, or by an earlier call."""
    ILLEGAL = "illegal"
    """The status does not allow it; nothing was changed."""
    COPIED = "copied"
    """The signature was copied; nothing was changed."""


@frozen(kw_only=True)
class LifecycleDecision(Decision):
    """What a lifecycle action led to.

    Attributes:
        verdict: What became of it.
        status: The status after it; for ``illegal`` the status that forbids it.
        copies: For ``copied``: where to.
        is_scheduled: The record was interrupted, and a start of it lies ahead that is scheduled.
    """

    verdict: LifecycleVerdict
    status: Status
    copies: StoredCopies
    is_scheduled: bool = False

    @classmethod
    def parse(cls, keys: RecordKeys, reply: Any) -> Self | None:
        """Read the reply of ``lifecycle.lua``; None when the record or the member is not stored."""
        verdict, facts, common = _open(keys, reply)
        if verdict == "gone":
            return None
        copies = StoredCopies.parse(facts["copies"]) if "copies" in facts else StoredCopies()
        return cls(
            **common,
            verdict=LifecycleVerdict(verdict),
            status=Status(facts["status"]),
            copies=copies,
            is_scheduled="is_scheduled" in facts,
        )


@frozen
class RemovedRecord:
    """What a removed record leaves in Hatchet.

    Attributes:
        run_ids: Its runs that were live, and keys of nested flows.
        is_scheduled: A start of it lies ahead that is scheduled.
    """

    run_ids: tuple[str, ...]
    is_scheduled: bool


class SwarmVerdict(StrEnum):
    """The result of a change to a swarm."""

    CHANGED = "changed"
    """Items were added, the swarm was closed, or free places were filled, as requested."""
    CLOSED = "closed"
    """Nothing was added: the swarm accepts no more items."""
    FULL = "full"
    """Nothing was added: the swarm would hold more items than it may."""
    NO_SWARM = "no_swarm"
    """The record is a signature or a chain."""
    GONE = "gone"
    """It expired or was removed."""


@frozen(kw_only=True)
class SwarmDecision(Decision):
    """What a change to a swarm led to.

    Attributes:
        verdict: What became of it.
        first_item: Number of the first new item.
        limit: How many items the swarm may hold; for ``full``.
    """

    verdict: SwarmVerdict
    first_item: int = 0
    limit: int = 0

    @classmethod
    def parse(cls, keys: RecordKeys, reply: Any) -> Self:
        """Read the reply of ``swarm.lua``."""
        verdict, facts, common = _open(keys, reply)
        return cls(
            **common,
            verdict=SwarmVerdict(verdict),
            first_item=int(facts.get("first_item", 0)),
            limit=int(facts.get("limit", 0)),
        )


@frozen(kw_only=True)
class Inspection(Decision):
    """What a reconciler finds in a record: entries that were never sent, and runs that are silent.

    Attributes:
        status: The record's status; None when it expired or was removed.
        silent: Runs whose state Hatchet has to be asked for.
        is_due: A flow that is scheduled is to be started.
    """

    status: Status | None
    silent: tuple[SilentRun, ...] = ()
    is_due: bool = False

    @classmethod
    def parse(cls, keys: RecordKeys, reply: Any) -> Self:
        """Read the reply of ``inspect.lua``."""
        verdict, facts, common = _open(keys, reply)
        silent = tuple(
            SilentRun(
                read_path(keys, path), _text(run), int(attempt), _text(error), int(silence) / 1000, bool(is_workflow)
            )
            for path, run, attempt, error, silence, is_workflow in facts.get("silent", ())
        )
        status = None if verdict == "gone" else Status(verdict)
        return cls(**common, status=status, silent=silent, is_due=bool(facts.get("is_due")))


def _open(keys: RecordKeys, reply: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The verdict, the facts, and the fields of `Decision`, from the envelope of ``lib_flow.lua``."""
    verdict, text, definition, message, message_set, parent_value, traceparent, rows = cast("list[Any]", reply)
    facts: dict[str, Any] = json.loads(text)
    refill_after = facts.get("refill_after_ms")
    failed_callback = facts.get("failed_callback")
    common: dict[str, Any] = {
        "keys": keys,
        "outbox": tuple(read_entry(keys, row) for row in rows),
        "closed": _closed(facts.get("closed")),
        "filled": _filled(facts.get("filled")),
        "resent": _resent(keys, facts.get("resent")),
        "failed_callback": None if failed_callback is None else read_path(keys, failed_callback),
        "refill_after_seconds": None if refill_after is None else refill_after / 1000,
        "member_count": int(facts.get("members", 0)),
        "definition_json": definition,
        "message_json": message,
        "message_set_json": message_set,
        "parent_value_json": parent_value,
        "traceparent": traceparent,
    }
    return verdict, facts, common


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text is stored")
    return value


def _closed(found: dict[str, Any] | None) -> ClosedFlow | None:
    if found is None:
        return None
    return ClosedFlow(
        kind=found["kind"],
        status=Status(found["status"]),
        started_at=found["started_ms"] / 1000,
        ended_at=found["ended_ms"] / 1000,
        steps=int(found["steps"]),
    )


def _filled(found: dict[str, Any] | None) -> FilledPlaces | None:
    return None if found is None else FilledPlaces(int(found["count"]), int(found["running"]), int(found["pending"]))


def _resent(keys: RecordKeys, found: dict[str, Any] | None) -> ResentRun | None:
    if found is None:
        return None
    return ResentRun(read_path(keys, found["path"]), found["reason"], found["run_id"], int(found["times"]))
