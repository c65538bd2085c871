"""Two tasks take the same two accounts the wrong way round; one gives way, is run again, and both finish.

Each transfer holds the account it takes from before it asks for the one it gives to. Two transfers in opposite
directions therefore wait for each other: a deadlock. The request that closes it is told in the same round trip, with
the whole cycle; Hatchet runs that task again.

Prints::

    2 of 2 transfers finished
    transfer waited for ... while transfer waited for ...
    the one that gave way finished on attempt 2
"""

import asyncio
import sys
from typing import Any

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow
from mageflow.errors import DeadlockError

client = Mageflow(Hatchet())

accounts = client.resource("account")
meeting = asyncio.Barrier(2)
cycles: dict[str, str] = {}
"""What each victim was told, for its next attempt to return."""


class Transfer(BaseModel):
    source: str
    target: str


@client.task(name="transfer", retries=2)
@client.with_ctx
async def transfer(order: Transfer, ctx: Context) -> dict[str, Any]:
    async with accounts.acquire(key=order.source):
        if ctx.attempt_number == 1:
            await meeting.wait()  # both hold one account now: without this the deadlock would be a matter of luck
        try:
            async with accounts.acquire(key=order.target):
                return {"attempt": ctx.attempt_number, "cycle": cycles.get(order.source, "")}
        except DeadlockError as error:
            cycles[order.source] = " while ".join(f"{edge.task} waited for {edge.key}" for edge in error.cycle)
            raise


async def main() -> None:
    orders = [Transfer(source="ada", target="bob"), Transfer(source="bob", target="ada")]
    results = await transfer.aio_run_many([transfer.create_bulk_run_item(order) for order in orders])
    print(f"{len(results)} of {len(orders)} transfers finished")
    for result in results:
        if result["cycle"]:
            print(result["cycle"])
            print(f"the one that gave way finished on attempt {result['attempt']}")


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("locks-example", slots=4, workflows=[transfer]).start()
    else:
        asyncio.run(main())
