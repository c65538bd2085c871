"""Finishes what a dead worker left: outbox entries that were never sent, and runs that no worker will settle.

Every worker runs a reconciler. Each takes due records from the index of a shard under a short lease, so reconcilers
share the work. A sweep looks for three things in a record:

- outbox entries older than the grace time are sent again. If the first send did arrive, the second run is turned away
  at admission;
- a flow that is scheduled is started when it is time;
- live runs without a sign of life for the check time are looked up in Hatchet. A run that ended there without a
  settlement in Redis is settled now. If it completed, its output is the result. If it failed, the error is the one that
  Hatchet has, or that of its last attempt; ``WorkerLost`` if no task function raised one.

A run that has not ended in Hatchet, and cannot end there, is sent again as a new run. If the old run appears later, it
is turned away:

- **lost**: Hatchet does not know the run, for example after a restart of an engine that stores nothing. The reconciler
  waits three check times. If the task function had started, the run is sent again up to three times, unless the
  process of the task function sends heartbeats; then it has failed as ``WorkerLost``. So such a task function runs at
  least once, as it does when Hatchet reassigns the run of a dead worker: it may have done its work before it was lost.
  If a task function that was given up succeeds after all, the first success counts. A run that was never admitted is
  sent three times in all; then it has failed as ``UnknownTaskError``, because Hatchet accepts runs of tasks that no
  worker has declared.
- **unscheduled**: no worker took the run within the schedule timeout of its task (five minutes by default), and Hatchet
  cancelled it. A step, an item or a callback is accepted work: too few workers must delay it, not lose it. It is sent
  again at growing intervals, up to the check time, until it has waited for the active TTL. Then it has failed as
  ``TaskUnscheduled``, and error callbacks run. A run that a user makes of a task signature follows the rule of Hatchet:
  it is cancelled.

Any other cancellation of a waiting run in Hatchet (by a person, or by a concurrency strategy) cancels the member.

Hatchet can know of an end before the worker does: it enforces timeouts and informs the worker a second later. And a
worker that could not reach Redis may still settle the run itself. So a run that had started is settled only if it is
still unsettled after the grace time, and the report of the worker wins.

The reconciler decides nothing itself: the scripts check each finding again.
"""

import asyncio
import logging
import random
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from mageflow.background import logged, restarted
from mageflow.errors import (
    DispatchError,
    MageflowError,
    SignatureError,
    SignatureInvalidError,
    SignatureNotFoundError,
    SignatureVersionError,
    StoreError,
    StoreUnavailableError,
)
from mageflow.flows.ended_runs import ended_run, failure_of
from mageflow.flows.heartbeats import Heartbeats
from mageflow.flows.outbox import OutboxRelay
from mageflow.flows.settlements import LateSettlements
from mageflow.signatures import ENDED, ChainSignature, FailureRecord, RunIdentity, SwarmSignature
from mageflow.store import (
    AttemptOutcome,
    DedupeKey,
    Inspection,
    Settlement,
    SettleVerdict,
    SilentRun,
    StartRequest,
    Store,
    flow_of_run,
)
from mageflow.telemetry import suppressed
from mageflow.types import Dispatcher, RunReport

__all__ = ["Reconciler", "Sweep"]

_LEASE_SECONDS: Final = 15.0
_LOST_AFTER_CHECKS: Final = 3
_VISIT_SECONDS: Final = 60.0
"""Longest visit of a record. The SDK's calls have no end of their own if Hatchet holds the connection and is silent."""
_VISITS_AT_ONCE: Final = 8
"""A visit waits for Redis and for Hatchet most of its time. More would take the threads and connections of tasks."""

_log = logging.getLogger("mageflow.flows")


@dataclass(slots=True)
class Sweep:
    """What one sweep did: records visited, entries sent, runs settled or sent again, runs found alive."""

    records: int = 0
    sent: int = 0
    settled: int = 0
    alive: int = 0
    next_seconds: float = field(default=0.0, compare=False)
    """Until a record that was not due becomes due."""


class Reconciler:
    """Sweeps until it is cancelled.

    Args:
        store: Keeps the records.
        outbox: Sends outbox entries.
        dispatcher: Reports the state of runs in Hatchet.
        heartbeats: Run beside the sweeps, for the task functions of this process.
        settlements: Those of this process that wait for Redis.
        interval_seconds: Mean time between sweeps while records are due. Each pause is random, from half to one and a
            half of it, so that the workers do not sweep together. A pause is longer if nothing can be due until then.
        batch: Most records of one sweep; a full sweep is followed by the next at once.
        lease_seconds: Time for which a record and its unsent entries belong to the reconciler that took them.
    """

    def __init__(
        self,
        store: Store,
        outbox: OutboxRelay,
        dispatcher: Dispatcher,
        heartbeats: Heartbeats,
        settlements: LateSettlements,
        *,
        interval_seconds: float,
        batch: int = 100,
        lease_seconds: float = _LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._heartbeats = heartbeats
        self._settlements = settlements
        self._interval_seconds = interval_seconds
        self._batch = batch
        self._lease_seconds = lease_seconds
        self._visit_seconds = _VISIT_SECONDS
        self._foreign: set[str] = set()
        self._confirming: dict[str, asyncio.Task[None]] = {}
        self._random = random.Random()  # noqa: S311 - spreads load, guards nothing

    async def run(self) -> None:
        """Sweep and send heartbeats until cancelled. Logs an outage of Hatchet once and retries."""
        is_unavailable = False
        heartbeats = asyncio.create_task(restarted(self._heartbeats.run, "heartbeats"), name="mageflow-heartbeats")
        try:
            while True:
                is_unavailable = await self._sweep_and_wait(is_unavailable=is_unavailable)
        finally:
            for task in [heartbeats, *self._confirming.values()]:
                task.cancel()

    async def _sweep_and_wait(self, *, is_unavailable: bool) -> bool:
        try:
            swept = await self.sweep()
        except StoreUnavailableError:
            is_unavailable, swept = True, Sweep()  # the outage has its own warning
        except MageflowError as error:
            if not is_unavailable:
                _log.warning("the reconciler pauses: %s", error)
            is_unavailable, swept = True, Sweep()
        except Exception:  # noqa: BLE001 - the flows of every worker depend on the sweeps going on
            _log.exception("a sweep failed")
            is_unavailable, swept = False, Sweep()
        else:
            is_unavailable = False
        if swept.records < self._batch:
            await asyncio.sleep(self._pause_seconds(swept))
        return is_unavailable

    def _pause_seconds(self, swept: Sweep) -> float:
        """Until the next sweep. What other processes decide meanwhile is due after the grace or the check time."""
        settings = self._store.settings
        until_due = min(swept.next_seconds, settings.reconcile_grace_seconds, settings.reconcile_check_seconds)
        interval = self._interval_seconds
        if interval / 2 <= swept.next_seconds <= until_due:
            # The next record is known, and may be a flow with a time: this is when it starts.
            return swept.next_seconds + interval * self._random.uniform(0.0, 0.1)
        return max(0.0, until_due - interval) + interval * self._random.uniform(0.5, 1.5)

    async def sweep(self) -> Sweep:
        """Visit every due record once, eight at a time. A record that cannot be read is put aside (`Store.put_aside`).

        Raises:
            StoreError: Redis failed. Records visited before stay visited.
        """
        swept = Sweep()
        with suppressed():  # an idle worker has no traces
            due = await self._store.due(self._batch, self._lease_seconds)
        self._settlements.redis_answers()
        swept.next_seconds = due.next_seconds if not due.keys else 0.0
        left = iter(due.keys)
        outages: list[StoreUnavailableError] = []

        async def visit_one_after_another() -> None:
            for key in left:
                swept.records += 1
                try:
                    await self._visit_guarded(key, swept)
                except StoreUnavailableError as error:
                    outages.append(error)
                if outages:
                    return  # the others end the visits they are at

        await asyncio.gather(*(visit_one_after_another() for _ in due.keys[:_VISITS_AT_ONCE]))
        if outages:
            raise outages[0]
        return swept

    async def _visit_guarded(self, key: str, swept: Sweep) -> None:
        """Visit one record. Only an outage of Redis is raised: a record must not hold up the others."""
        try:
            async with asyncio.timeout(self._visit_seconds):
                await self._visit(key, swept)
        except StoreUnavailableError:
            raise
        except TimeoutError:
            _log.warning("%s is left to a later sweep: its visit took over %.0f s", key, self._visit_seconds)
        except SignatureVersionError as error:
            # A worker of the other release visits it.
            if key not in self._foreign:
                self._foreign.add(key)
                _log.warning("%s cannot be reconciled: %s", key, error)
        except SignatureInvalidError as error:
            await self._store.put_aside(key, error.reason)
        except (SignatureError, StoreError) as error:
            _log.error("%s cannot be reconciled: %s", key, error)
        except DispatchError as error:
            _log.warning("the runs of %s cannot be looked up in Hatchet: %s", key, error)
        except Exception:  # noqa: BLE001 - it is due again after the lease
            _log.exception("%s cannot be reconciled", key)

    async def _visit(self, key: str, swept: Sweep) -> None:
        decision = await self._store.inspect(key, lease_seconds=self._lease_seconds)
        swept.sent += len(decision.outbox)
        await self._outbox.deliver(decision)
        if decision.is_due:
            await self._outbox.deliver(await self._outbox.start(StartRequest(key, "", is_scheduled=True)))
        if not decision.silent:
            return
        runs: list[SilentRun] = []
        alive = 0
        for run in decision.silent:
            flow_key = flow_of_run(run.run_id)
            if flow_key is None:
                runs.append(run)
            else:
                alive += await self._check_flow(decision, run, flow_key, swept)
        if runs:
            reports = await self._dispatcher.statuses([run.run_id for run in runs])
            for run in runs:
                report = reports.get(run.run_id)
                if report is not None and report.state not in {"queued", "running"} and run.attempt_number > 0:
                    self._confirm_later(decision, run, report)
                    continue
                alive += await self._check_run(decision, run, report, swept)
        if alive:
            swept.alive += alive
            await self._store.keep_alive(decision.keys)

    def _confirm_later(self, decision: Inspection, run: SilentRun, report: RunReport) -> None:
        """Settle a run that has ended in Hatchet, unless its worker settles it within the grace time.

        What this process itself has to settle is left to it: it knows the outcome first-hand.
        """
        if run.run_id in self._confirming:
            return

        async def confirm() -> None:
            try:
                await asyncio.sleep(self._store.settings.reconcile_grace_seconds)
                if not self._settlements.holds(run.run_id):
                    async with asyncio.timeout(self._visit_seconds):
                        await self._check_run(decision, run, report, Sweep())
            except (MageflowError, TimeoutError) as error:
                _log.warning("the run %s is left to the next sweep: %s", run.run_id, str(error) or "no answer")
            finally:
                self._confirming.pop(run.run_id, None)

        self._confirming[run.run_id] = asyncio.create_task(
            logged(confirm, "a look at an ended run"), name="mageflow-confirm"
        )

    async def _check_run(self, decision: Inspection, run: SilentRun, report: RunReport | None, swept: Sweep) -> bool:
        """Settle a run that has ended in Hatchet; returns True if it is still alive."""
        if report is None:
            if run.silent_seconds < self._store.settings.reconcile_check_seconds * _LOST_AFTER_CHECKS:
                return True
            settled = await self._settle(decision, run, AttemptOutcome("lost", error=_unknown(run)), swept)
            return settled.verdict is SettleVerdict.ALIVE
        ended = ended_run(
            run.run_id,
            report,
            attempt_number=run.attempt_number,
            stored_error_json=run.error_json,
            is_workflow=run.is_workflow,
        )
        if ended is None:
            return True
        settled = await self._settle(decision, run, ended, swept)
        return settled.verdict is SettleVerdict.ALIVE

    async def _check_flow(self, decision: Inspection, run: SilentRun, key: str, swept: Sweep) -> bool:
        if key == decision.keys.record:
            raise SignatureInvalidError(key, f"its member {str(run.path)!r} waits for the flow itself")
        try:
            flow, result = await self._store.load_with_result(key)
        except SignatureNotFoundError:
            lost = FailureRecord.without_task("FlowExpired", f"the nested flow {key!r} expired or was removed")
            await self._settle(decision, run, AttemptOutcome("failed", error=lost), swept)
            return False
        except SignatureVersionError:
            return True
        except SignatureInvalidError as error:
            # It can never end, and nothing else would end the member that stands for it.
            lost = FailureRecord.without_task("SignatureInvalidError", str(error))
            await self._settle(decision, run, AttemptOutcome("failed", error=lost), swept)
            return False
        if not isinstance(flow, ChainSignature | SwarmSignature) or flow.status not in ENDED:
            return True
        if flow.status == "done":
            await self._settle(decision, run, AttemptOutcome("succeeded", result_json=result), swept)
        else:
            outcome: Literal["cancelled", "failed"] = "failed" if flow.status == "failed" else "cancelled"
            await self._settle(decision, run, AttemptOutcome(outcome, error=flow.last_error), swept)
        return False

    async def _settle(self, decision: Inspection, run: SilentRun, ended: AttemptOutcome, swept: Sweep) -> Settlement:
        record = decision.keys.record
        identity = RunIdentity(
            run.run_id,
            attempt_number=max(run.attempt_number, 1),
            dedupe_key=str(DedupeKey(record, run.path)),
        )
        ended = replace(ended, reported_by_engine=run.attempt_number == 0)
        settled = await self._store.settle(run.path.key(record), identity, ended)
        swept.settled += settled.verdict in {SettleVerdict.SETTLED, SettleVerdict.RESENT}
        await self._outbox.deliver(settled)
        return settled


def _unknown(run: SilentRun) -> FailureRecord:
    if run.attempt_number > 0:
        report = RunReport("failed", error="Hatchet does not know the run")
        return failure_of(
            run.run_id, report, "failed", attempt_number=run.attempt_number, stored_error_json=run.error_json
        )
    return FailureRecord.without_task(
        "UnknownTaskError",
        "Hatchet accepted the run and does not know it: no worker has declared its task; start one that does",
    )
