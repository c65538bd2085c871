"""Real workers that really die, on the local engine over a real Valkey, and flows that end all the same.

``python -m tests.flows.deaths --minutes 10`` prints where workers died and what became of the flows. Reassignment
waits for the engine to notice a death (5 s), and each new worker takes seconds to start, so this is slow; the
exhaustive matrix over every call is ``tests.flows.crashes``.
"""

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis.asyncio

from mageflow import Mageflow, Settings
from mageflow.engine import LocalEngine
from mageflow.signatures import Status, SwarmConfig
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.testing.workers import WorkerProcess

SCRIPT = Path(__file__).with_name("mortal_worker.py")
CALLBACKS = {Status.DONE: ".s0", Status.FAILED: ".e0", Status.CANCELLED: ".e0"}


class Deaths:
    """Starts flows, keeps workers coming, and judges at the end."""

    def __init__(
        self, engine: LocalEngine, valkey: EmbeddedValkey, folder: Path, *, workers: int, chance: float
    ) -> None:
        self.engine = engine
        self.valkey = valkey
        self.folder = folder
        self.wanted = workers
        self.chance = chance
        self.flows: list[str] = []
        self.killed = 0
        self.started = 0

    async def run(self, seconds: float, flows_per_second: float, *, sigkill_every: float = 0.0) -> dict[str, Any]:
        os.environ.update(self.engine.environment())
        client = Mageflow(self.engine.client(), self.valkey.url, settings=Settings(metrics=False))
        deadline = time.monotonic() + seconds
        keepers = [asyncio.create_task(self.keep_one(deadline, sigkill_every)) for _ in range(self.wanted)]
        try:
            while time.monotonic() < deadline:
                await self.one_flow(client)
                await asyncio.sleep(1 / flows_per_second)
            async with redis.asyncio.Redis.from_url(self.valkey.url) as probe:
                await probe.set("probe:calm", 1)
            await self.until_ended(client)
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
        return await self.judge(client)

    async def one_flow(self, client: Mageflow) -> None:
        kind = len(self.flows) % 3
        if kind == 0:
            flow = await client.chain(["step"] * 3, name="good", success="flow_done", error="flow_failed")
        elif kind == 1:
            flow = await client.chain(["step", "fails"], name="bad", success="flow_done", error="flow_failed")
        else:
            flow = await client.swarm(
                ["step"] * 8,
                "many",
                SwarmConfig(max_concurrency=4, refill_linger_ms=100),
                ["flow_done"],
                ["flow_failed"],
                closed=True,
            )
        await flow.aio_run_no_wait()
        self.flows.append(flow.key)

    async def keep_one(self, deadline: float, sigkill_every: float) -> None:
        """One worker after another, until this is cancelled."""
        while True:
            self.started += 1
            chance = self.chance if time.monotonic() < deadline else 0.0
            worker = WorkerProcess(
                self.engine,
                SCRIPT,
                output=self.folder / f"worker-{self.started}.log",
                environment={
                    "PROBE_REDIS": self.valkey.url,
                    "MORTALITY": str(chance),
                    "PYTHONPATH": str(SCRIPT.parents[2]),
                },
            )
            try:
                with suppress(Exception):  # it may die before it has registered
                    await worker.aio_start()
                born = time.monotonic()
                while worker.returncode is None:
                    await asyncio.sleep(0.1)
                    is_due = sigkill_every and time.monotonic() - born > sigkill_every
                    if is_due and time.monotonic() < deadline:
                        self.killed += 1
                        worker.kill()
            finally:
                with suppress(ProcessLookupError, Exception):
                    os.killpg(worker.pid, signal.SIGKILL)  # the listener of a dead worker would go on
                worker.kill()

    async def until_ended(self, client: Mageflow, seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        waiting = list(self.flows)
        while waiting and time.monotonic() < deadline:
            waiting = [key for key in waiting if not (await client.load_signature(key)).has_ended]
            await asyncio.sleep(0.3)
        while time.monotonic() < deadline:  # their callbacks, too
            open_ = [key for key in self.flows if not await self.told(client, key)]
            if not open_:
                return
            await asyncio.sleep(0.3)

    async def told(self, client: Mageflow, key: str) -> bool:
        status = (await client.load_signature(key)).status
        return status not in CALLBACKS or (await client.load_signature(f"{key}#{CALLBACKS[status]}")).has_ended

    async def judge(self, client: Mageflow) -> dict[str, Any]:
        outcomes: Counter[str] = Counter()
        wrong: list[str] = []
        async with redis.asyncio.Redis.from_url(self.valkey.url, decode_responses=True) as probe:
            deaths = {point: int(count) for point, count in (await probe.hgetall("probe:deaths")).items()}
            begun = [json.loads(each) for each in await probe.lrange("probe:begun", 0, -1)]
            states = {
                f"{key}#{path}": json.loads(state)
                for key in self.flows
                for path, state in (await probe.hgetall(f"{key}:runs")).items()
            }
        for key in self.flows:
            status = (await client.load_signature(key)).status
            outcomes[str(status)] += 1
            if status not in CALLBACKS:
                wrong.append(f"{key} is still {status}")
                continue
            other = ".e0" if CALLBACKS[status] == ".s0" else ".s0"
            if states.get(f"{key}#{CALLBACKS[status]}", {}).get("st") not in {"done", "failed"}:
                wrong.append(f"{key}: its callback never ended: {states.get(f'{key}#{CALLBACKS[status]}')}")
            if f"{key}#{other}" in states:
                wrong.append(f"{key}: it is {status}, and the other callback fired")
        runs: dict[str, set[str]] = {}
        for note in begun:
            place = note["place"].split(" ")[0]
            runs.setdefault(place, set()).add(note["run"])
            state = states[place]
            if state["st"] == "done" and note["at"] > state["t"]:
                wrong.append(f"{place} ran again {note['at'] - state['t']} ms after it had succeeded")
        wrong += [f"{place} ran in {len(found)} runs" for place, found in runs.items() if len(found) > 1]
        return {
            "flows": len(self.flows),
            "outcomes": dict(outcomes),
            "deaths": deaths,
            "sigkills": self.killed,
            "workers": self.started,
            "bodies": len(begun),
            "wrong": wrong,
        }


def report(found: dict[str, Any]) -> None:
    """Print the table."""
    print(f"\n{'where a worker died':<34}{'deaths':>7}")
    for point, count in sorted(found["deaths"].items()):
        print(f"{point:<34}{count:>7}")
    print(f"{'killed (SIGKILL)':<34}{found['sigkills']:>7}")
    print(f"{'all':<34}{sum(found['deaths'].values()) + found['sigkills']:>7}")
    print(
        f"{found['flows']} flows ended as {found['outcomes']}; {found['bodies']} bodies on {found['workers']} workers"
    )
    print("\n".join(found["wrong"]) or "nothing lost, nothing twice")


def main() -> None:
    """Print what became of the flows."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--chance", type=float, default=0.01)
    parser.add_argument("--rate", type=float, default=1.0, help="flows started per second")
    parser.add_argument("--sigkill-every", type=float, default=20.0, help="seconds of life until SIGKILL")
    options = parser.parse_args()
    with (
        EmbeddedValkey() as valkey,
        LocalEngine(worker_lost_after=5.0) as engine,
        tempfile.TemporaryDirectory() as folder,
    ):
        deaths = Deaths(engine, valkey, Path(folder), workers=options.workers, chance=options.chance)
        work = deaths.run(options.minutes * 60, options.rate, sigkill_every=options.sigkill_every)
        found = asyncio.run(work)
        if found["wrong"]:
            for log in sorted(Path(folder).glob("*.log"))[:3]:
                print(log.name, log.read_text()[-1500:])
    report(found)
    raise SystemExit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
