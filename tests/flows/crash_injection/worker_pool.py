"""Workers that run cases: one worker process and one flow at a time in each namespace, many namespaces side by side."""

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import redis.asyncio

from mageflow.engine import LocalEngine
from tests.flows.crash_injection.cases import Case, Work
from tests.flows.crash_injection.fork_server import ForkedWorker, ForkServer
from tests.flows.crash_injection.kill_points import KillPoint
from tests.flows.crash_injection.progress import flows_key, read_progress, read_state

CASE_SECONDS = 120.0
LOOK_SECONDS = 0.2
INTERVENTION_SECONDS = 1.0


class PooledWorker:
    """One namespace: takes cases, and starts a new worker whenever the one before has died."""

    def __init__(self, namespace: str, engine: LocalEngine, server: ForkServer, url: str) -> None:
        hatchet = engine.client(namespace=namespace)
        self._namespace = namespace
        self._engine = engine
        self._server = server
        self._redis = redis.asyncio.Redis.from_url(url, decode_responses=True)
        self._tasks = {
            name: hatchet.stubs.task(name=name, input_validator=dict[str, Any], output_validator=dict[str, Any])
            for name in ("begin", "resume", "interrupt")
        }
        self._worker: ForkedWorker | None = None

    async def run(self, work: Work, done: list[Case]) -> None:
        """Run cases until there are no more."""
        while (case := work.next()) is not None:
            await self._run_case(case)
            work.done(case)
            done.append(case)
        await self._redis.aclose()

    async def _run_case(self, case: Case) -> None:
        worker = await self._living_worker(None)
        case_started = worker_started = time.monotonic()
        intervened = 0.0
        point = asdict(case.first) if case.first else None
        await self._send("begin", {"scenario": case.scenario.name, "case": case.name, "point": point})
        second, kills = case.second, deque(case.kills)
        while True:
            if worker.ended.is_set():
                case.deaths += 1
                worker_started = time.monotonic()
                worker = await self._living_worker(second)
                second = None
            elif kills and time.monotonic() - worker_started >= kills[0]:
                kills.popleft()
                case.killed += 1
                worker.kill()
                await worker.ended.wait()
                continue
            keys = await self._redis.smembers(flows_key(case.name))
            progress = await read_progress(self._redis, keys)
            if progress.is_over:
                break
            wanted = {"resume": progress.is_suspended, "interrupt": progress.runs_long}
            if wanted.get(case.scenario.intervention) and time.monotonic() - intervened > INTERVENTION_SECONDS:
                intervened = time.monotonic()
                await self._send(case.scenario.intervention, {"key": min(keys)})
            if time.monotonic() - case_started > CASE_SECONDS:
                case.problem = f"never ended: {await read_state(self._redis, min(keys, default=''))}"
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(worker.ended.wait(), LOOK_SECONDS)
        case.seconds = time.monotonic() - case_started

    async def _living_worker(self, point: KillPoint | None) -> ForkedWorker:
        while self._worker is None or self._worker.ended.is_set():
            self._worker = await self._server.start(self._engine, self._namespace, point)
        return self._worker

    async def _send(self, task: str, message: dict[str, Any]) -> None:
        await self._tasks[task].aio_run(message, wait_for_result=False)
