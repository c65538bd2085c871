"""What records cost: bytes in Redis, and time of the server per script.

    python -m tests.benchmarks.bench_store

Prints one row per scenario (bytes of all keys of the record, as text and as Redis counts them) and one row per script
(median microseconds of the server, from ``INFO commandstats``).
"""

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import redis

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.interceptors import Interceptor, RedisCall
from mageflow.signatures import SwarmConfig
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker

RUN_PREFIX = "6f9619ff-8b86-d011-b42d-00cf4fc9"
"""With the numbers of the runs and the words of the worker, a state is as long as one with real ids."""


class ScriptTimes(Interceptor):
    """Microseconds of the server per script call."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.microseconds: dict[str, list[float]] = defaultdict(list)

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        """Read the counter of the server before and after."""
        return self._measured(call.operation)

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        before = self._usec()
        yield
        self.microseconds[operation].append(self._usec() - before)

    def _usec(self) -> float:
        stats = self.client.info("commandstats")
        return float(stats.get("cmdstat_evalsha", {}).get("usec", 0))


def sizes(client: redis.Redis, record: str) -> tuple[int, int]:
    """Bytes of the text stored in the keys of one record, and bytes Redis uses for them."""
    text = used = 0
    for key in client.keys(f"{record}*".replace("{", "[{]").replace("}", "[}]")):
        used += client.memory_usage(key, samples=0) or 0
        kind = client.type(key)
        if kind == b"hash":
            text += sum(len(name) + len(value) for name, value in client.hgetall(key).items())
        elif kind == b"zset":
            text += sum(len(name) + 8 for name in client.zrange(key, 0, -1))
        elif kind == b"list":
            text += sum(len(value) for value in client.lrange(key, 0, -1))
    return text, used


async def echo(message: dict[str, Any]) -> Any:
    """Return the message."""
    return {"price": 12.5, "order": message.get("order")}


async def main() -> None:
    """Run the scenarios and print both tables."""
    with EmbeddedValkey() as server:
        client = redis.Redis.from_url(server.url)
        times = ScriptTimes(server.url)
        port = RedisPort(server.url, times)
        settings = Settings()
        hatchet = FakeHatchet()
        hatchet.ids = (f"{RUN_PREFIX}{number:03d}" for number in range(10**3))
        flows = Flows(Store(port, Keys("mageflow", "bench"), settings), hatchet, hatchet, settings)
        bodies = dict.fromkeys(("price_order", "pack_order", "ship_order", "tell"), echo)
        worker = FakeWorker(hatchet, flows, bodies, name="0f9619ff-8b86-d011-b42d-00cf4fc964ff")

        async def finish(key: str) -> tuple[int, int]:
            await worker.drain()
            assert (await flows.load(key)).has_ended
            await flows.drain()
            return sizes(client, key)

        rows: dict[str, tuple[int, int]] = {}
        for number in range(40):
            chain = await flows.creation.chain(
                ["price_order", "pack_order", "ship_order"], success=["tell"], error=["tell"]
            )
            await flows.start(chain, {"order": 1})
            if number == 0:
                rows["chain of 3, started"] = sizes(client, chain.key)
            rows["chain of 3, done"] = await finish(chain.key)
        for size in (100, 600):
            swarm = await flows.creation.swarm(
                ["price_order"] * size, config=SwarmConfig(max_concurrency=30), closed=True
            )
            await flows.start(swarm, {"order": 1})
            rows[f"swarm of {size}, done"] = await finish(swarm.key)
        await port.aclose()
        for name, (text, used) in rows.items():
            print(f"{name:24} {text:9,} bytes of text {used:10,} bytes used")
        for name, found in sorted(times.microseconds.items()):
            best = statistics.quantiles(found, n=10)[0]
            print(f"{name:24} {statistics.median(found):7.1f} us median {best:7.1f} us best tenth of {len(found)}")


if __name__ == "__main__":
    asyncio.run(main())
