"""Stored records as fixtures: raw keys of one format as JSON, written once and read for ever.

    python -m tests.store.stored_records tests/store/fixtures/format_<version>

writes one file per scenario with the code of this checkout. Do it once, when ``FORMAT_VERSION`` is raised; files of
older versions stay as they are.
"""

import asyncio
import itertools
import json
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.signatures import FORMAT_VERSION, RunIdentity, RunOptions, SwarmConfig, TaskSignature
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.types import DispatchRun
from tests.flows.admitting import admit
from tests.flows.conftest import echo, stop
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker, Run

NAMESPACE = "stored"
TTL_SECONDS = 3600
WRITTEN_MS = 1735689600000
"""Stored times are moved to the day after this one, 1 January 2025: a record is never of the future."""

_TIME = re.compile(r"\b1[789]\d{11}\b")
FIXTURES = Path(__file__).parent / "fixtures"


@dataclass
class Stage:
    """One Redis with the parts that write to it."""

    port: RedisPort
    store: Store
    hatchet: FakeHatchet
    flows: Flows

    @classmethod
    def open(cls, url: str, settings: Settings | None = None) -> "Stage":
        """Everything over one server, in the namespace of the fixtures."""
        port, hatchet = RedisPort(url), FakeHatchet()
        store = Store(port, Keys("mageflow", NAMESPACE), settings or Settings())
        return cls(port, store, hatchet, Flows(store, hatchet, hatchet, store.settings))

    def worker(self, **task_functions: Any) -> FakeWorker:
        """A worker that runs these tasks."""
        return FakeWorker(self.hatchet, self.flows, task_functions)

    async def run_by_user(self, signature: TaskSignature, message: dict[str, Any]) -> Run:
        """Start a run of a signature, as its user does."""
        request = DispatchRun(
            task_name=signature.task_name,
            input_json=json.dumps(message),
            signature_key=signature.key,
            dedupe_key=self.flows.new_run_key(signature),
        )
        [run_id] = await self.hatchet.dispatch([request])
        return self.hatchet.runs[run_id]

    async def aclose(self) -> None:
        """Close what was opened."""
        await stop(self.flows)
        await self.port.aclose()


_READ = """
local read = {hash = {'HGETALL'}, zset = {'ZRANGE', 0, -1, 'WITHSCORES'}, list = {'LRANGE', 0, -1}, string = {'GET'}}
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
    local kind = redis.call('TYPE', key)['ok']
    local command = {unpack(read[kind])}
    table.insert(command, 2, key)
    found[#found + 1] = {key, kind, redis.call(unpack(command))}
end
return found
"""


async def raw_keys(port: RedisPort) -> dict[str, dict[str, Any]]:
    """Everything stored, by key: its type and its value. One round trip, for some tests read a thousand times."""
    found: dict[str, dict[str, Any]] = {}
    for key, kind, read in sorted(await port.command("EVAL", _READ, 0)):
        value: Any = read
        if kind in ("hash", "zset"):
            pairs = zip(read[::2], read[1::2], strict=True)
            value = dict(pairs) if kind == "hash" else {member: float(score) for member, score in pairs}
        found[key] = {"type": kind, "value": value}
    return found


async def write_raw_keys(port: RedisPort, keys: dict[str, dict[str, Any]]) -> None:
    """Store raw keys as they were, with a TTL."""
    for key, found in keys.items():
        value = found["value"]
        if found["type"] == "hash":
            await port.command("HSET", key, *[text for pair in value.items() for text in pair])
        elif found["type"] == "zset":
            await port.command("ZADD", key, *[text for member, score in value.items() for text in (score, member)])
        elif found["type"] == "list":
            await port.command("RPUSH", key, *value)
        else:
            await port.command("SET", key, value)
        await port.command("EXPIRE", key, TTL_SECONDS)


async def read_fixture(stage: Stage, version: int, name: str) -> str:
    """Store a fixture, with the runs that Hatchet had; the key of its record."""
    fixture = json.loads((FIXTURES / f"format_{version}" / f"{name}.json").read_text())
    await write_raw_keys(stage.port, fixture["keys"])
    for each in fixture["runs"]:
        run = Run(**{**each, "request": DispatchRun(**each["request"])})
        stage.hatchet.runs[run.id] = run
    stage.hatchet.ids = itertools.count(len(fixture["runs"]))
    return fixture["record"]


async def pending_chain(stage: Stage) -> str:
    """Three steps with callbacks; nothing has started."""
    step = await stage.flows.creation.sign("pack", fragile=True, success_callbacks=["note"])
    chain = await stage.flows.creation.chain(
        ["price", step, "ship"], name="order", success=["receipt"], error=["apology"], currency="EUR"
    )
    return chain.key


async def half_done_swarm(stage: Stage) -> str:
    """Five items on two places: two are done, two are running, one waits."""
    config = SwarmConfig(max_concurrency=2, refill_linger_ms=0)
    swarm = await stage.flows.creation.swarm(
        ["price"] * 5, name="prices", config=config, success_callbacks=["report"], closed=True
    )
    await stage.flows.start(swarm, {"currency": "EUR"})
    worker = stage.worker(price=echo)
    await worker.one()
    await worker.one()
    for run in list(stage.hatchet.queue):
        run.state, run.attempt = "running", 1
        request = run.request
        await admit(stage.store, request.signature_key, identity(run), input_json=request.input_json)
    return swarm.key


async def suspended_signature(stage: Stage) -> str:
    """A run that arrived while its signature was suspended: it is held with its input."""
    signature = await stage.flows.creation.sign("price", success_callbacks=["note"], currency="EUR")
    await signature.suspend(by="ana", why="prices change")
    await stage.run_by_user(signature, {"order": 17})
    await stage.worker(price=echo).drain()
    return signature.key


async def finished_chain(stage: Stage) -> str:
    """Both steps and both kinds of callbacks are done."""
    step = await stage.flows.creation.sign("ship", success_callbacks=["note"])
    chain = await stage.flows.creation.chain(["price", step], name="order", success=["receipt"], error=["apology"])
    await stage.flows.start(chain, {"order": 17}, by="ana")
    await stage.worker(price=echo, ship=echo, note=echo, receipt=echo).drain()
    return chain.key


async def failed_chain(stage: Stage) -> str:
    """The second step failed; the error callback is sent and has not been admitted."""
    chain = await stage.flows.creation.chain(["price", "ship"], name="order", error=["apology"])
    await stage.flows.start(chain, {"order": 17})
    await stage.worker(price=echo, ship=fail).one()
    await stage.worker(price=echo, ship=fail).one()
    return chain.key


async def nested_swarm(stage: Stage) -> str:
    """A suspended chain whose second step is a swarm with a running item and a held one."""
    swarm = await stage.flows.creation.swarm(["pack"] * 2, closed=True)
    chain = await stage.flows.creation.chain(["price", swarm, "ship"], name="order")
    await stage.flows.start(chain, {"order": 17})
    await stage.worker(price=echo).one()
    run = stage.hatchet.queue[0]
    run.state, run.attempt = "running", 1
    await admit(stage.store, run.request.signature_key, identity(run), input_json=run.request.input_json)
    stage.hatchet.queue.rotate(-1)
    await chain.suspend()
    await stage.worker(pack=echo).one()
    return chain.key


async def scheduled_chain(stage: Stage) -> str:
    """A chain that starts by itself; its second step is a swarm that is kept until then."""
    swarm = await stage.flows.creation.swarm(["pack"] * 2, closed=True)
    chain = await stage.flows.creation.chain(["price", swarm], name="order", success=["receipt"])
    at = datetime.now(UTC) + timedelta(minutes=5)
    await stage.flows.schedules.schedule(
        chain.key, at, {"order": 17}, RunOptions(metadata={"tenant": "acme"}, priority=3)
    )
    return chain.key


Scenario = Callable[[Stage], Awaitable[str]]
SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        pending_chain,
        half_done_swarm,
        suspended_signature,
        finished_chain,
        failed_chain,
        nested_swarm,
        scheduled_chain,
    )
}


def identity(run: Run) -> RunIdentity:
    """As `FakeWorker` names the attempt of a run."""
    return RunIdentity(run.id, f"step-{run.id}", "worker", run.attempt, run.request.dedupe_key, f"trace-{run.id}")


async def fail(message: dict[str, Any]) -> Any:
    """A task function that fails."""
    raise ValueError(f"no carrier for {message}")


async def make_fixture(scenario: Scenario) -> dict[str, Any]:
    """Play a scenario on an empty server."""
    with EmbeddedValkey() as server:
        stage = Stage.open(server.url)
        record = await scenario(stage)
        await stage.flows.drain()
        fixture = {
            "format": FORMAT_VERSION,
            "scenario": " ".join((scenario.__doc__ or "").split()),
            "record": record,
            "keys": await raw_keys(stage.port),
            "runs": [asdict(run) for run in stage.hatchet.runs.values()],
        }
        await stage.aclose()
    return fixture


def write_fixtures(folder: Path) -> None:
    """One file per scenario."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scenario in SCENARIOS.items():
        text = json.dumps(asyncio.run(make_fixture(scenario)), indent=1)
        text = _TIME.sub(lambda found: str(WRITTEN_MS + int(found[0]) % 10**8), text)
        (folder / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    write_fixtures(Path(sys.argv[1]))
