"""The transactional outbox relay: sends what a script decided.

A script writes each thing to send into the outbox of its record, in the same transaction as the decision. The relay
dispatches runs to Hatchet in bulk, starts nested flows, reports completion to the parent flow, applies lifecycle
actions to nested flows, and cancels runs. An entry stays in the outbox until it is acknowledged, and a reconciler
sends it again after the grace time. So sending twice is harmless, a failed send is only logged, and nothing here
raises because Hatchet or Redis is unreachable.

An entry that can never be sent (its definition does not validate, Hatchet refuses it again and again, its flow
expired) is settled as failed. Then the flow ends and its error callbacks run.
"""

import logging
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Final, Literal

from mageflow.errors import (
    DispatchError,
    IllegalTransitionError,
    MageflowError,
    MessageTooLargeError,
    SignatureError,
    SignatureInvalidError,
    SignatureNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from mageflow.flows.acknowledgements import Acknowledgements
from mageflow.flows.inputs import build_nested_start, build_run, flow_name
from mageflow.flows.refills import RefillTimers
from mageflow.interceptors import CallbackSend, FlowFinish, FlowStart, Interceptor, RunResend, SwarmFill
from mageflow.signatures import FailureRecord, RunIdentity
from mageflow.store import (
    UNDELIVERABLE,
    ActionEntry,
    AttemptOutcome,
    CancelEntry,
    Decision,
    DedupeKey,
    MemberEntry,
    OutboxEntry,
    ReportEntry,
    StartDecision,
    StartRequest,
    StartVerdict,
    Store,
    flow_run_id,
    join_member_key,
)
from mageflow.types import Dispatcher, DispatchRun

__all__ = ["OutboxRelay"]

_CHUNK: Final = 1000
"""Hatchet takes at most this many runs in one call (SDK 1.43.1, ``clients/admin.py``)."""

_ALONE_AFTER_TRIES: Final = 2
_FAIL_AFTER_TRIES: Final = 10
_OUTCOME: Final[dict[str, Literal["succeeded", "failed", "cancelled"]]] = {
    "done": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "cancelled",
}

_log = logging.getLogger("mageflow.flows")


class OutboxRelay:
    """Delivers decisions.

    Args:
        store: Keeps the flows.
        dispatcher: Hands runs to Hatchet.
        acknowledgements: Collects what was sent, to acknowledge it in bulk.
        interceptor: Sees flow starts and ends, swarm fills, resends and callbacks.
    """

    def __init__(
        self, store: Store, dispatcher: Dispatcher, acknowledgements: Acknowledgements, interceptor: Interceptor
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._acknowledgements = acknowledgements
        self._interceptor = interceptor
        self._refills = RefillTimers(self._refill)
        self._random = random.Random()  # noqa: S311 - spreads load, guards nothing

    async def deliver(self, decision: Decision, *, critical_task: str = "") -> None:
        """Send everything a decision calls for, and everything that follows from it. Never raises `MageflowError`.

        Args:
            decision: What to deliver.
            critical_task: The task whose end led to the decision, for telemetry.
        """
        queue = [decision]
        while queue:
            one = queue.pop()
            if one.keys.kind == "swarm":
                self._refills.update(one)
            self._observe_end(one, critical_task)
            self._observe_failed_callback(one)
            self._observe_resent(one)
            try:
                queue += await self._send(one)
            except StoreUnavailableError:
                continue  # the outage has its own warning; reconcilers send the entries
            except (SignatureError, StoreError) as error:
                _log.warning("the outbox of %s is left to the reconcilers: %s", one.keys.record, error)

    async def start(self, request: StartRequest, name: str = "") -> StartDecision:
        """Start a flow, once; the caller delivers the decision.

        Args:
            request: The flow; its trace context is set here.
            name: Name of the flow, if the caller knows it.

        Raises:
            StoreError: Redis failed.
        """
        keys = self._store.keys.parse(request.key)
        if keys.kind == "task":
            return StartDecision(keys=keys, verdict=StartVerdict.GONE)
        call = FlowStart(keys.kind, keys.id, name)
        with self._interceptor.start_flow(call):
            decision = await self._store.start(replace(request, traceparent=call.traceparent))
            call.started = decision.verdict in {StartVerdict.STARTED, StartVerdict.HELD}
            call.name = flow_name(decision) or name
            call.steps = decision.steps
        return decision

    def cancel_refills(self) -> None:
        """Stop the timers that fill free places of swarms; a reconciler fills them."""
        self._refills.cancel()

    async def _refill(self, key: str) -> None:
        await self.deliver(await self._store.extend_swarm(key))

    async def _send(self, decision: Decision) -> list[Decision]:
        """Send the entries of one decision; returns the decisions that follow in other records."""
        runs: list[tuple[MemberEntry, DispatchRun]] = []
        following: list[Decision] = []
        cancellations: list[CancelEntry] = []
        fanout_limit = self._store.settings.trace_fanout_limit
        name = flow_name(decision) if decision.outbox else ""
        for entry in decision.outbox:
            try:
                if isinstance(entry, CancelEntry):
                    cancellations.append(entry)
                elif isinstance(entry, MemberEntry) and entry.starts == "run":
                    runs.append((entry, build_run(decision, entry, name, fanout_limit=fanout_limit)))
                else:
                    following += await self._send_to_record(decision, entry)
            except SignatureInvalidError as error:
                following += await self._fail_member(decision, entry, error)
            except SignatureError as error:
                _warn_undelivered(decision, entry, error)
        if runs:
            following += await self._dispatch(decision, runs)
        if cancellations:
            await self._cancel(decision, cancellations)
        return following

    async def _send_to_record(
        self, decision: Decision, entry: MemberEntry | ReportEntry | ActionEntry
    ) -> list[Decision]:
        match entry:
            case MemberEntry():
                return await self._start_nested(decision, entry)
            case ReportEntry():
                return await self._report_to_parent(decision, entry)
            case ActionEntry():
                return await self._apply_to_nested(decision, entry)

    async def _fail_member(
        self, decision: Decision, entry: OutboxEntry, error: SignatureInvalidError
    ) -> list[Decision]:
        """Settle a member whose run cannot be built. What another, damaged record should get stays in the outbox."""
        if isinstance(entry, MemberEntry):
            try:
                return [await self._fail(decision, entry, error)]
            except SignatureError as failure:
                error = SignatureInvalidError(decision.keys.record, str(failure))
        _warn_undelivered(decision, entry, error)
        return []

    async def _dispatch(self, decision: Decision, runs: Sequence[tuple[MemberEntry, DispatchRun]]) -> list[Decision]:
        alone = [each for each in runs if each[0].tries > _ALONE_AFTER_TRIES]
        self._random.shuffle(alone)  # none waits for ever behind one that Hatchet does not answer
        together = [each for each in runs if each[0].tries <= _ALONE_AFTER_TRIES]
        chunks = [together[first : first + _CHUNK] for first in range(0, len(together), _CHUNK)]
        following: list[Decision] = []
        left = len(runs)
        for chunk in [*chunks, *([each] for each in alone)]:
            try:
                following += await self._dispatch_chunk(decision, chunk)
            except DispatchError as error:
                # Hatchet does not answer. Each further chunk would wait as long, and the attempt that has ended too.
                _log.warning("%d runs of %s are left to the reconcilers: %s", left, decision.keys.record, error)
                break
            left -= len(chunk)
        return following

    async def _dispatch_chunk(
        self, decision: Decision, chunk: Sequence[tuple[MemberEntry, DispatchRun]]
    ) -> list[Decision]:
        """Send some runs in one call; raises `DispatchError` if Hatchet does not answer."""
        try:
            with self._filling(decision, len(chunk)):
                run_ids = await self._dispatcher.dispatch([run for _, run in chunk])
        except MessageTooLargeError as error:
            if len(chunk) == 1:
                return [await self._fail(decision, chunk[0][0], error)]
            half = len(chunk) // 2  # one of them is too large, or all together are
            return [
                *await self._dispatch_chunk(decision, chunk[:half]),
                *await self._dispatch_chunk(decision, chunk[half:]),
            ]
        except DispatchError as error:
            entry = chunk[0][0]
            if len(chunk) == 1 and error.refused and entry.tries >= _FAIL_AFTER_TRIES:
                return [await self._fail(decision, entry, error)]
            if error.unanswered:
                raise
            _log.warning("%d runs of %s are left to the reconcilers: %s", len(chunk), decision.keys.record, error)
            return []
        for (entry, run), run_id in zip(chunk, run_ids, strict=True):
            self._acknowledgements.add(decision.keys, entry.sent_as(run_id))
            self._observe_callback(decision, entry, "enqueued", run.task_name)
        return []

    async def _start_nested(self, decision: Decision, entry: MemberEntry) -> list[Decision]:
        try:
            nested = build_nested_start(decision, entry)
            started = await self.start(nested)
        except (SignatureInvalidError, SignatureNotFoundError) as error:
            return [await self._fail(decision, entry, error)]
        if started.verdict in {StartVerdict.GONE, StartVerdict.OWNED}:
            error = SignatureNotFoundError(nested.key)
            return [await self._fail(decision, entry, error, "FlowUnavailable")]
        await self._store.acknowledge(decision.keys, [entry.sent_as(flow_run_id(nested.key))])
        self._observe_callback(decision, entry, "enqueued", nested.key)
        return [started]

    async def _report_to_parent(self, decision: Decision, entry: ReportEntry) -> list[Decision]:
        outcome = _OUTCOME[entry.status]
        ended = AttemptOutcome(
            outcome,
            result_json=entry.value_json if outcome == "succeeded" else None,
            error=_stored_failure(entry.value_json) if outcome != "succeeded" and entry.value_json else None,
            input_json=entry.failed_input_json,
            reported_by_engine=True,
        )
        run = RunIdentity(flow_run_id(decision.keys.record), traceparent=entry.link)
        try:
            settled = await self._store.settle(entry.parent, run, ended)
        except SignatureNotFoundError:
            return []
        await self._store.acknowledge(decision.keys, [entry.sent_as()])
        return [settled]

    async def _apply_to_nested(self, decision: Decision, entry: ActionEntry) -> list[Decision]:
        why = f"{entry.action} of {decision.keys.record}"
        error = FailureRecord.interrupted(why) if entry.action == "interrupt" else None
        following: list[Decision] = []
        try:
            following.append(await self._store.apply_lifecycle(entry.flow_key, entry.action, why=why, error=error))
        except (SignatureNotFoundError, IllegalTransitionError) as refusal:
            _log.info("%s of a nested flow changed nothing: %s", entry.action, refusal)
        await self._store.acknowledge(decision.keys, [entry.sent_as()])
        return following

    async def _cancel(self, decision: Decision, entries: Sequence[CancelEntry]) -> None:
        try:
            await self._dispatcher.cancel([entry.run_id for entry in entries])
        except DispatchError as error:
            if max(entry.tries for entry in entries) < _FAIL_AFTER_TRIES:
                _log.warning("cancelling runs of %s is left to the reconcilers: %s", decision.keys.record, error)
                return
        await self._store.acknowledge(decision.keys, [entry.sent_as() for entry in entries])

    async def _fail(self, decision: Decision, entry: MemberEntry, error: MageflowError, kind: str = "") -> Decision:
        """Settle an entry that can never be sent, so that the flow ends and its error callbacks run."""
        record = decision.keys.record
        _log.error("%s can never be sent: %s", join_member_key(record, entry.path), error)
        self._observe_callback(decision, entry, "failed", "", type(error).__name__)
        failure = FailureRecord.without_task(kind or type(error).__name__, str(error))
        run = RunIdentity(UNDELIVERABLE, dedupe_key=str(DedupeKey(record, entry.path, entry.epoch)))
        ended = AttemptOutcome("failed", error=failure, reported_by_engine=True)
        settled = await self._store.settle(entry.path.key(record), run, ended)
        return replace(settled, failed_callback=None)  # observed above, with the type of the error

    def _filling(self, decision: Decision, count: int) -> AbstractContextManager[object]:
        filled = decision.filled
        if filled is None:
            return nullcontext()
        call = SwarmFill(
            decision.keys.id, flow_name(decision), count, filled.running, filled.pending, decision.traceparent
        )
        return self._interceptor.fill_swarm(call)

    def _observe_end(self, decision: Decision, critical_task: str) -> None:
        closed = decision.closed
        if closed is None:
            return
        self._interceptor.event(
            FlowFinish(
                closed.kind,
                decision.keys.id,
                flow_name(decision),
                _OUTCOME[closed.status],
                closed.started_at,
                closed.ended_at,
                closed.steps,
                decision.traceparent,
                critical_task,
            )
        )

    def _observe_failed_callback(self, decision: Decision) -> None:
        """A callback that was dispatched has failed for good in its task."""
        path = decision.failed_callback
        if path is not None and path.callback_kind is not None:
            key = path.key(decision.keys.record)
            self._interceptor.event(CallbackSend(path.callback_kind, "failed", key, decision.keys.id))

    def _observe_resent(self, decision: Decision) -> None:
        """A run is gone in Hatchet, and its member is sent again."""
        sent = decision.resent
        if sent is not None:
            target = join_member_key(decision.keys.record, sent.path)
            self._interceptor.event(RunResend(sent.reason, target, decision.keys.id, sent.run_id, sent.times))

    def _observe_callback(
        self,
        decision: Decision,
        entry: MemberEntry,
        result: Literal["enqueued", "failed"],
        target: str,
        error_type: str = "",
    ) -> None:
        if entry.path.callback_kind is not None:
            call = CallbackSend(entry.path.callback_kind, result, target, decision.keys.id, error_type)
            self._interceptor.event(call)


def _warn_undelivered(decision: Decision, entry: OutboxEntry, error: SignatureError) -> None:
    _log.warning("the entry %s of %s cannot be delivered: %s", entry.field, decision.keys.record, error)


def _stored_failure(text: str) -> FailureRecord:
    try:
        return FailureRecord.model_validate_json(text)
    except ValueError:
        return FailureRecord.without_task("Unknown", "the stored error cannot be read")
