"""Sends what the scripts decided: runs to Hatchet in bulk, starts and news to other flows, cancellations.

Everything here may be done twice without harm and may be left undone: what is not known to be sent stays in the outbox
of its record, and a reconciler comes back for it. So nothing here raises because Hatchet or Redis cannot be reached.
What can never be sent (a definition that does not validate, a task nobody knows, a flow that expired) is settled as
failed, so that the flow ends and its error callbacks fire.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, Final, Literal

from mageflow.errors import (
    DispatchError,
    IllegalTransitionError,
    MageflowError,
    SignatureInvalidError,
    SignatureNotFoundError,
    StoreError,
    UnknownTaskError,
)
from mageflow.flows.acknowledgements import Acknowledgements
from mageflow.flows.inputs import flow_name, run_order, start_order
from mageflow.interceptors import CallbackSend, FlowFinish, FlowStart, Interceptor, RunResend, SwarmFill
from mageflow.lifecycle import Lifecycle
from mageflow.signatures import FailureRecord, RunIdentity
from mageflow.store import Decision, RecordKeys, Send, Store
from mageflow.types import Dispatcher, DispatchRun

__all__ = ["OutboxRelay"]

_CHUNK: Final = 1000
"""Hatchet takes at most this many runs in one call (SDK 1.43.1, ``clients/admin.py``)."""

_ALONE_AFTER_TRIES: Final = 2
_GIVE_UP_AFTER_TRIES: Final = 10
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
        store: Where other flows are told.
        dispatcher: The way to Hatchet.
        acknowledgements: Told of what was sent.
        interceptor: Told of flows that end, places that are filled and callbacks.
    """

    def __init__(
        self, store: Store, dispatcher: Dispatcher, acknowledgements: Acknowledgements, interceptor: Interceptor
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._acknowledgements = acknowledgements
        self._interceptor = interceptor
        self._lifecycle = Lifecycle(store)

    async def deliver(self, decision: Decision, *, critical_task: str = "") -> None:
        """Send everything a decision calls for, and everything that follows from it. Never raises `MageflowError`.

        Args:
            decision: What to deliver.
            critical_task: The task whose end led to the decision, for telemetry.
        """
        queue = [decision]
        while queue:
            one = queue.pop()
            self._observe_end(one, critical_task)
            self._observe_failed_callback(one)
            self._observe_resent(one)
            try:
                queue += await self._send(one)
            except StoreError as error:
                _log.warning("what %s decided is left to the reconcilers: %s", one.keys.record, error)

    async def _send(self, decision: Decision) -> list[Decision]:
        """Send one decision; returns those that follow from it in other records."""
        runs: list[tuple[Send, DispatchRun]] = []
        following: list[Decision] = []
        cancelled: list[Send] = []
        for send in decision.sends:
            if send.kind == "run":
                try:
                    runs.append((send, run_order(decision, send, fanout_limit=self._store.settings.trace_fanout_limit)))
                except SignatureInvalidError as error:
                    following.append(await self._give_up(decision, send, error))
            elif send.kind == "start":
                following += await self._start(decision, send)
            elif send.kind == "up":
                following += await self._tell_parent(decision, send)
            elif send.kind == "verb":
                following += await self._pass_on(decision, send)
            else:
                cancelled.append(send)
        if runs:
            following += await self._dispatch(decision, runs)
        if cancelled:
            await self._cancel(decision, cancelled)
        return following

    async def _dispatch(self, decision: Decision, runs: Sequence[tuple[Send, DispatchRun]]) -> list[Decision]:
        alone = [each for each in runs if each[0].tries > _ALONE_AFTER_TRIES]
        together = [each for each in runs if each[0].tries <= _ALONE_AFTER_TRIES]
        chunks = [together[first : first + _CHUNK] for first in range(0, len(together), _CHUNK)]
        following: list[Decision] = []
        for chunk in [*chunks, *([each] for each in alone)]:
            following += await self._dispatch_chunk(decision, chunk)
        return following

    async def _dispatch_chunk(self, decision: Decision, chunk: Sequence[tuple[Send, DispatchRun]]) -> list[Decision]:
        try:
            with self._filling(decision, len(chunk)):
                run_ids = await self._dispatcher.dispatch([run for _, run in chunk])
        except (DispatchError, UnknownTaskError) as error:
            if isinstance(error, UnknownTaskError) and len(chunk) > 1:
                return [one for each in chunk for one in await self._dispatch_chunk(decision, [each])]
            send = chunk[0][0]
            if len(chunk) == 1 and _is_hopeless(error, send):
                return [await self._give_up(decision, send, error)]
            _log.warning("%d runs of %s are left to the reconcilers: %s", len(chunk), decision.keys.record, error)
            return []
        for (send, run), run_id in zip(chunk, run_ids, strict=True):
            self._acknowledgements.add(decision.keys, send.path, send.epoch, run_id)
            self._observe_callback(decision, send, "enqueued", run.task_name)
        return []

    async def _start(self, decision: Decision, send: Send) -> list[Decision]:
        try:
            order = start_order(decision, send)
            child = self._store.keys.parse(order.key)
            started = await self.start(child, order.message_json, carry_json=order.carry_json, parent=order.parent)
        except (SignatureInvalidError, SignatureNotFoundError) as error:
            return [await self._give_up(decision, send, error)]
        if started.verdict in {"gone", "owned"}:
            error = SignatureNotFoundError(order.key)
            return [await self._give_up(decision, send, error, "FlowUnavailable")]
        await self._store.acknowledge(decision.keys, [(send.path, send.epoch, f"flow:{order.key}")])
        self._observe_callback(decision, send, "enqueued", order.key)
        return [started]

    async def start(
        self,
        keys: RecordKeys,
        message_json: str,
        *,
        carry_json: str = "",
        parent: str = "",
        name: str = "",
        by: str = "",
    ) -> Decision:
        """Start a flow, once; the decision is for the caller to deliver."""
        if keys.kind == "task":
            return Decision(keys=keys, verdict="gone")
        call = FlowStart(keys.kind, keys.id, name)
        with self._interceptor.start_flow(call):
            decision = await self._store.start(
                keys.record, message_json, carry_json=carry_json, traceparent=call.traceparent, parent=parent, by=by
            )
            call.started = decision.verdict in {"started", "held"}
            call.name = flow_name(decision) or name
            call.steps = int(decision.facts.get("steps", 0))
        return decision

    async def _tell_parent(self, decision: Decision, send: Send) -> list[Decision]:
        outcome = _OUTCOME[send.role]
        error = _stored_failure(send.value_json) if outcome != "succeeded" and send.value_json else None
        try:
            told = await self._store.settle(
                send.extra,
                RunIdentity(f"flow:{decision.keys.record}", traceparent=send.link),
                outcome,
                result_json=send.value_json if outcome == "succeeded" else None,
                error=error,
                reported_by_engine=True,
            )
        except SignatureNotFoundError:
            return []
        await self._store.acknowledge(decision.keys, [(send.path, send.epoch, "")])
        return [told]

    async def _pass_on(self, decision: Decision, send: Send) -> list[Decision]:
        verb, _, key = send.value_json.partition(":")
        reason = f"{verb} of {decision.keys.record}"
        following: list[Decision] = []
        try:
            if verb == "suspend":
                following.append(await self._lifecycle.suspend(key, why=reason))
            elif verb == "resume":
                following.append(await self._lifecycle.resume(key, why=reason))
            else:
                following.append(await self._lifecycle.interrupt(key, why=reason))
        except (SignatureNotFoundError, IllegalTransitionError) as error:
            _log.info("%s had nothing to do for a nested flow: %s", verb, error)
        await self._store.acknowledge(decision.keys, [(send.path, send.epoch, "")])
        return following

    async def _cancel(self, decision: Decision, sends: Sequence[Send]) -> None:
        try:
            await self._dispatcher.cancel([send.value_json for send in sends])
        except DispatchError as error:
            if max(send.tries for send in sends) < _GIVE_UP_AFTER_TRIES:
                _log.warning("cancelling runs of %s is left to the reconcilers: %s", decision.keys.record, error)
                return
        await self._store.acknowledge(decision.keys, [(send.path, send.epoch, "") for send in sends])

    async def _give_up(self, decision: Decision, send: Send, error: MageflowError, kind: str = "") -> Decision:
        """What can never be sent has failed; so the flow ends, and its error callbacks fire."""
        _log.error("%s#%s can never be sent: %s", decision.keys.record, send.path, error)
        self._observe_callback(decision, send, "failed", "", type(error).__name__)
        record = FailureRecord(
            type=kind or type(error).__name__, message=str(error), outcome="failed", at=datetime.now(UTC)
        )
        member = decision.keys.record if send.role == "rerun" else f"{decision.keys.record}#{send.path}"
        identity = RunIdentity("undeliverable", dedupe_key=f"{decision.keys.record}{send.path}/{send.epoch}")
        settled = await self._store.settle(member, identity, "failed", error=record, reported_by_engine=True)
        settled.facts.pop("callback_failed", None)  # told of above, with its reason
        return settled

    def _filling(self, decision: Decision, count: int) -> Any:
        if not decision.facts.get("filled"):
            return nullcontext()
        facts = decision.facts
        call = SwarmFill(
            decision.keys.id,
            flow_name(decision),
            count,
            int(facts.get("running", 0)),
            int(facts.get("pending", 0)),
            decision.traceparent,
        )
        return self._interceptor.fill_swarm(call)

    def _observe_end(self, decision: Decision, critical_task: str) -> None:
        closed = decision.closed
        if closed is None:
            return
        call = FlowFinish(
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
        with self._interceptor.finish_flow(call):
            pass

    def _observe_failed_callback(self, decision: Decision) -> None:
        """A callback that was sent has failed for good in its task."""
        path = str(decision.facts.get("callback_failed", ""))
        if path:
            kind: Literal["success", "error"] = "error" if path.rpartition(".")[2].startswith("e") else "success"
            key = f"{decision.keys.record}#{path}"
            with self._interceptor.send_callback(CallbackSend(kind, "failed", key, decision.keys.id)):
                pass

    def _observe_resent(self, decision: Decision) -> None:
        """A run is gone in Hatchet, and its member is sent again."""
        sent = decision.resent
        if sent is not None:
            target = f"{decision.keys.record}#{sent.path}"
            call = RunResend(sent.reason, target, decision.keys.id, sent.run_id, sent.times)
            with self._interceptor.resend_run(call):
                pass

    def _observe_callback(
        self,
        decision: Decision,
        send: Send,
        result: Literal["enqueued", "failed"],
        target: str,
        error_type: str = "",
    ) -> None:
        if send.role == "success" or send.role == "error":  # noqa: PLR1714 - narrows the type
            with self._interceptor.send_callback(CallbackSend(send.role, result, target, decision.keys.id, error_type)):
                pass


def _stored_failure(text: str) -> FailureRecord:
    try:
        return FailureRecord.model_validate_json(text)
    except ValueError:
        return FailureRecord(type="Unknown", message="the stored error cannot be read", at=datetime.now(UTC))


def _is_hopeless(error: DispatchError | UnknownTaskError, send: Send) -> bool:
    """Whether to stop trying: nobody knows the task, or Hatchet has refused it time and again. An outage is neither."""
    return isinstance(error, UnknownTaskError) or (error.refused and send.tries >= _GIVE_UP_AFTER_TRIES)
