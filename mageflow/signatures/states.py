"""The lifecycle table: what may happen to a signature or flow, and which status it leads to.

========== ====== ===================== ======= =========== ============ ========= =============
Status     start  succeed / fail /      suspend resume      interrupt    remove    Ends the work
                  cancel (of a run)
========== ====== ===================== ======= =========== ============ ========= =============
pending    active done/failed/cancelled suspended (same)    interrupted  removed
active     active done/failed/cancelled suspended (same)    interrupted  removed
suspended  (held) suspended             (same)  the one     interrupted  removed
                                                before
done       active done/failed/cancelled error   error       error        removed   yes
failed     active done/failed/cancelled error   error       error        removed   yes
cancelled  active done/failed/cancelled error   error       error        removed   yes
interrupted (no)  interrupted           error   error       (same)       removed   yes
========== ====== ===================== ======= =========== ============ ========= =============

- *start*: a run is admitted. A task signature may start again after it has ended, because a user may run it any number
  of times. A chain or swarm runs once, and each of its steps succeeds once. A failed or cancelled one starts again when
  the run that ended it is **replayed** in Hatchet (`mageflow.flows.admissions.Admissions.admit`).
- *suspended* is stored on top of the status before. A run that arrives is held. A run that is executing may end, and
  its consequences wait for *resume*.
- *(same)*: the action was applied already; repeating it changes nothing.

The Lua scripts are given this table (`lua_table`), so that there is only one. Pure, no I/O.
"""

from enum import StrEnum
from typing import Final, Literal

from mageflow.errors import IllegalTransitionError

__all__ = ["ENDED", "TRANSITIONS", "LifecycleAction", "Status", "Transition", "after", "lua_table"]


class Status(StrEnum):
    """The status of a signature, a flow, or a member of a flow. Its values are strings: ``Status.DONE == "done"``."""

    PENDING = "pending"
    """Created; no run has started."""
    ACTIVE = "active"
    """A run was admitted by a worker, or the flow was started."""
    SUSPENDED = "suspended"
    """Nothing more starts until ``resume``."""
    DONE = "done"
    """It succeeded; a swarm also when some of its items failed."""
    FAILED = "failed"
    """Its last attempt raised or timed out, or its worker was lost."""
    CANCELLED = "cancelled"
    """Its run was cancelled in Hatchet."""
    INTERRUPTED = "interrupted"
    """Ended by ``interrupt``."""


LifecycleAction = Literal["suspend", "resume", "interrupt"]
"""What a user may do to a signature, a flow or a member of one; ``remove`` deletes it and is no transition."""

Transition = Literal["start", "succeed", "fail", "cancel", "suspend", "resume", "interrupt"]

ENDED: Final = frozenset({Status.DONE, Status.FAILED, Status.CANCELLED, Status.INTERRUPTED})
"""The final statuses: nothing is running or waiting to run."""

_END: Final[dict[Transition, Status]] = {"succeed": Status.DONE, "fail": Status.FAILED, "cancel": Status.CANCELLED}

TRANSITIONS: Final[dict[Status, dict[Transition, Status]]] = {
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
"""The status each transition leads to; a missing transition is illegal.

``resume`` of a signature that was suspended before it started leads to ``pending``. The table says ``active``; the
scripts know whether anything has started.
"""


def after(status: Status, transition: Transition, *, key: str = "") -> Status:
    """The status a transition leads to.

    Raises:
        IllegalTransitionError: The table does not allow it; the error names ``key``.

    >>> after(Status.ACTIVE, "suspend")
    <Status.SUSPENDED: 'suspended'>
    """
    try:
        return TRANSITIONS[status][transition]
    except KeyError:
        raise IllegalTransitionError(key, status.value, transition) from None


def lua_table() -> str:
    """The table as Lua source: ``TRANSITIONS[status][transition]`` and ``ENDED[status]``."""
    rows = ",".join(
        f"{status}={{{','.join(f'{transition}={target.value!r}' for transition, target in row.items())}}}"
        for status, row in TRANSITIONS.items()
    )
    ended = ",".join(f"{status}=true" for status in sorted(ENDED))
    return f"local TRANSITIONS = {{{rows}}}\nlocal ENDED = {{{ended}}}"
