"""Comes back for what a dead worker left: decisions nobody sent, and runs whose worker will never return.

Every worker runs one. Records are taken from the index of their shard under a short lease, so reconcilers share the
work and none of it depends on any of them. Two things are looked for in each:

- entries of the outbox older than the grace time are sent again (a run sent twice is turned away at admission);
- live runs that nobody has heard of for the check time are looked up in Hatchet: one that ended there without being
  settled here is settled now, as what Hatchet says. A run that completed in Hatchet keeps its output; one that failed
  keeps the error of its last attempt, or is ``WorkerLost`` when the worker never told.

A run that did not come to its end in Hatchet is sent again as a new one; the old one is turned away should it turn up:

- **lost**: Hatchet does not know it, as after a restart of an engine that keeps nothing. It is given three times the
  check time. A body that had begun is sent again three times, unless its own process says that it still runs; then it
  is ``WorkerLost``. This is at least once, exactly as when Hatchet hands the run of a dead worker to another: a body
  that was lost before it was settled may have done its work, and does it again. Should a body that was given up come to
  its end after all, the first success counts. A run that was never admitted is sent three times in all, then it is
  ``UnknownTaskError``: Hatchet takes runs of tasks no worker has declared and answers with an id.
- **unscheduled**: no worker took it within its task's schedule timeout (five minutes unless the task says otherwise),
  and Hatchet cancelled it. A step, an item or a callback is work that was accepted: too few workers delay it and do not
  lose it. It is sent again, ever less often, up to a check time apart, until it has waited for as long as a flow lives
  without progress; then it has failed as ``TaskUnscheduled``, and error callbacks fire. The run a user makes of a plain
  signature keeps Hatchet's own rule: it was cancelled, and nothing is sent again.

Whatever else cancels a run that waits in Hatchet (a person, a concurrency strategy) cancels the member.

Hatchet may know of an end before the worker does: it enforces timeouts, and tells the worker a second later. So a run
that had begun is settled only when it is still unsettled after the grace time; the worker's own word comes first.

This room owns the sweeps. It refuses to decide: each of its findings goes through the scripts again.
"""

import asyncio
import json
import logging
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from mageflow.errors import (
    DispatchError,
    MageflowError,
    SignatureError,
    SignatureNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from mageflow.flows.heartbeats import Heartbeats
from mageflow.flows.outbox import OutboxRelay
from mageflow.signatures import ENDED, ChainSignature, FailureRecord, RunIdentity, SwarmSignature
from mageflow.store import Decision, SilentRun, Store
from mageflow.types import Dispatcher, RunReport

__all__ = ["Reconciler", "Sweep"]

_LEASE_SECONDS: Final = 15.0
_UNKNOWN_PATIENCE: Final = 3

_log = logging.getLogger("mageflow.flows")


@dataclass(slots=True)
class Sweep:
    """What one sweep found and did."""

    records: int = 0
    sent: int = 0
    settled: int = 0
    alive: int = 0


class Reconciler:
    """Sweeps until it is cancelled.

    Args:
        store: Where records are.
        outbox: Sends.
        dispatcher: Knows what became of runs.
        heartbeats: Sent beside the sweeps, for the task functions that run in this process.
        interval_seconds: Between sweeps; each waits between half and one and a half of it, so that workers drift apart.
        batch: How many records a sweep takes at most; a full sweep is followed by another at once.
        lease_seconds: For how long a record and its unsent entries belong to the reconciler that took them.
    """

    def __init__(
        self,
        store: Store,
        outbox: OutboxRelay,
        dispatcher: Dispatcher,
        heartbeats: Heartbeats,
        *,
        interval_seconds: float,
        batch: int = 100,
        lease_seconds: float = _LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._heartbeats = heartbeats
        self._interval_seconds = interval_seconds
        self._batch = batch
        self._lease_seconds = lease_seconds
        self._confirming: dict[str, asyncio.Task[None]] = {}
        self._random = random.Random()  # noqa: S311 - spreads load, guards nothing

    async def run(self) -> None:
        """Sweep for ever. Redis or Hatchet being away is logged once per outage and waited out."""
        is_away = False
        telling = asyncio.create_task(self._heartbeats.run(), name="mageflow-heartbeats")
        try:
            while True:
                is_away = await self._sweep_and_wait(is_away=is_away)
        finally:
            for task in [telling, *self._confirming.values()]:
                task.cancel()

    async def _sweep_and_wait(self, *, is_away: bool) -> bool:
        try:
            swept = await self.sweep()
        except MageflowError as error:
            if not is_away:
                _log.warning("reconciling pauses: %s", error)
            is_away, swept = True, Sweep()
        except Exception:  # noqa: BLE001 - whatever it is, the flows of everybody depend on this going on
            _log.exception("a sweep failed")
            is_away, swept = False, Sweep()
        else:
            is_away = False
        if swept.records < self._batch:
            await asyncio.sleep(self._interval_seconds * self._random.uniform(0.5, 1.5))
        return is_away

    async def sweep(self) -> Sweep:
        """Look once at what is due.

        Raises:
            StoreError: Redis could not be asked. What was found before stays found.
        """
        done = Sweep()
        for key in await self._store.due(self._batch, self._lease_seconds):
            done.records += 1
            try:
                await self._visit(key, done)
            except StoreUnavailableError:
                raise
            except (SignatureError, StoreError) as error:
                # One record that is damaged must not keep the others waiting.
                _log.error("%s cannot be reconciled: %s", key, error)
            except DispatchError as error:
                _log.warning("Hatchet cannot be asked about %s: %s", key, error)
        return done

    async def _visit(self, key: str, done: Sweep) -> None:
        decision = await self._store.inspect(key, lease_seconds=self._lease_seconds)
        done.sent += len(decision.outbox)
        await self._outbox.deliver(decision)
        if not decision.silent:
            return
        flows = [run for run in decision.silent if run.run_id.startswith("flow:")]
        runs = [run for run in decision.silent if not run.run_id.startswith("flow:")]
        alive = 0
        for run in flows:
            alive += await self._check_flow(decision, run, done)
        if runs:
            reports = await self._dispatcher.statuses([run.run_id for run in runs])
            for run in runs:
                report = reports.get(run.run_id)
                if report is not None and report.state not in {"queued", "running"} and run.attempt > 0:
                    self._confirm_later(decision, run, report)
                    continue
                alive += await self._check_run(decision, run, report, done)
        if alive:
            done.alive += alive
            await self._store.keep_alive(decision.keys)

    def _confirm_later(self, decision: Decision, run: SilentRun, report: RunReport) -> None:
        """Settle what Hatchet says has ended, unless its worker does within the grace time."""
        if run.run_id in self._confirming:
            return

        async def confirm() -> None:
            try:
                await asyncio.sleep(self._store.settings.reconcile_grace_seconds)
                await self._check_run(decision, run, report, Sweep())
            except MageflowError as error:
                _log.warning("%s is left to the next sweep: %s", run.run_id, error)
            finally:
                self._confirming.pop(run.run_id, None)

        self._confirming[run.run_id] = asyncio.create_task(confirm(), name="mageflow-confirm")

    async def _check_run(self, decision: Decision, run: SilentRun, report: RunReport | None, done: Sweep) -> bool:
        """Settle a run that ended in Hatchet; returns whether it is still going."""
        if report is None:
            patience = self._store.settings.reconcile_check_seconds * _UNKNOWN_PATIENCE
            if run.silent_seconds < patience:
                return True
            settled = await self._settle(decision, run, "lost", done, error=_unknown(run))
            return settled.verdict == "alive"
        if report.state in {"queued", "running"}:
            return True
        if report.state == "completed":
            await self._settle(decision, run, "succeeded", done, result_json=report.output_json or "null")
            return False
        if report.is_unscheduled:
            settled = await self._settle(
                decision, run, "unscheduled", done, error=_unscheduled(run), message_json=report.input_json
            )
            return settled.verdict == "alive"
        outcome: Literal["cancelled", "failed"] = "cancelled" if report.state == "cancelled" else "failed"
        await self._settle(
            decision, run, outcome, done, error=_failure(run, report, outcome), message_json=report.input_json
        )
        return False

    async def _check_flow(self, decision: Decision, run: SilentRun, done: Sweep) -> bool:
        key = run.run_id.removeprefix("flow:")
        try:
            flow, result = await self._store.load_with_result(key)
        except SignatureNotFoundError:
            lost = FailureRecord(type="FlowExpired", message=f"{key} is gone", outcome="failed", at=datetime.now(UTC))
            await self._settle(decision, run, "failed", done, error=lost)
            return False
        if not isinstance(flow, ChainSignature | SwarmSignature) or flow.status not in ENDED:
            return True
        if flow.status == "done":
            await self._settle(decision, run, "succeeded", done, result_json=result)
        else:
            outcome: Literal["cancelled", "failed"] = "failed" if flow.status == "failed" else "cancelled"
            await self._settle(decision, run, outcome, done, error=flow.last_error)
        return False

    async def _settle(
        self,
        decision: Decision,
        run: SilentRun,
        outcome: Literal["succeeded", "failed", "cancelled", "lost", "unscheduled"],
        done: Sweep,
        *,
        result_json: str | None = None,
        error: FailureRecord | None = None,
        message_json: str = "",
    ) -> Decision:
        record = decision.keys.record
        is_user_run = run.path.startswith("@") and "." not in run.path
        key = record if is_user_run else f"{record}#{run.path}"
        identity = RunIdentity(run.run_id, attempt_number=max(run.attempt, 1), dedupe_key=f"{record}{run.path}/0")
        settled = await self._store.settle(
            key,
            identity,
            outcome,
            result_json=result_json,
            error=error,
            message_json=message_json,
            reported_by_engine=run.attempt == 0,
        )
        done.settled += settled.verdict in {"settled", "resent"}
        await self._outbox.deliver(settled)
        return settled


def _unknown(run: SilentRun) -> FailureRecord:
    if run.attempt > 0:
        return _failure(run, RunReport("failed", error="Hatchet does not know the run"), "failed")
    return FailureRecord(
        type="UnknownTaskError",
        message="Hatchet took the run and does not know it: no worker has declared its task; start one that does",
        outcome="failed",
        at=datetime.now(UTC),
    )


def _unscheduled(run: SilentRun) -> FailureRecord:
    return FailureRecord(
        type="TaskUnscheduled",
        message=f"no worker took the run {run.run_id} within its schedule timeout: too few workers, or too little time",
        attempt=max(run.attempt, 1),
        outcome="cancelled",
        at=datetime.now(UTC),
    )


def _failure(run: SilentRun, report: RunReport, outcome: Literal["cancelled", "failed"]) -> FailureRecord:
    if run.error_json and outcome == "failed":
        return FailureRecord.model_validate({**json.loads(run.error_json), "outcome": "failed"})
    return FailureRecord(
        type="TaskCancelled" if outcome == "cancelled" else "WorkerLost",
        message=report.error or f"the run {run.run_id} ended in Hatchet as {report.state} and its worker never told",
        attempt=max(run.attempt, 1),
        outcome=outcome,
        at=datetime.now(UTC),
    )
