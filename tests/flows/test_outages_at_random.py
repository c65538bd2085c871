"""Random events from Hatchet, workers and people: every flow ends, and no step counts twice."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from mageflow.config import Settings
from mageflow.errors import IllegalTransitionError
from mageflow.flows import Flows
from mageflow.signatures import ENDED, FailureRecord, RunIdentity, Status, SwarmConfig
from mageflow.store import AttemptOutcome, Store
from tests.flows.admitting import admit
from tests.flows.conftest import stop
from tests.flows.fake_hatchet import FakeHatchet, Run

QUICK = Settings(reconcile_grace_seconds=0.01, reconcile_check_seconds=0.02, reconcile_interval_seconds=0.01)
EVENTS = {
    "arrive": 8, "end": 6, "fail": 1, "die": 1, "forget": 0.5, "overload": 1, "suspend": 0.7, "resume": 1, "replay": 1,
    "duplicate": 0.7, "sweep": 3, "outage": 0.4, "back": 1,
}  # fmt: skip


@dataclass
class Life:
    """One flow, a Hatchet that may lose runs, workers that may die, and a person at the dashboard."""

    flows: Flows
    hatchet: FakeHatchet
    random: random.Random
    key: str = ""
    bodies: list[tuple[Run, RunIdentity]] = field(default_factory=list[tuple[Run, RunIdentity]])
    succeeded: Counter[str] = field(default_factory=Counter[str])

    async def create(self) -> None:
        inner = await self.flows.creation.chain(["one", "two"], error="on-inner-error")
        if self.random.random() < 0.5:
            step = await self.flows.creation.sign("one", success_callbacks=["on-step"])
            flow: Any = await self.flows.creation.chain([step, inner, "three"], success="on-success", error="on-error")
        else:
            config = SwarmConfig(max_concurrency=2, refill_linger_ms=0)
            flow = await self.flows.creation.swarm(
                ["one", inner, "two", "three"], config=config, success_callbacks=["on-success"],
                error_callbacks=["on-error"], closed=True,
            )  # fmt: skip
        self.key = flow.key
        await self.flows.start(flow)

    async def event(self, name: str) -> None:
        if name in {"suspend", "resume"}:
            try:
                await getattr(self.flows.lifecycle, name)(self.key)
            except IllegalTransitionError:
                return
        elif name == "sweep":
            await asyncio.sleep(self.random.choice((0.0, 0.03, 0.08)))
            await self.flows.reconciler().sweep()
        elif name in {"outage", "back"}:
            self.hatchet.is_away = name == "outage"
        elif name in {"arrive", "overload"}:
            if self.hatchet.queue:
                await getattr(self, name)(self.hatchet.queue.popleft())
        elif name in {"end", "fail", "die"}:
            if self.bodies:
                body = self.bodies.pop(self.random.randrange(len(self.bodies)))
                await getattr(self, name)(*body)
        else:
            await getattr(self, name)()

    async def arrive(self, run: Run) -> None:
        if run.state != "queued":
            return
        run.state = "running"
        run.attempt += 1
        request = run.request
        identity = RunIdentity(run.id, f"step-{run.id}", f"worker-{run.attempt}", run.attempt, request.dedupe_key)
        admission = await admit(self.flows, request.signature_key, identity, input_json=request.input_json)
        if admission.verdict == "replay":
            run.state, run.output = "completed", admission.result_json
        elif admission.verdict == "skip":
            run.state = "cancelled"
        else:
            assert not self.succeeded[request.signature_key], f"{request.signature_key} runs again after it succeeded"
            self.bodies.append((run, identity))

    async def overload(self, run: Run) -> None:
        run.state, run.is_unscheduled = "cancelled", True

    async def end(self, run: Run, identity: RunIdentity) -> None:
        key = run.request.signature_key
        settled = await self.flows.settle(
            key, identity, AttemptOutcome("succeeded", result_json=f'{{"of": "{run.id}"}}')
        )
        if settled.verdict == "settled":
            self.succeeded[key] += 1
        if run.state == "running":
            run.state, run.output = "completed", f'{{"of": "{run.id}"}}'

    async def fail(self, run: Run, identity: RunIdentity) -> None:
        error = FailureRecord(type="ValueError", task=run.request.task_name, at=datetime.now(UTC))
        await self.flows.settle(run.request.signature_key, identity, AttemptOutcome("failed", error=error))
        if run.state == "running":
            run.state, run.error = "failed", "no good"

    async def die(self, run: Run, identity: RunIdentity) -> None:
        """Its process is gone; Hatchet gives the run to another, if it still knows it."""
        if run.id in self.hatchet.runs and run.state == "running":
            run.state = "queued"
            self.hatchet.queue.append(run)

    async def forget(self) -> None:
        self.hatchet.runs.clear()
        self.hatchet.queue.clear()

    async def replay(self) -> None:
        failed = [run for run in self.hatchet.runs.values() if run.state == "failed"]
        if failed:
            run = self.random.choice(failed)
            run.state, run.replayed_after = "queued", run.attempt
            self.hatchet.queue.append(run)

    async def duplicate(self) -> None:
        if self.hatchet.runs and not self.hatchet.is_away:
            await self.hatchet.dispatch([self.random.choice(list(self.hatchet.runs.values())).request])

    async def come_to_an_end(self) -> None:
        """No more disturbances: let the flow end."""
        self.hatchet.is_away = False
        reconciler = self.flows.reconciler()
        async with asyncio.timeout(90):
            while True:
                if (await self.flows.load(self.key)).status is Status.SUSPENDED:
                    await self.flows.lifecycle.resume(self.key)
                while self.hatchet.queue or self.bodies:
                    if self.hatchet.queue:
                        await self.arrive(self.hatchet.queue.popleft())
                    if self.bodies:
                        await self.end(*self.bodies.pop())
                await self.flows.drain()
                if (await reconciler.sweep()).records == 0 and await self.is_over():
                    return
                await asyncio.sleep(0.01)

    async def is_over(self) -> bool:
        port = self.flows._store.port
        open_keys = await port.command("KEYS", "mageflow:*:outbox"), await port.command("KEYS", "mageflow:*:live")
        return (await self.flows.load(self.key)).status in ENDED and open_keys == ([], []) and not self.hatchet.queue

    async def check(self) -> None:
        assert max(self.succeeded.values(), default=0) <= 1, self.succeeded
        flow: Any = await self.flows.load(self.key)
        done = [await self.flows.load(f"{self.key}#{index}") for index in (0, 2)]
        if flow.kind == "swarm":
            assert (flow.running, flow.pending) == (0, 0)
            assert flow.succeeded + flow.failed == flow.total
        elif flow.status is Status.DONE:
            assert flow.step == 3
            assert {str(each.status) for each in done} == {"done"}
        for name, fires in (("s0", flow.status is Status.DONE), ("e0", flow.status is Status.FAILED)):
            state = await self.flows._store.port.command("HGET", f"{self.key}:members", f".{name}")
            has_ended = any(f'"status":"{each}"' in (state or "") for each in ("done", "failed"))
            assert has_ended or not fires, f"{flow.status}: {name} is {state}"


@pytest.mark.parametrize("seed", range(12))
async def test_a_flow_ends_and_counts_once_after_random_events(
    store: Store, hatchet: FakeHatchet, seed: int, request: pytest.FixtureRequest
) -> None:
    """A chain or a swarm with a nested chain and callbacks, and sixty events; the seed is the parameter."""
    flows = Flows(Store(store.port, store.keys, QUICK), hatchet, hatchet, QUICK)
    life = Life(flows, hatchet, random.Random(seed))
    await life.create()
    names, weights = list(EVENTS), list(EVENTS.values())
    for name in life.random.choices(names, weights, k=60):
        await life.event(name)
    await life.come_to_an_end()
    await life.check()
    assert (await flows.load(life.key)).has_ended
    await stop(flows)
