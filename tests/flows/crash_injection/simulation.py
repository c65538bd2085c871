"""Simulated deaths: workers in this process that crash at a call to Redis or Hatchet, over a real Valkey.

A fake Hatchet (`tests.flows.fake_hatchet`) hands the runs out. A crash is an exception that no code handles. Everything
the worker had in memory is dropped, and the next worker continues. A case takes milliseconds instead of seconds, so
every call of every scenario is tried in the suite.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import redis.asyncio

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.interceptors import Attempt, current_attempt
from mageflow.signatures import TaskSignature, deep_merge
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.types import DispatchRun
from tests.flows.crash_injection.cases import Case, Work
from tests.flows.crash_injection.kill_points import KillSwitch, Note
from tests.flows.crash_injection.progress import flows_key, read_progress
from tests.flows.crash_injection.report import Found
from tests.flows.crash_injection.scenarios import error_type, next_number, received, sum_of_results
from tests.flows.crash_injection.verify import Body
from tests.flows.fake_hatchet import Crash, FakeHatchet, FakeWorker, Run

SETTINGS = Settings(reconcile_grace_seconds=0.01, reconcile_check_seconds=0.03, reconcile_interval_seconds=0.01)
RETRIES = {"flaky": 8, "fails": 1}
CASE_SECONDS = 10.0
QUIET_SWEEPS = 3
"""Sweeps without work after which a flow that has ended stays ended."""


class Simulation:
    """One case: a worker that crashes, and the ones that come after it."""

    def __init__(self, url: str, case: Case, namespace: str, found: Found, journal: list[Body]) -> None:
        self.case = case
        self.journal = journal
        self.switch = KillSwitch(self._crash)
        self._found = found
        self._next_point = case.second
        self._has_crashed = False
        self._key = ""
        self._redis = redis.asyncio.Redis.from_url(url, decode_responses=True)
        self._port = RedisPort(url, self.switch)
        self._store = Store(self._port, Keys("mageflow", namespace), SETTINGS)
        self.hatchet = FakeHatchet(retries=RETRIES)
        for name in ("dispatch", "cancel", "statuses", "was_replayed", "was_timed_out", "origin"):
            self.switch.method(self.hatchet, name, f"Hatchet {name}")
        self._start_process()

    async def run(self) -> None:
        """Run the case to its end."""
        asyncio.get_running_loop().set_exception_handler(_ignore_crashes)
        started = time.monotonic()
        if self.case.first:
            self.switch.arm(self.case.first)
        attempts = 0
        while attempts == 0 or self._has_crashed:
            attempts += 1
            await self._survive(lambda number=attempts: self._begin(number))
        quiet = 0
        while quiet < QUIET_SWEEPS:
            if time.monotonic() - started > CASE_SECONDS:
                self.case.problem = f"never ended: {self._key}"
                break
            quiet = 0 if await self._survive(self._work) else quiet + 1
        await self._flows.drain()
        await self._die()
        await self._port.aclose()
        await self._redis.aclose()
        self.case.seconds = time.monotonic() - started

    def _start_process(self) -> None:
        self._flows = Flows(self._store, self.hatchet, self.hatchet, SETTINGS)
        self._reconciler = self._flows.reconciler()
        self._worker = JournalingWorker(self, self._flows, self._task_functions())

    async def _survive(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """Take a step. If the worker crashes in it, or has crashed in the background, the next one takes over."""
        self._has_crashed = False
        result = True
        with suppress(Crash):
            result = await step()
        if self._has_crashed:
            self.case.deaths += 1
            await self._die()
            self._start_process()
            if self._next_point:
                self.switch.arm(self._next_point)
                self._next_point = None
            return True
        return result

    async def _begin(self, number: int) -> bool:
        """Create and start the flow, as one attempt of a task does."""
        attempt = Attempt(
            task=None,  # type: ignore[arg-type] - no code under test reads it
            workflow_run_id="begin",
            task_run_id="begin",
            worker_id="worker",
            attempt_number=number,
            max_attempts=9,
            metadata={},
            is_cancelled=lambda: False,
        )
        token = current_attempt.set(attempt)
        try:
            await self.case.scenario.begin(self._flows.creation, self._start)
        finally:
            current_attempt.reset(token)
        return True

    async def _start(self, signature: Any, message: dict[str, Any]) -> None:
        self._key = signature.key
        await self._redis.sadd(flows_key(self.case.name), signature.key)
        if isinstance(signature, TaskSignature):
            merged = json.dumps(deep_merge(signature.kwargs, message))
            run = DispatchRun(signature.task_name, merged, signature.key, self._flows.new_run_key(signature))
            await self.hatchet.dispatch([run])
        else:
            await self._flows.start(signature, message)

    async def _work(self) -> bool:
        """Execute a run, intervene, or sweep; returns True if there may be more to do."""
        if self.hatchet.queue:
            await self._worker.one()
            return True
        progress = await read_progress(self._redis, {self._key})
        if progress.is_suspended and self.case.scenario.intervention == "resume":
            await self._flows.lifecycle.resume(self._key, by="test")
            return True
        swept = await self._reconciler.sweep()
        await asyncio.sleep(0.006)
        return bool(swept.sent or self.hatchet.queue or not progress.is_over)

    async def _die(self) -> None:
        """Drop everything the process had in memory."""
        for task in asyncio.all_tasks():
            if task.get_name().startswith("mageflow-"):
                task.cancel()
        self._flows._acknowledgements._waiting.clear()

    def _crash(self, note: Note) -> NoReturn:
        self._has_crashed = True
        self._found.notes.append({**note, "how": "simulated"})
        raise Crash(f"{note['when']} {note['place']}")

    def _task_functions(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[Any]]]:
        async def step(message: dict[str, Any]) -> Any:
            return next_number(message)

        async def counts(message: dict[str, Any]) -> Any:
            return sum_of_results(message)

        async def flaky(message: dict[str, Any]) -> Any:
            if self._worker.attempt == 1:
                raise ValueError("not yet")
            return next_number(message)

        async def fails(message: dict[str, Any]) -> Any:
            raise ValueError("no good")

        async def long(message: dict[str, Any]) -> Any:
            await self._flows.lifecycle.interrupt(self._key, by="test")

        async def suspends(message: dict[str, Any]) -> Any:
            await self._flows.lifecycle.suspend(self._key, by="test")
            return next_number(message)

        async def on_success(message: dict[str, Any]) -> Any:
            return received(message.get("mageflow_results"))

        async def on_error(message: dict[str, Any]) -> Any:
            return error_type(message["mageflow_error"]["type"])

        functions = (step, counts, flaky, fails, long, suspends, on_success, on_error)
        return {"threaded": step, **{each.__name__: each for each in functions}}


class JournalingWorker(FakeWorker):
    """Executes runs, notes each task function in the journal, and has a kill point inside it."""

    def __init__(self, simulation: Simulation, flows: Flows, functions: dict[str, Any]) -> None:
        super().__init__(simulation.hatchet, flows, functions)
        self.attempt = 0
        self._simulation = simulation

    def begins(self, run: Run) -> None:
        self.attempt = run.attempt
        self._simulation.journal.append(Body.of(time.time(), run.request.dedupe_key, run.id, run.attempt))
        self._simulation.switch.reach("call", "inside", "the body")


async def simulate(folder: Path, work: Work) -> Found:
    """Run every case the work hands out, one after another, and verify them all."""
    found = Found()
    journal: list[Body] = []
    started = time.monotonic()
    options = {"dir": str(folder), "appendfsync": "no", "auto-aof-rewrite-percentage": "0"}
    with EmbeddedValkey(append_only=True, options=options) as valkey:
        while (case := work.next()) is not None:
            await Simulation(valkey.url, case, f"case{len(found.cases)}", found, journal).run()
            work.done(case)
            found.cases.append(case)
        found.leaked = valkey.keys_without_ttl()
    found.verify(folder, journal)
    found.seconds = time.monotonic() - started
    return found


def _ignore_crashes(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Crash):
        loop.default_exception_handler(context)
