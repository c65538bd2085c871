"""Suspend, resume, interrupt and remove: the lifecycle actions on a signature, a flow, or a member of one.

Each action is one script. The script changes Redis atomically, and a repeated action changes nothing. This module sends
what the script decided: runs of the next steps, cancellations, actions on nested flows.
"""

from dataclasses import dataclass, field
from typing import Final

from mageflow.errors import (
    FlowDefinitionError,
    IllegalTransitionError,
    SignatureCopiedError,
    SignatureError,
    SignatureInvalidError,
    SignatureNotFoundError,
)
from mageflow.flows.outbox import OutboxRelay
from mageflow.signatures import FailureRecord, LifecycleAction, Status
from mageflow.store import LifecycleDecision, LifecycleVerdict, Store, flow_of_run
from mageflow.types import Dispatcher

__all__ = ["Lifecycle"]

_MAX_DEPTH: Final = 32


class Lifecycle:
    """Implements `mageflow.signatures.SignatureLifecycle`.

    Every method raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError` when Redis fails. After
    `StoreUnavailableError` it is unknown whether the action was applied; repeat the call. ``by`` and ``why`` are kept
    in the history; of an interruption ``why`` is the message of the error too.

    A ``key`` is that of a signature, a flow, or a member (``<key>#<path>``). A callback key of a task signature
    (``TaskSignature.success_callbacks``) stands for that callback of every run. A signature that became a step, an item
    or a callback was copied: its key reaches its own runs and the copy, if there is one that has not ended; three round
    trips more. Of several copies each has to be named by its own key.

    Args:
        store: Keeps the signatures.
        dispatcher: Cancels the runs of a removed signature, and deletes its scheduled runs.
        outbox: Sends what an action decided.
    """

    def __init__(self, store: Store, dispatcher: Dispatcher, outbox: OutboxRelay) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._outbox = outbox

    async def suspend(self, key: str, *, by: str = "", why: str = "") -> Status:
        """Start nothing more of a signature or flow until `resume`. A task function that is running goes on to its end.

        One round trip to Redis, atomic for the record; one more for each nested flow, which is suspended a moment
        later. Refreshes the active TTL. No call to Hatchet.

        Returns:
            ``Status.SUSPENDED``.

        Raises:
            SignatureNotFoundError: The record expired or was removed.
            SignatureCopiedError: It was copied more than once; nothing was changed.
            IllegalTransitionError: It has ended, or it can never begin.
        """
        return await self._apply(key, "suspend", by, why)

    async def resume(self, key: str, *, by: str = "", why: str = "") -> Status:
        """Continue a suspended signature or flow: send the runs that were held, and what followed meanwhile.

        One round trip to Redis, atomic for the record, and one call to Hatchet if runs are sent; one round trip more
        for each nested flow. Refreshes the active TTL.

        Returns:
            The status it has now: ``Status.ACTIVE``, ``Status.PENDING`` if it had not started before, or the status
            it ended with if its last member ended while it was suspended.

        Raises:
            SignatureNotFoundError: The record expired or was removed.
            SignatureCopiedError: It was copied more than once; nothing was changed.
            IllegalTransitionError: It has ended, or it can never begin.
        """
        return await self._apply(key, "resume", by, why)

    async def interrupt(self, key: str, *, by: str = "", why: str = "") -> Status:
        """End a signature or flow now: cancel its runs, drop its waiting members, and send its error callbacks.

        Callbacks that a suspension held back run now. The error callbacks of a flow that never started do not run.

        One round trip to Redis, atomic for the record, and one call to Hatchet; one round trip more for each nested
        flow, two calls more for a task signature with scheduled runs ahead. The done TTL applies from then on.

        Returns:
            ``Status.INTERRUPTED``.

        Raises:
            SignatureNotFoundError: The record expired or was removed.
            SignatureCopiedError: It was copied more than once; nothing was changed.
            IllegalTransitionError: It has ended in another way, or it is a member that has not begun.
            DispatchError: Hatchet did not delete the scheduled runs. It is interrupted all the same.
        """
        return await self._apply(key, "interrupt", by, why, FailureRecord.interrupted(why))

    async def remove(self, key: str) -> bool:
        """Delete a signature or flow with everything stored for it, and cancel its runs. No callback runs.

        One round trip to Redis for the record and for each nested flow, each atomic; then one call to Hatchet for each
        record with live runs, and two for a task signature with scheduled runs ahead.

        Returns:
            False if nothing was stored under the key.

        Raises:
            FlowDefinitionError: The key is a member of a flow.
            DispatchError: Hatchet did not cancel the runs, or did not delete the scheduled runs. Everything stored is
                deleted all the same.
            SignatureError: A nested flow cannot be removed: another release has stored it, or its key is damaged. All
                else is deleted and cancelled.
        """
        if not self._store.keys.parse(key).member.is_record:
            raise FlowDefinitionError(f"{key!r} is a member: remove the flow or signature it belongs to")
        removed = await self._store.remove(key)
        if removed is None:
            return False
        refused: list[SignatureError | FlowDefinitionError] = []
        for nested in [flow for run_id in removed.run_ids if (flow := flow_of_run(run_id)) is not None]:
            try:
                await self.remove(nested)
            except (SignatureError, FlowDefinitionError) as error:
                refused.append(error)
        if live := [run_id for run_id in removed.run_ids if flow_of_run(run_id) is None]:
            await self._dispatcher.cancel(live)
        if removed.is_scheduled:
            await self._delete_scheduled(key)
        if refused:
            raise refused[0]
        return True

    async def _delete_scheduled(self, key: str) -> None:
        if self._store.keys.parse(key).kind == "task":  # Redis keeps the times of flows
            await self._dispatcher.delete_scheduled(key)

    async def _apply(
        self, key: str, action: LifecycleAction, by: str, why: str, error: FailureRecord | None = None
    ) -> Status:
        decision = await self._store.apply_lifecycle(key, action, by=by, why=why, error=error)
        if decision.verdict is not LifecycleVerdict.COPIED:
            await self._deliver(key, decision)
            return decision.status
        found = await self._copies(key, decision, action)
        if len(found.last) > 1 or (found.last and found.has_more):
            raise SignatureCopiedError(key, action, tuple(found.last), has_more=found.has_more)
        # First what runs: when the copy refuses, nothing is changed.
        reached: Status | None = None
        for each in (*found.last, *found.between, key):
            try:
                decision = await self._store.apply_lifecycle(each, action, by=by, why=why, error=error, scope="own")
            except (IllegalTransitionError, SignatureNotFoundError):
                if reached is None:
                    raise
                continue
            await self._deliver(each, decision)
            reached = reached or decision.status
        return reached or decision.status

    async def _deliver(self, key: str, decision: LifecycleDecision) -> None:
        await self._outbox.deliver(decision)
        if decision.is_scheduled:
            await self._delete_scheduled(key)

    async def _copies(
        self, key: str, decision: LifecycleDecision, action: LifecycleAction, depth: int = 0
    ) -> "_Copies":
        """What became of a signature, and of what it became in turn.

        A callback of a signature that was copied itself is a member of that signature and of the flow.
        """
        found = _Copies(has_more=decision.copies.has_more)
        below = str(self._store.keys.parse(key).member)  # of a callback its path: the copy has it below its own
        for copy in decision.copies.keys:
            key = copy + below
            try:
                look = await self._store.apply_lifecycle(key, action, scope="look")
            except (IllegalTransitionError, SignatureNotFoundError):
                continue  # it has ended, or was never stored because its worker died
            except SignatureInvalidError:
                found.last[key] = None  # the action itself reports the damage
                continue
            further = _Copies()
            if look.verdict is LifecycleVerdict.COPIED and depth < _MAX_DEPTH:
                further = await self._copies(key, look, action, depth + 1)
            if further.last:
                found.last |= further.last
                found.between |= {key: None} | further.between
                found.has_more |= further.has_more
            else:
                found.last[key] = None
        return found


@dataclass
class _Copies:
    """Keys of copies; dictionaries keep their order and each once."""

    last: dict[str, None] = field(default_factory=dict[str, None])
    """Those that were not copied further, and have not ended."""
    between: dict[str, None] = field(default_factory=dict[str, None])
    has_more: bool = False
