"""A worker that dies at a chosen call to Redis or Hatchet, before it or after it, and a colleague who takes over.

Run as a script (``python -m tests.flows.crashes --crashes 2000``) it prints the whole matrix; the suite runs every
point of every scenario once.
"""

import argparse
import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.interceptors import Interceptor, RedisCall
from mageflow.signatures import ENDED, SwarmConfig
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.types import DispatchRun, RunReport
from tests.flows.hatchet import Crash, Hatchet, Run, Worker

SETTINGS = Settings(reconcile_grace_seconds=0.01, reconcile_check_seconds=0.03, reconcile_interval_seconds=0.01)


@dataclass
class KillPoint:
    """Dies at the n-th call, before or after it."""

    at: int = 0
    after: bool = False
    calls: int = 0
    happened: str = ""
    names: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def around(self, name: str) -> Generator[None]:
        self.calls += 1
        mine = self.calls
        self.names.append(name)
        if mine == self.at and not self.after and not self.happened:
            self.happened = f"before {name}"
            raise Crash(self.happened)
        yield
        if mine == self.at and self.after and not self.happened:
            self.happened = f"after {name}"
            raise Crash(self.happened)


class Dying(Interceptor):
    def __init__(self, plan: KillPoint) -> None:
        self.plan = plan

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        return self.plan.around(call.operation)


class DyingHatchet:
    def __init__(self, hatchet: Hatchet, plan: KillPoint) -> None:
        self.hatchet = hatchet
        self.plan = plan

    def task_name(self, task: object) -> str | None:
        return self.hatchet.task_name(task)

    def input_model(self, name: str) -> object | None:
        return self.hatchet.input_model(name)

    async def dispatch(self, runs: Sequence[DispatchRun]) -> Sequence[str]:
        with self.plan.around("dispatch"):
            return await self.hatchet.dispatch(runs)

    async def cancel(self, run_ids: Sequence[str]) -> None:
        with self.plan.around("cancel"):
            await self.hatchet.cancel(run_ids)

    async def statuses(self, run_ids: Sequence[str]) -> Mapping[str, RunReport]:
        with self.plan.around("statuses"):
            return await self.hatchet.statuses(run_ids)

    async def was_replayed(self, run_id: str, attempt_number: int) -> bool:
        with self.plan.around("was_replayed"):
            return await self.hatchet.was_replayed(run_id, attempt_number)

    async def was_timed_out(self, run_id: str, attempt_number: int) -> bool:
        with self.plan.around("was_timed_out"):
            return await self.hatchet.was_timed_out(run_id, attempt_number)


@dataclass
class Scenario:
    name: str
    start: Callable[[Flows], Awaitable[str]]
    callbacks: dict[str, int]
    """How often each callback's body must have been settled as succeeded."""
    retries: dict[str, int] = field(default_factory=dict)
    outcome: str = "done"


async def _chain(flows: Flows) -> str:
    step = await flows.creation.sign("step", success_callbacks=["step_done"])
    chain = await flows.creation.chain([step, "step", "step"], success=["flow_done"], error=["flow_failed"])
    await flows.start(chain, {"m": 1})
    return chain.key


async def _failing_chain(flows: Flows) -> str:
    chain = await flows.creation.chain(["step", "fails", "step"], success=["flow_done"], error=["flow_failed"])
    await flows.start(chain, {"m": 1})
    return chain.key


async def _swarm(flows: Flows) -> str:
    swarm = await flows.creation.swarm(
        ["step"] * 6 + ["fails"],
        config=SwarmConfig(max_concurrency=3, refill_linger_ms=20),
        success_callbacks=["flow_done"],
        error_callbacks=["flow_failed"],
        closed=True,
    )
    await flows.start(swarm, {"m": 1})
    return swarm.key


async def _nested(flows: Flows) -> str:
    inner = await flows.creation.swarm(["step"] * 3, closed=True, success_callbacks=["inner_done"])
    after = await flows.creation.chain(["step", "step"])
    chain = await flows.creation.chain(["step", inner, "step"], success=["flow_done", after], error=["flow_failed"])
    await flows.start(chain, {"m": 1})
    return chain.key


SCENARIOS = (
    Scenario("chain", _chain, {"step_done": 1, "flow_done": 1}),
    Scenario("failing chain", _failing_chain, {"flow_failed": 1}, {"fails": 1}, "failed"),
    Scenario("swarm", _swarm, {"flow_done": 1}),
    Scenario("nested", _nested, {"flow_done": 1, "inner_done": 1}),
)


@dataclass
class Verdict:
    point: str
    problem: str = ""


class Colleagues:
    """One worker after another: each dies as planned or goes on; each has a process of its own."""

    def __init__(self, port_url: str, hatchet: Hatchet, plan: KillPoint, namespace: str) -> None:
        self.hatchet = hatchet
        self.plan = plan
        self.port = RedisPort(port_url, Dying(plan))
        self.store = Store(self.port, Keys("mageflow", namespace), SETTINGS)
        self.watching = RedisPort(port_url)
        self.watch = Store(self.watching, Keys("mageflow", namespace), SETTINGS)
        self.begun: Counter[str] = Counter()
        self.settled: Counter[str] = Counter()
        self.again: list[str] = []
        self.has_died = False
        self.flows = self.process()

    def process(self) -> Flows:
        return Flows(self.store, DyingHatchet(self.hatchet, self.plan), self.hatchet, SETTINGS)

    def body(self, fails: bool) -> Callable[[dict[str, Any]], Awaitable[Any]]:
        async def run(message: dict[str, Any]) -> Any:
            if fails:
                raise ValueError("no good")
            return {"n": 1}

        return run

    async def work(self, run: Run) -> None:
        names = ("step", "step_done", "flow_done", "flow_failed", "inner_done", "fails")
        worker = Seen(self, {name: self.body(name == "fails") for name in names})
        self.hatchet.queue.appendleft(run)
        await worker.one()
        if worker.died:
            await self.die()

    async def die(self) -> None:
        """The process is gone with everything it had in mind."""
        self.has_died = True
        for task in asyncio.all_tasks():
            if task.get_name().startswith("mageflow-"):
                task.cancel()
        self.flows._acknowledgements._waiting.clear()
        self.flows = self.process()


class Seen(Worker):
    def __init__(self, colleagues: Colleagues, bodies: Mapping[str, Any]) -> None:
        super().__init__(colleagues.hatchet, colleagues.flows, bodies)
        self.colleagues = colleagues
        self.died = False

    def lost(self, run: Run) -> None:
        self.died = True
        super().lost(run)

    def begins(self, place: str) -> None:
        self.colleagues.begun[place] += 1
        if self.colleagues.settled[place]:
            self.colleagues.again.append(place)

    async def settle(self, run: Run, identity: Any, outcome: Any, **facts: Any) -> None:
        place = f"{run.request.signature_key}:{run.request.task_name}"
        crash = ""
        try:
            await super().settle(run, identity, outcome, **facts)
        except Crash as error:
            crash = str(error)
            raise
        finally:
            if crash != "before settle" and outcome == "succeeded":
                self.colleagues.settled[place] += 1


async def crash_once(url: str, scenario: Scenario, at: int, after: bool, namespace: str) -> tuple[Verdict, int]:
    """Run a scenario to its end with one crash; returns what was wrong, and how many calls were made."""
    hatchet = Hatchet(retries=scenario.retries)
    plan = KillPoint(at=at, after=after)
    colleagues = Colleagues(url, hatchet, plan, namespace)
    key = ""
    while not key:
        try:
            key = await scenario.start(colleagues.flows)
        except Crash:
            if plan.happened.endswith("dispatch") or plan.happened == "after start":
                key = await _started(url, namespace)
            await colleagues.die()
    reconciler = colleagues.flows.reconciler()
    deadline = time.monotonic() + 10
    quiet = 0
    asyncio.get_running_loop().set_exception_handler(_dead_men_tell_nothing)
    while quiet < 6:
        if plan.happened and not colleagues.has_died:
            await colleagues.die()
            reconciler = colleagues.flows.reconciler()
        if time.monotonic() > deadline:
            state = await colleagues.watch.load(key)
            return Verdict(plan.happened, f"never ended: {state.status}"), plan.calls
        if hatchet.queue:
            quiet = 0
            await colleagues.work(hatchet.queue.popleft())
            continue
        try:
            swept = await reconciler.sweep()
        except Crash:
            await colleagues.die()
            reconciler = colleagues.flows.reconciler()
            continue
        flow = await colleagues.watch.load(key)
        quiet = 0 if hatchet.queue or swept.sent or flow.status not in ENDED else quiet + 1
        await asyncio.sleep(0.006)
    problem = await _judge(colleagues, scenario, key)
    await colleagues.flows.drain()
    await colleagues.die()
    await colleagues.port.aclose()
    await colleagues.watching.aclose()
    return Verdict(plan.happened, problem), plan.calls


def _dead_men_tell_nothing(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if not isinstance(context.get("exception"), Crash):
        loop.default_exception_handler(context)


async def _started(url: str, namespace: str) -> str:
    """The key of the flow that had begun when whoever started it died."""
    port = RedisPort(url)
    try:
        for defs in await port.command("KEYS", f"mageflow:{{{namespace}/*}}*:defs"):
            if await port.command("HGET", defs.removesuffix(":defs"), "started"):
                return str(defs).removesuffix(":defs")
    finally:
        await port.aclose()
    raise AssertionError("nothing had begun")


async def _judge(colleagues: Colleagues, scenario: Scenario, key: str) -> str:
    flow = await colleagues.watch.load(key)
    if flow.status != scenario.outcome:
        return f"ended as {flow.status}"
    if colleagues.again:
        return f"ran again after it had succeeded: {colleagues.again}"
    twice = [place for place, count in colleagues.settled.items() if count > 1]
    if twice:
        return f"succeeded twice: {twice}"
    for task, count in scenario.callbacks.items():
        settled = sum(n for place, n in colleagues.settled.items() if place.endswith(f":{task}"))
        if settled != count:
            return f"callback {task} succeeded {settled} times"
    others = {"flow_done", "flow_failed"} - set(scenario.callbacks)
    wrong = [place for place in colleagues.begun if place.rpartition(":")[2] in others]
    return f"fired by mistake: {wrong}" if wrong else ""


async def matrix(url: str, crashes: int, report: Callable[[str], None]) -> dict[str, Counter[str]]:
    """Every point of every scenario, over and over, until there were so many crashes."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    number = done = 0
    while done < crashes:
        for scenario in SCENARIOS:
            _, calls = await crash_once(url, scenario, 0, after=False, namespace=f"probe{number}")
            for at in range(1, calls + 1):
                for after in (False, True):
                    number += 1
                    verdict, _ = await crash_once(url, scenario, at, after, f"n{number}")
                    if not verdict.point:
                        continue
                    done += 1
                    table[f"{scenario.name}: {verdict.point}"]["bad" if verdict.problem else "good"] += 1
                    if verdict.problem:
                        report(f"{scenario.name} at call {at} ({verdict.point}): {verdict.problem}")
    return table


def main() -> None:
    """Print the matrix."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--crashes", type=int, default=2000)
    arguments = parser.parse_args()
    with EmbeddedValkey() as server:
        started = time.monotonic()
        table = asyncio.run(matrix(server.url, arguments.crashes, print))
    print(f"\n{'where the worker died':<44}{'crashes':>8}{'wrong':>7}")
    for point, counts in sorted(table.items()):
        print(f"{point:<44}{counts.total():>8}{counts['bad']:>7}")
    total, bad = sum(each.total() for each in table.values()), sum(each["bad"] for each in table.values())
    print(f"{'all':<44}{total:>8}{bad:>7}   in {time.monotonic() - started:.0f} s")
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
