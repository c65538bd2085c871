"""Running signatures, chains and swarms: start, admit, settle, the lifecycle verbs, and what swarms can do besides.

Round trips to Redis: starting a flow is one, admitting a run one, settling it and naming what comes next one, each verb
one. Calls to Hatchet: at most one per start, settlement or verb, however many runs it sends.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from mageflow.config import Settings
from mageflow.errors import (
    FlowDefinitionError,
    FlowFailedError,
    IllegalTransitionError,
    SignatureNotFoundError,
    StoreUnavailableError,
    SwarmClosedError,
    SwarmFullError,
)
from mageflow.flows.acknowledgements import Acknowledgements
from mageflow.flows.creation import Creation
from mageflow.flows.heartbeats import Heartbeats
from mageflow.flows.identity import new_identity
from mageflow.flows.members import MemberSpec, documents_of
from mageflow.flows.outbox import OutboxRelay
from mageflow.flows.reconciler import Reconciler
from mageflow.interceptors import Attempt, FlowStep, Interceptor
from mageflow.lifecycle import Lifecycle
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
from mageflow.store import Admission, Decision, Store, dedupe_key, locate
from mageflow.types import Dispatcher, TaskCatalog

__all__ = ["Flows", "Settlement"]

_T = TypeVar("_T")

Outcome = Literal["succeeded", "failed", "timed_out", "cancelled", "retried"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a settlement.

    Attributes:
        verdict: ``settled``; ``recorded``: noted, a retry is to come; ``repeated``: it had been settled before;
            ``stale``: another run or attempt owns the member by now; ``ended``: it was interrupted; ``gone``: it
            expired or was removed.
    """

    verdict: str


class Flows(Creation):
    """Signatures, chains and swarms of one client.

    Everything that touches Redis raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError` when Redis
    does not do its part. Implements `SignatureLifecycle` and `SwarmOperations`.

    Args:
        store: Where state is.
        dispatcher: The way to Hatchet.
        catalog: What the client knows of its tasks.
        settings: Intervals of the reconciler.
        interceptor: Told of everything.
        runner: What signatures run with; may be set later (`bind_runner`).
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
        super().__init__(store, catalog, runner)
        self._dispatcher = dispatcher
        self._settings = settings
        self._interceptor = interceptor or Interceptor()
        self._lifecycle = Lifecycle(store)
        self._acknowledgements = Acknowledgements(store, min(2.0, settings.reconcile_grace_seconds / 3))
        self._outbox = OutboxRelay(store, dispatcher, self._acknowledgements, self._interceptor)
        self._heartbeats = Heartbeats(store)
        self._refills: dict[str, asyncio.Task[None]] = {}

    # Running

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
        await self._follow(decision)
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
        self, key: str, run: RunIdentity, *, message_json: str = "", patience_seconds: float = 0.0
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

        While Redis cannot be reached it is asked again for ``patience_seconds``: a restart of Redis should not cost
        every run that arrives meanwhile one of its retries.
        """
        admission = await _patiently(lambda: self._store.admit(key, run, message_json=message_json), patience_seconds)
        if admission.verdict == "ended":
            if not await self._dispatcher.was_replayed(run.workflow_run_id, admission.ended_attempt):
                return Admission("skip", status=admission.status)
            admission = await _patiently(
                lambda: self._store.admit(key, run, message_json=message_json, is_replayed=True), patience_seconds
            )
        if admission.signature is not None:
            keys = self._store.keys.parse(key)
            path, _ = locate(keys, run)
            self._acknowledgements.forget(keys.record, path)
            self._heartbeats.enter(keys, path, run.workflow_run_id)
            self._bound(admission.signature)
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
        outcome: Outcome,
        *,
        result_json: str | None = None,
        error: FailureRecord | None = None,
        will_retry: bool = False,
        max_failures: int = 0,
        message_json: str = "",
        patience_seconds: float = 0.0,
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
            patience_seconds: For how long to go on trying while Redis cannot be reached.

        Raises:
            StoreUnavailableError: Redis could not be reached within the patience.
            SignatureNotFoundError: The key is none of this client's.
        """
        acknowledged = self._acknowledgements.take(self._store.keys.parse(key).record)
        decision = await _patiently(
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
            patience_seconds,
        )
        await self._follow(decision, critical_task=error.task if error else "")
        return Settlement(decision.verdict)

    async def was_timed_out(self, run: RunIdentity) -> bool:
        """Whether Hatchet ended this attempt because its time was up; see `mageflow.types.Dispatcher.was_timed_out`."""
        return await self._dispatcher.was_timed_out(run.workflow_run_id, run.attempt_number)

    async def leave(self, attempt: Attempt) -> None:
        """An attempt has ended in this process, however it did: its body runs no more. Costs nothing."""
        self._heartbeats.leave(attempt)

    # Lifecycle

    async def suspend(self, key: str, *, by: str = "", why: str = "") -> Status:
        """See `Lifecycle.suspend`."""
        return await self._obeyed(await self._lifecycle.suspend(key, by=by, why=why))

    async def resume(self, key: str, *, by: str = "", why: str = "") -> Status:
        """See `Lifecycle.resume`."""
        return await self._obeyed(await self._lifecycle.resume(key, by=by, why=why))

    async def interrupt(self, key: str, *, by: str = "", why: str = "") -> Status:
        """See `Lifecycle.interrupt`."""
        return await self._obeyed(await self._lifecycle.interrupt(key, by=by, why=why))

    async def remove(self, key: str) -> bool:
        """See `Lifecycle.remove`. Runs that were live are cancelled; True when there was something to delete.

        Raises:
            FlowDefinitionError: It is a member of a flow: remove the flow.
            DispatchError: What was live could not be cancelled; everything stored is deleted nevertheless.
        """
        if self._store.keys.parse(key).path:
            raise FlowDefinitionError(f"{key!r} is a member: remove the flow or signature it belongs to")
        runs = await self._lifecycle.remove(key)
        for nested in [run.removeprefix("flow:") for run in runs or () if run.startswith("flow:")]:
            await self.remove(nested)
        if live := [run for run in runs or () if not run.startswith("flow:")]:
            await self._dispatcher.cancel(live)
        return runs is not None

    # Swarms

    async def add(
        self, key: str, tasks: object, message: object = None, *, close_on_max_task: bool = True
    ) -> tuple[str, ...]:
        """Add items to a swarm; see `SwarmSignature.add`. One round trip, one call to Hatchet if places are free."""
        targets: Sequence[object] = tasks if isinstance(tasks, list | tuple) else [tasks]
        own = explicitly_set(message)
        documents: list[str] = []
        for index, plan in enumerate(await self._members.plans(targets, "tasks")):
            merged = plan.definition.model_copy(update={"message": own}) if own else plan.definition
            documents += documents_of(MemberSpec(merged, plan.success, plan.error), str(index))
        token = new_identity("add", key, *documents)
        close: Literal["full", ""] = "full" if close_on_max_task else ""
        decision = await self._store.extend_swarm(key, documents, close=close, token=token)
        self._check_swarm(key, decision)
        await self._follow(decision)
        first = int(decision.facts.get("first", 0))
        return tuple(f"{decision.keys.record}#{first + index}" for index in range(len(targets)))

    async def close(self, key: str) -> None:
        """Accept no more items; see `SwarmSignature.close`. One round trip."""
        decision = await self._store.extend_swarm(key, close="1")
        self._check_swarm(key, decision)
        await self._follow(decision)

    # Upkeep

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
        for task in list(self._refills.values()):
            task.cancel()
        await self._acknowledgements.flush()

    async def _obeyed(self, decision: Decision) -> Status:
        await self._follow(decision)
        return Status(decision.verdict)

    async def _follow(self, decision: Decision, *, critical_task: str = "") -> None:
        await self._outbox.deliver(decision, critical_task=critical_task)
        record, refill_in = decision.keys.record, decision.facts.get("refill_in")
        waiting = self._refills.get(record)
        if waiting is not None and (refill_in or decision.facts.get("filled")):
            waiting.cancel()
        if refill_in:
            task = asyncio.create_task(self._refill(record, float(refill_in) / 1000), name="mageflow-refill")
            self._refills[record] = task
            task.add_done_callback(lambda done: self._refilled(record, done))

    def _refilled(self, record: str, done: asyncio.Task[None]) -> None:
        if self._refills.get(record) is done:
            del self._refills[record]

    async def _refill(self, key: str, delay_seconds: float) -> None:
        # A little later than the places are due, so that an item that ends in time fills them without this round trip.
        await asyncio.sleep(delay_seconds * 1.1)
        try:
            await self._follow(await self._store.extend_swarm(key))
        except StoreUnavailableError:
            return  # the reconcilers fill what stays free

    def _check_swarm(self, key: str, decision: Decision) -> None:
        verdict, _, detail = decision.verdict.partition(":")
        if verdict == "gone":
            raise SignatureNotFoundError(key)
        if verdict == "closed":
            raise SwarmClosedError(key)
        if verdict == "full":
            raise SwarmFullError(key, int(detail))
        if verdict == "illegal":
            raise FlowDefinitionError(f"{key!r} is a {detail}, not a swarm")


async def _patiently(attempt: Callable[[], Awaitable[_T]], patience_seconds: float) -> _T:
    """Try again, ever less often, while Redis cannot be reached and patience lasts."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_seconds
    pause = 0.05
    while True:
        try:
            return await attempt()
        except StoreUnavailableError:
            if loop.time() + pause >= deadline:
                raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
