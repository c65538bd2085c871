"""A chain: each step receives the result of the step before. An error callback runs if a step fails for good.

Prints::

    {'order': 7, 'reserved': True, 'paid': True}
    order 0 failed in pay: ValueError
"""

import asyncio
import sys
from typing import Annotated, Any

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, ReturnValue, TaskError
from mageflow.errors import FlowFailedError

client = Mageflow(Hatchet())


class Step(BaseModel):
    order: int = 0
    before: Annotated[dict[str, Any], ReturnValue()] = {}


class Failure(BaseModel):
    order: int = 0
    error: TaskError


@client.task(name="reserve")
async def reserve(step: Step) -> dict[str, Any]:
    return {"order": step.order, "reserved": True}


@client.task(name="pay")
async def pay(step: Step) -> dict[str, Any]:
    if step.order == 0:
        raise ValueError("there is no order 0")
    return {**step.before, "paid": True}


@client.task(name="apologise")
async def apologise(failure: Failure) -> dict[str, str]:
    return {"text": f"sorry about {failure.error.type}"}


async def main() -> None:
    # Keywords are bound to every step. A message passed to aio_run goes to the first step only.
    chain = await client.chain([reserve, pay], name="order", error=apologise, order=7)
    print(await chain.aio_run())

    chain = await client.chain([reserve, pay], name="order", error=apologise, order=0)
    try:
        await chain.aio_run()
    except FlowFailedError as failed:
        print(f"order 0 failed in {failed.task}: {failed.error_type}")


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("chain-example", workflows=[reserve, pay, apologise]).start()
    else:
        asyncio.run(main())
