"""Operations that begin a flow, and that suspend, resume or interrupt what is stored."""

from datetime import UTC, datetime
from typing import Literal, cast

from mageflow._frozen import frozen
from mageflow.errors import IllegalTransitionError, SignatureNotFoundError
from mageflow.interceptors import SignatureWrite
from mageflow.signatures import FailureRecord, LifecycleAction
from mageflow.store.records import declarations as scripts
from mageflow.store.records.calls import RecordOperations
from mageflow.store.records.decisions import LifecycleDecision, LifecycleVerdict, StartDecision
from mageflow.store.records.stored import moment
from mageflow.store.records.views import guarded

__all__ = ["LifecycleOperations", "StartRequest"]


@frozen
class StartRequest:
    """A flow to begin, and what it begins with.

    Attributes:
        key: Of the flow.
        message_json: The whole message it is started with: the JSON text of an object.
        message_set_json: The part of it that the caller set; empty where this is the whole.
        parent_value_json: For a nested flow what its parent hands to it: ``{"result": …}`` or ``{"error": …}``.
        traceparent: The context that the flow's runs belong under.
        parent: Key of the parent's member that the flow stands for; empty when it has no parent.
        by: Who starts it, for the history.
        options_json: What every run of the flow is given (`RunOptions`).
        is_scheduled: True to begin with the message and the options that `schedule` stored, if it is time.
        handed_ms: For a nested flow when what came before it in its parent ended: epoch milliseconds by the clock of
            Redis; None where nothing came before.
    """

    key: str
    message_json: str
    message_set_json: str = ""
    parent_value_json: str = ""
    traceparent: str = ""
    parent: str = ""
    by: str = ""
    options_json: str = ""
    is_scheduled: bool = False
    handed_ms: int | None = None


class LifecycleOperations(RecordOperations):
    """Starts flows, and suspends, resumes and interrupts."""

    async def start(self, request: StartRequest) -> StartDecision:
        """Begin a flow, once."""
        keys = self.keys.parse(request.key)
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id)):
            reply = await self._call(
                scripts.START,
                keys,
                request.message_json,
                request.message_set_json,
                request.parent_value_json,
                request.traceparent,
                request.parent,
                request.by,
                request.options_json,
                "1" if request.is_scheduled else "",
                "" if request.handed_ms is None else request.handed_ms,
            )
        return guarded(keys.record, lambda: StartDecision.parse(keys, reply))

    async def schedule(
        self, key: str, at: datetime, request: StartRequest | None = None
    ) -> tuple[Literal["scheduled", "begun", "gone"], str]:
        """Let a flow start by itself, or keep a record until something starts that needs it. Repeating changes nothing.

        A flow that is scheduled already is scheduled anew.

        Args:
            key: Of the record.
            at: When; the record lives for its active TTL after that.
            request: What the flow starts with; None only keeps the record.

        Returns:
            What was done, and the status. ``begun``: the flow has started or ended, and nothing was changed.
        """
        keys = self.keys.parse(key)
        at = at.astimezone(UTC)
        start = ("1", request.message_json, request.message_set_json, request.options_json) if request else ("",) * 4
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id)):
            reply = await self._call(
                scripts.SCHEDULE, keys, round(at.timestamp() * 1000), *start, f"for {at.isoformat(timespec='seconds')}"
            )
        return cast('tuple[Literal["scheduled", "begun", "gone"], str]', tuple(reply))

    async def unschedule(self, key: str) -> datetime | None:
        """Take back that a flow starts by itself, with the message and the options for it. It stays stored.

        Returns:
            When it would have started; None if it has no such time or has begun. Nothing was changed then.

        Raises:
            SignatureNotFoundError: The record expired or was removed.
        """
        keys = self.keys.parse(key)
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id)):
            verdict, *rest = await self._call(scripts.SCHEDULE, keys, "", "", "", "", "", "taken back")
        if verdict == "gone":
            raise SignatureNotFoundError(key)
        return guarded(keys.record, lambda: moment(rest[1])) if verdict == "scheduled" else None

    async def apply_lifecycle(
        self,
        key: str,
        action: LifecycleAction,
        *,
        by: str = "",
        why: str = "",
        error: FailureRecord | None = None,
        scope: Literal["", "own", "look"] = "",
    ) -> LifecycleDecision:
        """Suspend, resume or interrupt a record or a member of one. Applying an action again changes nothing.

        Args:
            key: Of the record, or of a member of one.
            action: What to do.
            by: Who does it, for the history.
            why: The reason, for the history.
            error: For ``interrupt``: the error that error callbacks receive.
            scope: ``own``: the record alone, without the copies of a signature; ``look``: change nothing, only say what
                would become of it.

        Returns:
            What it led to; with the verdict ``copied`` where the signature was copied to, and nothing was changed.

        Raises:
            SignatureNotFoundError: It expired or was removed.
            IllegalTransitionError: The lifecycle does not allow it; nothing was changed.
        """
        keys = self.keys.parse(key)
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id)):
            text = error.model_dump_json() if error else ""
            reply = await self._call(scripts.LIFECYCLE, keys, str(keys.member), action, by, why, text, scope)
        decision = guarded(keys.record, lambda: LifecycleDecision.parse(keys, reply))
        if decision is None:
            raise SignatureNotFoundError(key)
        if decision.verdict is LifecycleVerdict.ILLEGAL:
            raise IllegalTransitionError(key, decision.status, action)
        return decision
