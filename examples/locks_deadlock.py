"""Two tasks take the same two locks in opposite order. One is the victim of the deadlock; it is retried and succeeds.

Each transfer holds the source account when it requests the target account. Two transfers in opposite directions wait
for each other: a deadlock. The request that closes the cycle gets a `DeadlockError` at once, with the whole cycle, and
Hatchet retries its task.

Prints::

    2 of 2 transfers finished
    transfer waited for ... while transfer waited for ...
    the victim finished on attempt 2
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
both_hold_one = asyncio.Barrier(2)
cycles: dict[str, str] = {}
"""The cycle of each deadlock by the victim's source account, for its next attempt to return."""


class Transfer(BaseModel):
    source: str
    target: str


@client.task(name="transfer", retries=2)
@client.with_ctx
async def transfer(order: Transfer, ctx: Context) -> dict[str, Any]:
    async with accounts.acquire(key=order.source):
        if ctx.attempt_number == 1:
            await both_hold_one.wait()  # makes the deadlock certain
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
            print(f"the victim finished on attempt {result['attempt']}")


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("locks-example", slots=4, workflows=[transfer]).start()
    else:
        asyncio.run(main())
