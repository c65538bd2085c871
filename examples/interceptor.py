"""Stand around every attempt with code of your own: mageflow's telemetry uses the same seam.

Here: who pays for what. An interceptor adds up how long each task held a slot, and by which outcome.

Prints::

    spend: succeeded, held its slot for 0.05... s
"""

import asyncio
import sys
from collections.abc import Generator
from contextlib import contextmanager

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow
from mageflow.interceptors import Attempt, Interceptor


class Ledger(Interceptor):
    """One line per attempt, whatever becomes of it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, float]] = []

    @contextmanager
    def attempt(self, call: Attempt) -> Generator[None]:
        """Around the whole attempt; what is filled in later is there when the block is left."""
        try:
            yield
        finally:
            self.lines.append((call.task.name, str(call.outcome), call.elapsed_seconds))


ledger = Ledger()
client = Mageflow(Hatchet(), interceptors=[ledger])


class Nothing(BaseModel):
    pass


@client.task(name="spend")
async def spend(_: Nothing) -> None:
    await asyncio.sleep(0.05)


@client.task(name="read-ledger")
async def read_ledger(_: Nothing) -> dict[str, list[tuple[str, str, float]]]:
    return {"lines": ledger.lines}


async def main() -> None:
    await spend.aio_run(Nothing())
    for name, outcome, seconds in (await read_ledger.aio_run(Nothing()))["lines"]:
        if name == "spend":
            print(f"{name}: {outcome}, held its slot for {seconds:.4f} s")


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("interceptor-example", workflows=[spend, read_ledger]).start()
    else:
        asyncio.run(main())
