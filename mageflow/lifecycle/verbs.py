"""Suspend, resume, interrupt and remove, over any kind of signature or a member of one.

Each verb is one script and one round trip; what it leads to comes back as a `Decision` for whoever sends. This room
owns what the verbs say about themselves. It refuses to know how anything is sent.
"""

from datetime import UTC, datetime

from mageflow.signatures import FailureRecord
from mageflow.store import Decision, Store

__all__ = ["Lifecycle"]


class Lifecycle:
    """The verbs, as decisions.

    Args:
        store: Where signatures are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def suspend(self, key: str, *, by: str = "", why: str = "") -> Decision:
        """Let nothing more of it start.

        A body that runs goes on to its end, and its result is kept; the next step, the next items and the callbacks
        wait. A run that arrives is turned away (it ends cancelled, ``skipped``) and held with its message. Nested
        flows that run are suspended too.

        Raises:
            SignatureNotFoundError: It expired or was removed.
            IllegalTransitionError: It has ended.
        """
        return await self._store.obey(key, "suspend", by=by, why=why)

    async def resume(self, key: str, *, by: str = "", why: str = "") -> Decision:
        """Go on from exactly there: what was held is sent again, what ended meanwhile has its consequences now.

        Nothing that succeeded runs again, and a body that is still running is left alone.

        Raises:
            SignatureNotFoundError: It expired or was removed.
            IllegalTransitionError: It has ended.
        """
        return await self._store.obey(key, "resume", by=by, why=why)

    async def interrupt(self, key: str, *, by: str = "", why: str = "") -> Decision:
        """End it now: runs are cancelled in Hatchet, what waits is dropped, error callbacks fire.

        The error they receive has the type ``TaskInterrupted`` and ``why`` as its message. A flow that never began
        ends silently. Callbacks of what had ended before, held back by a suspension, fire now. Interrupting a step or
        an item counts as its cancellation: its chain ends as cancelled. A late result changes nothing.

        Raises:
            SignatureNotFoundError: It expired or was removed.
            IllegalTransitionError: It has ended in another way.
        """
        error = FailureRecord(type="TaskInterrupted", message=why, outcome="cancelled", at=datetime.now(UTC))
        return await self._store.obey(key, "interrupt", by=by, why=why, error=error)

    async def remove(self, key: str) -> list[str] | None:
        """Delete it with everything stored for it; no callback fires.

        Returns:
            Ids of the runs that were live, to be cancelled; None when there was nothing to delete.
        """
        return await self._store.remove(key)
