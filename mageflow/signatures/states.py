"""The lifecycle as one table: what may happen to a signature or flow, and where it leads.

========== ====== ===================== ======= =========== ============ ========= =============
Status     start  succeed / fail /      suspend resume      interrupt    remove    Ends the work
                  cancel (of a run)
========== ====== ===================== ======= =========== ============ ========= =============
pending    active done/failed/cancelled suspended (same)    interrupted  removed
active     active done/failed/cancelled suspended (same)    interrupted  removed
suspended  (held) suspended             (same)  what it was interrupted  removed
done       active done/failed/cancelled error   error       error        removed   yes
failed     active done/failed/cancelled error   error       error        removed   yes
cancelled  active done/failed/cancelled error   error       error        removed   yes
interrupted (no)  interrupted           error   error       (same)       removed   yes
========== ====== ===================== ======= =========== ============ ========= =============

- *start*: a run is admitted. A plain signature may start again whenever it has ended, since a user may run it as often
  as they like; a chain or swarm runs once, and a step of one succeeds once. One that failed or was cancelled goes on
  when the run that ended it is **replayed** in Hatchet; see `mageflow.flows.Flows.admit`.
- *suspended* is remembered on top of what the signature was: a run that arrives is held, one that is already running
  may end, and nothing that follows from it happens before *resume*.
- *(same)*: the verb has been obeyed already; twice is once.

The scripts in Redis get this very table (`lua_table`), so there is no second copy to drift. Pure; no I/O.
"""

from enum import StrEnum
from typing import Final, Literal

from mageflow.errors import IllegalTransitionError

__all__ = ["ENDED", "TRANSITIONS", "Status", "Verb", "after", "lua_table"]


class Status(StrEnum):
    """Where a signature, a flow or a member of a flow is in its life."""

    PENDING = "pending"
    """Created; no run of it has started."""
    ACTIVE = "active"
    """A run was admitted, or the flow was started."""
    SUSPENDED = "suspended"
    """Nothing more starts until it is resumed."""
    DONE = "done"
    """Succeeded."""
    FAILED = "failed"
    """Failed for good: its last attempt raised or timed out, or its worker never came back."""
    CANCELLED = "cancelled"
    """Its run was cancelled in Hatchet."""
    INTERRUPTED = "interrupted"
    """Stopped by `interrupt`."""


Verb = Literal["start", "succeed", "fail", "cancel", "suspend", "resume", "interrupt"]

ENDED: Final = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED, Status.INTERRUPTED})
"""Nothing is running or waiting to run any more."""

_END: Final[dict[Verb, Status]] = {"succeed": Status.DONE, "fail": Status.FAILED, "cancel": Status.CANCELLED}

TRANSITIONS: Final[dict[Status, dict[Verb, Status]]] = {
    Status.PENDING: {
        "start": Status.ACTIVE,
        **_END,
        "suspend": Status.SUSPENDED,
        "resume": Status.PENDING,
        "interrupt": Status.INTERRUPTED,
    },
    Status.ACTIVE: {
        "start": Status.ACTIVE,
        **_END,
        "suspend": Status.SUSPENDED,
        "resume": Status.ACTIVE,
        "interrupt": Status.INTERRUPTED,
    },
    Status.SUSPENDED: {
        "succeed": Status.SUSPENDED,
        "fail": Status.SUSPENDED,
        "cancel": Status.SUSPENDED,
        "suspend": Status.SUSPENDED,
        "resume": Status.ACTIVE,
        "interrupt": Status.INTERRUPTED,
    },
    Status.DONE: {"start": Status.ACTIVE, **_END},
    Status.FAILED: {"start": Status.ACTIVE, **_END},
    Status.CANCELLED: {"start": Status.ACTIVE, **_END},
    Status.INTERRUPTED: {
        "succeed": Status.INTERRUPTED,
        "fail": Status.INTERRUPTED,
        "cancel": Status.INTERRUPTED,
        "interrupt": Status.INTERRUPTED,
    },
}
"""What each verb leads to. A verb that is missing is illegal.

``resume`` of a suspended signature that had never started leads back to ``pending``: the table says ``active``, and
the scripts, which know whether anything had started, may stay below it.
"""


def after(status: Status, verb: Verb, *, key: str = "") -> Status:
    """The status a verb leads to.

    Raises:
        IllegalTransitionError: The lifecycle does not allow it.

    >>> after(Status.ACTIVE, "suspend")
    <Status.SUSPENDED: 'suspended'>
    """
    try:
        return TRANSITIONS[status][verb]
    except KeyError:
        raise IllegalTransitionError(key, status.value, verb) from None


def lua_table() -> str:
    """The table as Lua source: ``TRANSITIONS[status][verb]`` and ``ENDED[status]``."""
    rows = ",".join(
        f"{status}={{{','.join(f'{verb}={target.value!r}' for verb, target in verbs.items())}}}"
        for status, verbs in TRANSITIONS.items()
    )
    ended = ",".join(f"{status}=true" for status in sorted(ENDED))
    return f"local TRANSITIONS = {{{rows}}}\nlocal ENDED = {{{ended}}}"
