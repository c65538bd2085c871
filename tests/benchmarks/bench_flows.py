"""Round trips to Redis of a chain of three and of one item of a swarm: ``python -m tests.benchmarks.bench_flows``.

A fake Hatchet runs the steps, so that nothing but the calls to a real Valkey is counted. Counts, not times: load on the
machine does not change them.
"""

import argparse
import asyncio
import json
from typing import Any

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker
from tests.store.counting import RoundTrips


async def echo(message: dict[str, Any]) -> Any:
    """Return the message."""
    return message


async def measure(items: int) -> dict[str, float]:
    """Round trips from the start of a flow to its end."""
    round_trips, hatchet = RoundTrips(), FakeHatchet()
    with EmbeddedValkey() as server:
        port = RedisPort(server.url, round_trips)
        flows = Flows(Store(port, Keys("mageflow", "bench"), Settings()), hatchet, hatchet, Settings())
        worker = FakeWorker(hatchet, flows, {"echo": echo})

        async def run(flow: Any) -> int:
            round_trips.reset()
            await flows.start(flow)
            await worker.drain()
            await flows.drain()
            assert (await flows.load(flow.key)).has_ended
            return round_trips.total - round_trips.by_operation["load"]

        async def chain() -> int:
            return await run(await flows.creation.chain(["echo"] * 3))

        async def swarm(size: int) -> int:
            return await run(await flows.creation.swarm(["echo"] * size, closed=True))

        await chain(), await swarm(1)  # the server learns the scripts
        found = {"chain of 3": float(await chain()), "item of a swarm": await swarm(items) / items}
        await port.aclose()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000, help="items of the swarm")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = asyncio.run(measure(options.items))
    print(json.dumps(found) if options.json else "\n".join(f"{name}: {each:.3f}" for name, each in found.items()))


if __name__ == "__main__":
    main()
