"""Runs of signatures, chains and swarms: start, wait, admit, settle.

Starting a flow, admitting a run and settling a run are one round trip to Redis each. A start and a settlement make at
most one call to Hatchet, however many runs they send.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from mageflow.config import Settings
from mageflow.errors import (
    FlowDefinitionError,
    FlowFailedError,
    IllegalTransitionError,
    SignatureNotFoundError,
    StoreUnavailableError,
)
from mageflow.flows.acknowledgements import Acknowledgements
from mageflow.flows.creation import Creation, SignatureBinder
from mageflow.flows.heartbeats import Heartbeats
from mageflow.flows.identity import new_identity
from mageflow.flows.lifecycle import Lifecycle
from mageflow.flows.members import MemberResolver
from mageflow.flows.outbox import OutboxRelay
from mageflow.flows.reconciler import Reconciler
from mageflow.flows.swarms import Swarms
from mageflow.interceptors import Attempt, FlowStep, Interceptor
from mageflow.signatures import (
    ENDED,
    ChainSignature,
    FailureRecord,
    RunIdentity,
    SignatureRunner,
    Status,
    SwarmSignature,
    TaskSignature,
    explicitly_set,
)
from mageflow.store import Admission, AnySignature, Store, dedupe_key, locate
from mageflow.types import Dispatcher, SettledOutcome, TaskCatalog

__all__ = ["Flows", "Settlement"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a settlement changed.

    Attributes:
        verdict: ``settled``; ``recorded``: noted, a retry follows; ``repeated``: it was settled before; ``stale``:
            another run or attempt owns the member now; ``ended``: the member was interrupted; ``gone``: the record
            expired or was removed.
    """

    verdict: str


class Flows:
    """Signatures, chains and swarms of one client.

    Every method that uses Redis raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError` when Redis
    fails.

    Attributes:
        creation: Creates signatures, chains and swarms.
        lifecycle: Suspends, resumes, interrupts and removes them.
        swarms: Adds items to swarms and closes them.

    Args:
        store: Keeps their state.
        dispatcher: Hands runs to Hatchet.
        catalog: Knows the tasks of this client.
        settings: Intervals of the reconciler.
        interceptor: Sees flow starts, steps and ends, and what is sent.
        runner: Runs signatures; may be set later (`bind_runner`).
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        catalog: TaskCatalog,
        settings: Settings,
        interceptor: Interceptor | None = None,
        runner: SignatureRunner | None = None,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._settings = settings
        self._interceptor = interceptor or Interceptor()
        self._acknowledgements = Acknowledgements(store, min(2.0, settings.reconcile_grace_seconds / 3))
        self._outbox = OutboxRelay(store, dispatcher, self._acknowledgements, self._interceptor)
        self._heartbeats = Heartbeats(store)
        members = MemberResolver(store, catalog)
        self.lifecycle = Lifecycle(store, dispatcher, self._outbox)
        self.swarms = Swarms(store, members, self._outbox)
        self._binder = SignatureBinder(runner, self.lifecycle, self.swarms)
        self.creation = Creation(store, members, self._binder)

    def bind_runner(self, runner: SignatureRunner) -> None:
        """Set what runs signatures; signatures that exist already keep theirs."""
        self._binder.runner = runner

    async def load(self, key: str) -> AnySignature:
        """A signature, a chain, a swarm or a member of one, as it is now. One round trip to Redis.

        Args:
            key: Key of a record, or of a member (``<key>#<path>``).

        Raises:
            SignatureNotFoundError: The record expired, was removed, or never existed.
            SignatureInvalidError: The stored document does not validate.
        """
        return self._binder.bind(await self._store.load(key))

    def new_run_key(self, signature: TaskSignature) -> str:
        """The dedupe key for a run a user makes of a signature (`DispatchRun.dedupe_key`). No round trip.

        Inside a task it is derived from the running attempt, so that a retry that runs the signature again does not
        run its body again.
        """
        keys = self._store.keys.parse(signature.key)
        return dedupe_key(keys, f"@{new_identity('run', signature.key)[:20]}", 0)

    async def start(
        self, flow: str | ChainSignature | SwarmSignature, message: object = None, *, by: str = ""
    ) -> Status:
        """Begin a chain or swarm with a message; once: starting it again changes nothing.

        One round trip and one call to Hatchet (for a suspended flow none: it begins when it is resumed).

        Raises:
            FlowDefinitionError: It is a plain signature, or a member of a flow that starts it.
            SignatureNotFoundError: It expired, was removed, or never was.
            IllegalTransitionError: It was interrupted before it began.
        """
        key, name = (flow, "") if isinstance(flow, str) else (flow.key, flow.name)
        keys = self._store.keys.parse(key)
        if keys.kind == "task":
            raise FlowDefinitionError(f"{key!r} is a signature of a task: run it")
        decision = await self._outbox.start(keys, json.dumps(explicitly_set(message)), name=name, by=by)
        if decision.verdict == "gone":
            raise SignatureNotFoundError(key)
        if decision.verdict == "owned" and (status := decision.facts.get("status")):
            raise IllegalTransitionError(key, str(status), "start")
        if decision.verdict == "owned":
            raise FlowDefinitionError(f"{key!r} belongs to another flow, which starts it")
        await self._outbox.deliver(decision)
        return Status.SUSPENDED if decision.verdict == "held" else Status(decision.facts.get("status", "active"))

    async def wait(self, key: str, *, poll_seconds: float = 0.5) -> Any:
        """The result of a flow, when it has ended: the last step's, or the list of the items'.

        Asks Redis every ``poll_seconds`` (more often in the first moments).

        Raises:
            FlowFailedError: It ended in another way than success; carries the stored error.
            SignatureNotFoundError: It expired or was removed.
        """
        pause = min(0.02, poll_seconds)
        while True:
            flow, result = await self._store.load_with_result(key)
            if flow.status in ENDED:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, poll_seconds)
        if flow.status is Status.DONE:
            return json.loads(result) if result else None
        error = flow.last_error
        if error is None:
            raise FlowFailedError(key, flow.status)
        raise FlowFailedError(key, flow.status, error.type, error.message, error.task)

    async def admit(
        self, key: str, run: RunIdentity, *, message_json: str = "", retry_seconds: float = 0.0
    ) -> Admission:
        """Decide whether a run may execute its body; see `Store.admit` for the rules. One round trip.

        A run that failed or was cancelled and is **replayed** in Hatchet (its dashboard, ``client.runs.replay``) has a
        later attempt. Hatchet is asked whether it was, for so has a run whose worker died before it could report the
        failure, which is turned away. The replayed run is admitted, and counts its retries anew:

        - a plain signature, and a callback: runs again;
        - the step that ended its chain: the chain is active again and goes on from there, and so does the flow it is
          nested in, once it has succeeded;
        - an item of a swarm that is active or failed: takes its place again; a failed swarm goes on with it, and with
          what it had not started. What `stop_after_n_failures` had cancelled stays cancelled;
        - an item of a swarm that is done: turned away, for its results have been handed on.

        Each callback still fires once: error callbacks that were told of the failure are not told of the next one. A
        flow that goes on ends a second time, in its history and in telemetry. While suspended the replayed run is
        turned away and its step is sent again at resume. A replay of what succeeded hands out the stored result, and
        of what was interrupted or has expired (the done TTL) is turned away.

        While Redis cannot be reached it is asked again for ``retry_seconds``: a restart of Redis should not cost
        every run that arrives meanwhile one of its retries.
        """
        admission = await _retry_while_unavailable(
            lambda: self._store.admit(key, run, message_json=message_json), retry_seconds
        )
        if admission.verdict == "ended":
            if not await self._dispatcher.was_replayed(run.workflow_run_id, admission.ended_attempt):
                return Admission("skip", status=admission.status)
            admission = await _retry_while_unavailable(
                lambda: self._store.admit(key, run, message_json=message_json, is_replayed=True), retry_seconds
            )
        if admission.signature is not None:
            keys = self._store.keys.parse(key)
            path, _ = locate(keys, run)
            self._acknowledgements.forget(keys.record, path)
            self._heartbeats.enter(keys, path, run.workflow_run_id)
            self._binder.bind(admission.signature)
            if admission.flow_kind:
                call = FlowStep(
                    admission.flow_kind,
                    admission.flow_id,
                    admission.flow_name,
                    admission.step,
                    admission.handover_seconds,
                )
                with self._interceptor.step_flow(call):
                    pass
        return admission

    async def settle(
        self,
        key: str,
        run: RunIdentity,
        outcome: SettledOutcome,
        *,
        result_json: str | None = None,
        error: FailureRecord | None = None,
        will_retry: bool = False,
        max_failures: int = 0,
        message_json: str = "",
        retry_seconds: float = 0.0,
    ) -> Settlement:
        """Record how an attempt ended, decide what follows, and send that. One round trip, one call to Hatchet at most.

        Idempotent: it may be repeated until an answer arrives. Once it returns, what follows will happen, whatever
        becomes of this process: what cannot be sent now is sent by a reconciler.

        Args:
            key: As for `admit`.
            run: As for `admit`; `RunIdentity.traceparent` is what the next step links to.
            outcome: How it ended.
            result_json: For ``succeeded``: JSON text.
            error: For everything else.
            will_retry: Whether the engine is expected to try again: then it is recorded, and nothing follows yet.
            max_failures: With how many failed attempts the engine gives up all the same; 0 if unknown. The failure of
                the attempt before may have been told only after this one was admitted.
            message_json: The input the body was given, for error callbacks.
            retry_seconds: For how long to go on trying while Redis cannot be reached.

        Raises:
            StoreUnavailableError: Redis could not be reached within the patience.
            SignatureNotFoundError: The key is none of this client's.
        """
        acknowledged = self._acknowledgements.take(self._store.keys.parse(key).record)
        decision = await _retry_while_unavailable(
            lambda: self._store.settle(
                key,
                run,
                outcome,
                result_json=result_json,
                error=error,
                will_retry=will_retry,
                max_failures=max_failures,
                message_json=message_json,
                acknowledged=acknowledged,
            ),
            retry_seconds,
        )
        await self._outbox.deliver(decision, critical_task=error.task if error else "")
        return Settlement(decision.verdict)

    async def was_timed_out(self, run: RunIdentity) -> bool:
        """Whether Hatchet ended this attempt because its time was up; see `mageflow.types.Dispatcher.was_timed_out`."""
        return await self._dispatcher.was_timed_out(run.workflow_run_id, run.attempt_number)

    async def leave(self, attempt: Attempt) -> None:
        """An attempt has ended in this process, however it did: its body runs no more. Costs nothing."""
        self._heartbeats.leave(attempt)

    def reconciler(self) -> Reconciler:
        """What a worker runs beside its tasks: ``asyncio.create_task(flows.reconciler().run())`` in its lifespan."""
        return Reconciler(
            self._store,
            self._outbox,
            self._dispatcher,
            self._heartbeats,
            interval_seconds=self._settings.reconcile_interval_seconds,
            lease_seconds=max(1.0, self._settings.reconcile_grace_seconds * 3),
        )

    async def drain(self) -> None:
        """Tell Redis what was sent; call it when a worker stops. Nothing is lost without it."""
        self._outbox.cancel_refills()
        await self._acknowledgements.flush()


async def _retry_while_unavailable(operation: Callable[[], Awaitable[_T]], retry_seconds: float) -> _T:
    """Repeat the operation, with growing pauses, for at most ``retry_seconds`` while Redis is unavailable."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + retry_seconds
    pause = 0.05
    while True:
        try:
            return await operation()
        except StoreUnavailableError:
            if loop.time() + pause >= deadline:
                raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
