"""What a fleet of idle workers costs one Redis: ``python -m tests.benchmarks.bench_idle``.

Sends what 1,000 idle workers send in a minute, as fast as one connection can, and reads the CPU time of the server.
Each worker looks for due records twelve times and for the election twelve times; the elected one also reads the counts
and the locks six times. With nothing stored, and with 10,000 signatures.
"""

import argparse
import asyncio
import json
from typing import Any, cast

import redis

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.store import Keys, LockStore, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.fake_hatchet import FakeHatchet

SWEEPS = ELECTIONS = 12
READINGS = 6
BATCH = 500


async def calls_of_a_worker(url: str) -> dict[str, list[str]]:
    """The command of each script of an idle worker, as the server sees it."""
    port = RedisPort(url)
    keys = Keys("mageflow", "bench")
    store, locks = Store(port, keys, Settings()), LockStore(port, keys)
    found: dict[str, list[str]] = {}

    async def record(name: str, work: Any) -> None:
        sent = port._round_trips.execute

        async def execute(operation: str, command: Any) -> Any:
            found.setdefault(name, [str(each) for each in command])
            return await sent(operation, command)

        port._round_trips.execute = execute  # type: ignore[method-assign]
        try:
            await work
        finally:
            port._round_trips.execute = sent  # type: ignore[method-assign]

    await record("lead", store.lead("worker-1", 15.0))
    await record("due", store.due(100, 15.0))
    await record("census", store.census(0))
    await record("lock_snapshot", locks.snapshot())
    await port.aclose()
    return found


def cpu_seconds(client: redis.Redis) -> float:
    """CPU time of the server so far."""
    found = cast("dict[str, Any]", client.info("cpu"))
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def measure(client: redis.Redis, calls: dict[str, list[str]], workers: int) -> dict[str, float]:
    """Share of one core that the server needs for a minute of such a fleet, in percent."""
    follower = [each if each != "worker-1" else "worker-2" for each in calls["lead"]]
    plan = [(calls["due"], SWEEPS * workers), (follower, ELECTIONS * workers)]
    plan += [(calls["census"], READINGS), (calls["lock_snapshot"], READINGS)]
    total = 0.0
    for command, times in plan:
        client.execute_command(*calls["lead"])  # a follower finds a leader
        before = cpu_seconds(client)
        for start in range(0, times, BATCH):
            pipeline = client.pipeline(transaction=False)
            for _ in range(min(BATCH, times - start)):
                pipeline.execute_command(*command)
            pipeline.execute()
        total += cpu_seconds(client) - before
    return {"workers": workers, "percent_of_a_core": total / 60 * 100}


def minute(client: redis.Redis, calls: dict[str, list[str]]) -> dict[str, float]:
    """Scripts that an idle leader sends in a minute, and the commands within them."""
    plan = [(calls["due"], SWEEPS), *((calls[name], READINGS) for name in ("lead", "census", "lock_snapshot"))]
    client.config_resetstat()
    for command, times in plan:
        for _ in range(times):
            client.execute_command(*command)
    stats = cast("dict[str, dict[str, float]]", client.info("commandstats"))
    scripts = stats.pop("cmdstat_evalsha")["calls"]
    own = ("cmdstat_info", "cmdstat_config")
    return {
        "scripts": scripts,
        "commands": sum(each["calls"] for name, each in stats.items() if not name.startswith(own)),
    }


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--signatures", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with EmbeddedValkey() as server:
        client = redis.Redis.from_url(server.url)
        calls = await calls_of_a_worker(server.url)
        rows["nothing stored"] = minute(client, calls) | measure(client, calls, options.workers)
        port, hatchet = RedisPort(server.url), FakeHatchet()
        flows = Flows(Store(port, Keys("mageflow", "bench"), Settings()), hatchet, hatchet, Settings())
        for _ in range(options.signatures):
            await flows.creation.sign("echo")
        await port.aclose()
        stored = minute(client, calls) | measure(client, calls, options.workers)
        rows[f"{options.signatures:,} signatures"] = stored
    if options.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(
            f"{name:20} one leader: {row['scripts']:.0f} scripts, {row['commands']:.0f} commands a minute; "
            f"{options.workers} workers: {row['percent_of_a_core']:.2f} % of one core"
        )


if __name__ == "__main__":
    asyncio.run(main())
