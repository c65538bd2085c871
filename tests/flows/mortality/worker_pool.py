"""A lane: one worker at a time, and one flow at a time."""

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import redis.asyncio

from mageflow.engine import LocalEngine
from tests.flows.mortality.cases import Case, Work
from tests.flows.mortality.fork_server import Life, Nursery
from tests.flows.mortality.kill_points import KillPoint
from tests.flows.mortality.scenarios import Scenario
from tests.flows.mortality.verify import ENDED

CASE_SECONDS = 120.0
LOOK_SECONDS = 0.2
HELP_SECONDS = 1.0


class PooledWorker:
    """One worker after another, and one flow after another."""

    def __init__(self, name: str, engine: LocalEngine, nursery: Nursery, url: str) -> None:
        self.name = name
        hatchet = engine.client(namespace=name)
        self._engine = engine
        self._nursery = nursery
        self._redis = redis.asyncio.Redis.from_url(url, decode_responses=True)
        self._tasks = {
            name: hatchet.stubs.task(name=name, input_validator=dict[str, Any], output_validator=dict[str, Any])
            for name in ("begin", "wake", "stop")
        }
        self._life: Life | None = None

    async def run(self, work: Work, done: list[Case]) -> None:
        """Take cases until there are none."""
        while (case := work.next()) is not None:
            await self._case(case)
            work.done(case)
            done.append(case)
        await self._redis.aclose()

    async def _case(self, case: Case) -> None:
        life = await self._alive(None)
        started = born = time.monotonic()
        helped = 0.0
        plan = asdict(case.plan) if case.plan else None
        await self._ask("begin", {"scenario": case.scenario.name, "case": case.name, "plan": plan})
        second, kills = case.second, deque(case.kills)
        while True:
            if life.ended.is_set():
                case.deaths += 1
                born = time.monotonic()
                life = await self._alive(second)
                second = None
            elif kills and time.monotonic() - born >= kills[0]:
                kills.popleft()
                case.killed += 1
                life.kill()
                await life.ended.wait()
                continue
            keys = await self._redis.smembers(f"probe:flow:{case.name}")
            is_over, wants = await self._look(case.scenario, keys)
            if is_over:
                break
            if wants and time.monotonic() - helped > HELP_SECONDS:
                helped = time.monotonic()
                await self._ask(case.scenario.help, {"key": min(keys)})
            if time.monotonic() - started > CASE_SECONDS:
                case.problem = f"never ended: {await self._state(min(keys, default=''))}"
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(life.ended.wait(), LOOK_SECONDS)
        case.seconds = time.monotonic() - started

    async def _alive(self, plan: KillPoint | None) -> Life:
        while self._life is None or self._life.ended.is_set():
            self._life = await self._nursery.born(self._engine, self.name, plan)
        return self._life

    async def _ask(self, task: str, message: dict[str, Any]) -> None:
        await self._tasks[task].aio_run(message, wait_for_result=False)

    async def _state(self, key: str) -> tuple[dict[str, str], dict[str, Any], int, int]:
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(key)
            pipe.hgetall(f"{key}:runs")
            pipe.hlen(f"{key}:outbox")
            pipe.zcard(f"{key}:live")
            header, runs, outbox, live = await pipe.execute()
        return (
            header,
            {path: json.loads(text) for path, text in runs.items() if not path.startswith("added:")},
            outbox,
            live,
        )

    async def _look(self, scenario: Scenario, keys: set[str]) -> tuple[bool, bool]:
        """Whether everything is over, and whether help is wanted."""
        is_over, wants, waiting = bool(keys), False, list(keys)
        while waiting:
            key = waiting.pop()
            header, runs, outbox, live = await self._state(key)
            states = [state["st"] for state in runs.values()]
            is_over = is_over and header.get("st") in ENDED and not outbox and not live
            is_over = is_over and all(state in ENDED for state in states)
            if scenario.help == "wake":
                wants = wants or header.get("st") == "suspended"
            elif scenario.help == "stop":
                wants = wants or bool(await self._redis.exists(f"probe:long:{key}"))
            waiting += [run[5:] for state in runs.values() if (run := str(state.get("run"))).startswith("flow:")]
        return is_over, wants and not is_over
