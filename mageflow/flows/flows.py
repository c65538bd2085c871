"""Runs of signatures, chains and swarms: start, wait, admit, settle.

Starting a flow, admitting a run and settling a run are one round trip to Redis each. A start and a settlement make at
most one call to Hatchet, however many runs they send.
"""

import asyncio
import json
from dataclasses import replace
from typing import Any, Final

from mageflow.config import Settings
from mageflow.errors import (
    FlowDefinitionError,
    FlowFailedError,
    IllegalTransitionError,
    SignatureNotFoundError,
    StoreUnavailableError,
)
from mageflow.flows.acknowledgements import Acknowledgements
from mageflow.flows.admissions import Admissions
from mageflow.flows.creation import Creation, SignatureBinder
from mageflow.flows.heartbeats import Heartbeats
from mageflow.flows.identity import new_identity
from mageflow.flows.left_open import OpenSwarmWatch
from mageflow.flows.lifecycle import Lifecycle
from mageflow.flows.members import MemberResolver
from mageflow.flows.outbox import OutboxRelay
from mageflow.flows.rebinding import Rebinding
from mageflow.flows.reconciler import Reconciler
from mageflow.flows.repetition import while_unavailable
from mageflow.flows.schedules import Schedules
from mageflow.flows.search import Search
from mageflow.flows.settlements import LateSettlements
from mageflow.flows.swarms import Swarms
from mageflow.flows.workflow_runs import WorkflowRuns
from mageflow.interceptors import Attempt, Interceptor
from mageflow.signatures import (
    ENDED,
    ChainSignature,
    RunIdentity,
    RunOptions,
    SentMessage,
    SignatureRunner,
    Status,
    SwarmSignature,
    TaskSignature,
)
from mageflow.store import (
    AnySignature,
    AttemptOutcome,
    DedupeKey,
    MemberPath,
    Settlement,
    StartRequest,
    StartVerdict,
    Store,
)
from mageflow.telemetry import suppressed
from mageflow.types import Dispatcher, TaskCatalog

__all__ = ["Flows"]

_WORKFLOW_WAIT_SECONDS: Final = 1.0
_WAITER_SECONDS: Final = 60.0
"""A fail-over takes less. The flow does not need the waiter: its workers wait for Redis themselves."""


class Flows:
    """Signatures, chains and swarms of one client.

    Every method that uses Redis raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError` when Redis
    fails.

    Attributes:
        admissions: Admits runs.
        creation: Creates signatures, chains and swarms.
        lifecycle: Suspends, resumes, interrupts and removes them.
        swarms: Adds items to swarms and closes them.
        schedules: Lets flows start at a time, and keeps signatures that run at one.
        search: Finds and counts what is stored.
        rebinding: Changes bound values of what has not begun.

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
        self._late_settlements = LateSettlements(
            self.settle, self._interceptor, longest_pause_seconds=settings.reconcile_grace_seconds / 2
        )
        members = MemberResolver(store, catalog)
        self.lifecycle = Lifecycle(store, dispatcher, self._outbox)
        self.swarms = Swarms(store, members, self._outbox)
        self._workflow_runs = WorkflowRuns(dispatcher, self._settle_workflow)
        self.schedules = Schedules(store)
        self.search = Search(store, catalog)
        self.rebinding = Rebinding(store, members)
        self._binder = SignatureBinder(runner, self.lifecycle, self.swarms)
        self.creation = Creation(store, members, self._binder)
        self.admissions = Admissions(
            store, dispatcher, self._acknowledgements, self._heartbeats, self._binder, self._interceptor
        )

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
        """The dedupe key for one run a user makes of a signature (`DispatchRun.dedupe_key`). No round trip.

        Outside a task the key is random. Inside a task it is derived from the running attempt, so that a retry of the
        task that runs the signature again does not run its task function again.
        """
        keys = self._store.keys.parse(signature.key)
        return str(DedupeKey(keys.record, MemberPath.user_run(new_identity("run", signature.key)[:20])))

    async def start(
        self,
        flow: str | ChainSignature | SwarmSignature,
        message: object = None,
        *,
        by: str = "",
        options: RunOptions | None = None,
    ) -> Status:
        """Start a chain or swarm. A second start changes nothing.

        One round trip to Redis, atomic, and one call to Hatchet with the first step or the first items. A suspended
        flow stores the message and begins at `Lifecycle.resume`. Refreshes the active TTL.

        Telemetry: a span ``start <name>``, whose context every run of the flow belongs to;
        ``mageflow_flows_started_total``, ``mageflow_flow_steps`` and the event ``mageflow.flow.started`` if this call
        started it.

        Args:
            flow: The flow, or its key.
            message: Input of the first step or of every item: a pydantic model, a dataclass, a mapping or None. Bound
                values win over fields that the caller did not set.
            by: Who starts it; kept in the history.
            options: What every run of the flow is given, callbacks and nested flows included. A second start changes
                nothing of it.

        Returns:
            ``Status.ACTIVE``; ``Status.SUSPENDED`` if it is suspended; the status it has if it was started before.

        Raises:
            FlowDefinitionError: The key is of a task signature, or another flow starts this one.
            SignatureNotFoundError: The flow expired, was removed, or never existed.
            IllegalTransitionError: It was interrupted before it was started.
            ConfigurationError: The message or the metadata has no JSON form.
        """
        key, name = (flow, "") if isinstance(flow, str) else (flow.key, flow.name)
        keys = self._store.keys.parse(key)
        if keys.kind == "task":
            raise FlowDefinitionError(f"{key!r} is a task signature: run it, only chains and swarms are started")
        sent = SentMessage.of(message)
        request = StartRequest(
            keys.record,
            json.dumps(sent.whole),
            message_set_json="" if sent.is_all_set else json.dumps(sent.explicit),
            by=by,
            options_json=options.text() if options else "",
        )
        decision = await self._outbox.start(request, name)
        if decision.verdict is StartVerdict.GONE:
            raise SignatureNotFoundError(key)
        if decision.verdict is StartVerdict.OWNED and decision.status is not None:
            raise IllegalTransitionError(key, decision.status, "start")
        if decision.verdict is StartVerdict.OWNED:
            raise FlowDefinitionError(f"{key!r} belongs to another flow, which starts it")
        await self._outbox.deliver(decision)
        return Status.SUSPENDED if decision.verdict is StartVerdict.HELD else decision.status or Status.ACTIVE

    async def wait(self, key: str, *, poll_seconds: float = 0.5, retry_seconds: float = _WAITER_SECONDS) -> Any:
        """Wait until a flow has ended and return its result.

        Polls Redis: every 20 ms at first, then less often, down to every ``poll_seconds``. Waits as long as it takes;
        use ``asyncio.timeout`` for a limit. A swarm that is left open with nothing to run is one warning,
        ``mageflow.swarm.left_open``.

        Args:
            key: Key of the flow.
            poll_seconds: Longest pause between two looks.
            retry_seconds: How long to go on while Redis is unavailable; the flow goes on when it is back.

        Returns:
            The result of the last step of a chain; the list of results of a swarm, in task order, with None where an
            item failed.

        Raises:
            FlowFailedError: It ended as ``failed``, ``cancelled`` or ``interrupted``; carries the stored error.
            SignatureNotFoundError: It expired or was removed.
            StoreUnavailableError: Redis stayed unavailable for ``retry_seconds``.
        """
        pause = min(0.02, poll_seconds)
        watch = OpenSwarmWatch(self._interceptor, self._settings.unserved_warning_seconds)
        while True:
            with suppressed():  # otherwise each look were a span, or a trace, of a program that instruments Redis
                flow, result = await while_unavailable(lambda: self._store.load_with_result(key), retry_seconds)
            if flow.status in ENDED:
                break
            watch.look(flow)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, poll_seconds)
        if flow.status is Status.DONE:
            return json.loads(result) if result else None
        error = flow.last_error
        if error is None:
            raise FlowFailedError(key, flow.status)
        raise FlowFailedError(key, flow.status, error.type, error.message, error.task)

    async def settle(
        self, key: str, run: RunIdentity, ended: AttemptOutcome, *, retry_seconds: float = 0.0
    ) -> Settlement:
        """Record how an attempt ended, decide what follows from it, and send that.

        One round trip to Redis, atomic, and at most one call to Hatchet; more for nested flows. Safe to repeat. When it
        returns, what follows will happen even if this process dies: a reconciler sends what could not be sent.
        Refreshes the TTLs; the done TTL applies when the whole record is over.

        Telemetry: ``mageflow_signature_writes_total{operation="update"}``. If this ended a flow also
        ``mageflow_flows_finished_total``, ``mageflow_flow_duration_seconds``, a span over the whole flow and the event
        ``mageflow.flow.finished``; for callbacks ``mageflow_callbacks_total``.

        Args:
            key: Key of the signature, as in the run's metadata (``mageflow_signature``).
            run: The run and the attempt; the next step links to `RunIdentity.traceparent`.
            ended: How the attempt ended.
            retry_seconds: How long to retry while Redis is unavailable.

        Returns:
            What was decided; its verdict says whether this settlement counted.

        Raises:
            StoreUnavailableError: Redis stayed unavailable for ``retry_seconds``.
            SignatureNotFoundError: The key has another prefix or namespace than this client's.
        """
        acknowledged = self._acknowledgements.take(self._store.keys.parse(key).record)
        settlement = await while_unavailable(
            lambda: self._store.settle(key, run, ended, acknowledged=acknowledged), retry_seconds
        )
        await self._outbox.deliver(settlement, critical_task=ended.error.task if ended.error else "")
        return settlement

    async def settle_surely(
        self, key: str, run: RunIdentity, ended: AttemptOutcome, *, wait_seconds: float
    ) -> Settlement | None:
        """Record how an attempt ended: now, or in the background for as long as Redis does not take it.

        As `settle`; but when Redis is still away, or refuses, after ``wait_seconds``, the settlement is kept in memory
        and repeated until Redis takes it. If this process ends before that, a reconciler takes the outcome from
        Hatchet after ``reconcile_check_seconds``. What is kept is bounded: 10,000 settlements and 64 MiB.

        Telemetry: ``mageflow_settlements_pending``.

        Args:
            key: Key of the signature, as in the run's metadata (``mageflow_signature``).
            run: The run and the attempt.
            ended: How the attempt ended.
            wait_seconds: How long to repeat it before it goes to the background.

        Returns:
            What was decided; None if that will be known later.

        Raises:
            MageflowError: Redis refused in a way that does not pass.
        """
        try:
            return await self.settle(key, run, ended, retry_seconds=wait_seconds)
        except StoreUnavailableError:
            self._late_settlements.add(key, run, ended)
            return None

    def task_ended(self, key: str, run: RunIdentity) -> None:
        """Settle the run of a workflow if this was its last task. Returns at once; Hatchet is asked in the background.

        Args:
            key: Key of the signature, as in the run's metadata (``mageflow_signature``).
            run: The run.
        """
        self._workflow_runs.task_ended(key, run)

    async def _settle_workflow(self, key: str, run: RunIdentity, ended: AttemptOutcome) -> None:
        ended = replace(ended, reported_by_engine=True)
        await self.settle_surely(key, run, ended, wait_seconds=_WORKFLOW_WAIT_SECONDS)

    async def was_timed_out(self, run: RunIdentity) -> bool:
        """True if this attempt ended at its execution timeout, and was not cancelled. One call to Hatchet.

        Raises:
            DispatchError: Hatchet is unreachable or refused.
        """
        return await self._dispatcher.was_timed_out(run.workflow_run_id, run.attempt_number)

    async def stop_heartbeat(self, attempt: Attempt) -> None:
        """Stop the heartbeats of an attempt that has ended in this process. No round trip."""
        self._heartbeats.stop(attempt)

    def reconciler(self) -> Reconciler:
        """A reconciler for this process.

        A worker runs one beside its tasks: ``asyncio.create_task(flows.reconciler().run())``.
        """
        return Reconciler(
            self._store,
            self._outbox,
            self._dispatcher,
            self._heartbeats,
            self._late_settlements,
            interval_seconds=self._settings.reconcile_interval_seconds,
            lease_seconds=max(1.0, self._settings.reconcile_grace_seconds * 3),
        )

    async def drain(self) -> None:
        """Settle what still waits, and acknowledge everything this process has sent. Call it when a worker stops.

        Without it nothing is lost: reconcilers take outcomes from Hatchet and send the entries again, and the second
        run is turned away.
        """
        self._outbox.cancel_refills()
        await self._workflow_runs.close()
        await self._late_settlements.close()
        await self._acknowledgements.flush()
