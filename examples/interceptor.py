"""Run your own code around every attempt. mageflow's telemetry is such an interceptor too.

This one records how long each attempt occupied its slot, and its outcome.

Prints::

    spend: succeeded, occupied its slot for 0... s
"""

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow
from mageflow.interceptors import Attempt, Interceptor


class SlotTimes(Interceptor):
    """One entry for each attempt, with any outcome."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, float]] = []

    @contextmanager
    def attempt(self, call: Attempt) -> Generator[None]:
        """Runs around the attempt. The outcome and the duration of ``call`` are set when the block ends."""
        try:
            yield
        finally:
            self.entries.append((call.task.name, str(call.outcome), call.elapsed_seconds))


slot_times = SlotTimes()
client = Mageflow(Hatchet(), interceptors=[slot_times])


class Nothing(BaseModel):
    pass


@client.task(name="spend")
async def spend(_: Nothing) -> None:
    await asyncio.sleep(0.05)


@client.task(name="read-slot-times")
async def read_slot_times(_: Nothing) -> dict[str, list[tuple[str, str, float]]]:
    return {"entries": slot_times.entries}


async def main() -> None:
    await spend.aio_run(Nothing())
    for name, outcome, seconds in (await read_slot_times.aio_run(Nothing()))["entries"]:
        if name == "spend":
            print(f"{name}: {outcome}, occupied its slot for {seconds:.4f} s")


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("interceptor-example", workflows=[spend, read_slot_times]).start()
    else:
        asyncio.run(main())
