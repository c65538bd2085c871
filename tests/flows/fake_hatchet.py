"""A fake Hatchet behind the `Dispatcher` port: a queue with retries, cancellation, reassignment and crashes.

It takes the place of the engine in tests of the store and the flows, which need its state at exact moments. The tests
in ``test_workers.py`` run the same flows on real workers and the local engine.
"""

import asyncio
import itertools
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mageflow.errors import DispatchError, SignatureError
from mageflow.flows import Flows
from mageflow.signatures import FailureRecord, RunIdentity
from mageflow.store import AttemptOutcome
from mageflow.types import DispatchRun, RunOrigin, RunReport
from tests.flows.admitting import admit

Body = Callable[[dict[str, Any]], Awaitable[Any]]


class Crash(BaseException):
    """The process of the worker ends here."""


@dataclass
class Run:
    request: DispatchRun
    id: str
    state: str = "queued"
    attempt: int = 0
    output: str | None = None
    error: str = ""
    is_unscheduled: bool = False
    replayed_after: int = -1
    created_at: float | None = None
    stamp: str = ""

    @property
    def input(self) -> dict[str, Any]:
        return json.loads(self.request.input_json)


@dataclass
class FakeHatchet:
    """Implements `mageflow.types.Dispatcher` and `TaskCatalog`."""

    models: dict[str, object] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    undeclared: Counter[str] = field(default_factory=Counter)
    """Tasks that no worker has declared, and the number of their runs: Hatchet accepts them and does not know them."""
    is_slow: bool = False
    """The grace time is so short that a run may be sent twice: what carries one dedupe key counts once."""
    unknown: set[str] = field(default_factory=set)
    """Dedupe keys of the runs of undeclared tasks."""
    runs: dict[str, Run] = field(default_factory=dict)
    queue: deque[Run] = field(default_factory=deque)
    triggers: int = 0
    is_away: bool = False
    gate: asyncio.Event | None = None
    """Calls wait here, if there is one: a connection whose peer is silent."""
    at_gate: int = 0
    ids: Any = field(default_factory=itertools.count)

    def task_name(self, task: object) -> str | None:
        return getattr(task, "name", None)

    def input_model(self, name: str) -> object | None:
        return self.models.get(name)

    async def _pass_gate(self) -> None:
        await asyncio.sleep(0)  # a call to Hatchet suspends its caller, who can be cancelled there
        if self.gate is not None:
            self.at_gate += 1
            await self.gate.wait()

    async def dispatch(self, runs: Sequence[DispatchRun]) -> Sequence[str]:
        await self._pass_gate()
        self.triggers += 1
        if self.is_away:
            raise DispatchError(runs[0].task_name, "away")
        if any(run.task_name in self.refused for run in runs):
            raise DispatchError(runs[0].task_name, "INVALID_ARGUMENT", refused=True)
        made = [Run(request, f"run-{next(self.ids)}") for request in runs]
        for run in made:
            if run.request.task_name in self.undeclared:
                is_again = self.is_slow and run.request.dedupe_key in self.unknown
                self.undeclared[run.request.task_name] += not is_again
                self.unknown.add(run.request.dedupe_key)
                continue
            self.runs[run.id] = run
            self.queue.append(run)
        return [run.id for run in made]

    async def cancel(self, run_ids: Sequence[str]) -> None:
        await asyncio.sleep(0)
        if self.is_away:
            raise DispatchError("", "away")
        for run_id in run_ids:
            run = self.runs.get(run_id)
            if run and run.state in {"queued", "running"}:
                run.state = "cancelled"

    async def delete_scheduled(self, key: str) -> None:
        await asyncio.sleep(0)  # nothing is scheduled here: a damaged record may say that something is
        if self.is_away:
            raise DispatchError("", "away")

    async def statuses(self, run_ids: Sequence[str]) -> Mapping[str, RunReport]:
        await self._pass_gate()
        if self.is_away:
            raise DispatchError("", "away")
        return {
            run_id: RunReport(run.state, run.output, run.error, run.request.input_json, run.is_unscheduled)  # type: ignore[arg-type]
            for run_id in run_ids
            if (run := self.runs.get(run_id))
        }

    async def was_replayed(self, run_id: str, attempt_number: int) -> bool:
        return self.runs[run_id].replayed_after >= attempt_number

    async def origin(self, run_id: str) -> RunOrigin | None:
        found = self.runs.get(run_id)
        return None if found is None or found.created_at is None else RunOrigin(found.created_at, found.stamp)

    async def was_timed_out(self, run_id: str, attempt_number: int) -> bool:
        return False

    def counted(self) -> Sequence[Run]:
        """All runs; one of each dedupe key, if a run may be sent twice."""
        if not self.is_slow:
            return list(self.runs.values())
        return list({run.request.dedupe_key: run for run in reversed(self.runs.values())}.values())[::-1]

    def by_task(self) -> Counter[str]:
        return Counter(run.request.task_name for run in self.counted())

    def inputs(self, task: str) -> list[dict[str, Any]]:
        return [run.input for run in self.counted() if run.request.task_name == task]


class FakeWorker:
    """Executes queued runs as the runner does: admit, task function, settle; then reports to Hatchet."""

    def __init__(self, hatchet: FakeHatchet, flows: Flows, bodies: Mapping[str, Body], name: str = "worker") -> None:
        self.hatchet = hatchet
        self.flows = flows
        self.bodies = bodies
        self.name = name
        self.started: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.running = 0

    async def drain(self, limit: int = 10_000) -> None:
        """Run until nothing is queued, one run after another."""
        for _ in range(limit):
            if not self.hatchet.queue:
                return
            await self.one()

    async def one(self) -> None:
        run = self.hatchet.queue.popleft()
        if run.state == "cancelled":
            return
        run.state = "running"
        run.attempt += 1
        try:
            await self.execute(run)
        except Crash:
            self.lost(run)

    def begins(self, run: Run) -> None:
        """Called just before the task function of a run."""

    def lost(self, run: Run) -> None:
        """Hatchet notices that the worker is gone and runs the attempt again on another, with the next number."""
        if run.attempt > 20:
            run.state, run.error = "failed", "worker lost"
        else:
            run.state = "queued"
            self.name += "'"
            self.hatchet.queue.append(run)

    async def execute(self, run: Run) -> None:
        request = run.request
        identity = RunIdentity(run.id, f"step-{run.id}", self.name, run.attempt, request.dedupe_key, f"trace-{run.id}")
        try:
            admission = await admit(self.flows, request.signature_key, identity, input_json=request.input_json)
        except SignatureError as error:
            run.state, run.error = "failed", str(error)
            return
        if admission.verdict in ("skip", "twice"):
            self.skipped[admission.status] += 1
            run.state = "cancelled"
            return
        if admission.verdict == "replay":
            run.state, run.output = "completed", admission.result_json
            return
        place = f"{request.signature_key}:{request.task_name}"
        self.begins(run)
        self.started[place] += 1
        self.running += 1
        try:
            result = await self.bodies[request.task_name](run.input)
        except Exception as error:  # noqa: BLE001 - a body may raise anything
            await self.failed(run, identity, error)
            return
        finally:
            self.running -= 1
        if run.state == "cancelled":
            await self.settle(run, identity, "cancelled", error=record(run, "TaskCancelled", "", "cancelled"))
            return
        await self.settle(run, identity, "succeeded", result_json=json.dumps(result))
        run.state, run.output = "completed", json.dumps(result)

    async def failed(self, run: Run, identity: RunIdentity, error: Exception) -> None:
        will_retry = run.attempt <= self.hatchet.retries.get(run.request.task_name, 0)
        failure = record(run, type(error).__name__, str(error), "retried" if will_retry else "failed")
        await self.settle(
            run,
            identity,
            "retried" if will_retry else "failed",
            error=failure,
            will_retry=will_retry,
            input_json=run.request.input_json,
        )
        if will_retry:
            run.state = "queued"
            self.hatchet.queue.append(run)
        else:
            run.state, run.error = "failed", str(error)

    async def settle(self, run: Run, identity: RunIdentity, outcome: Any, **facts: Any) -> None:
        await self.flows.settle(run.request.signature_key, identity, AttemptOutcome(outcome, **facts))


def record(run: Run, kind: str, message: str, outcome: Any) -> FailureRecord:
    return FailureRecord(
        type=kind,
        message=message,
        task=run.request.task_name,
        attempt=run.attempt,
        outcome=outcome,
        at=datetime.now(UTC),
    )


class FakeWorkers:
    """Several workers at once, until nothing is left to do."""

    def __init__(self, workers: Sequence[FakeWorker]) -> None:
        self.workers = workers

    async def drain(self, idle_seconds: float = 0.05) -> None:
        async def work(worker: FakeWorker) -> None:
            idle = 0.0
            while idle < idle_seconds or any(each.running for each in self.workers):
                if worker.hatchet.queue:
                    idle = 0.0
                    await worker.one()
                else:
                    await asyncio.sleep(0.005)
                    idle += 0.005

        await asyncio.gather(*(work(worker) for worker in self.workers))
