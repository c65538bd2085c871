"""A swarm runs many tasks with a limit on how many run at once. The results are in the order of the tasks.

Prints::

    [1, 4, 9, 16, 25, 36, 49, 64]
    done: 8 of 8
"""

import asyncio
import sys

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, SwarmConfig

client = Mageflow(Hatchet())


class Number(BaseModel):
    number: int


@client.task(name="square")
async def square(message: Number) -> dict[str, int]:
    await asyncio.sleep(0.05)
    return {"square": message.number**2}


async def main() -> None:
    swarm = await client.swarm(name="squares", config=SwarmConfig(max_concurrency=3, refill_linger_ms=50))
    for number in range(1, 9):
        await swarm.add(square, Number(number=number))
    await swarm.close()
    print([each["square"] for each in await swarm.aio_run()])

    now = await client.load_signature(swarm.key)
    print(f"{now.status}: {now.succeeded} of {now.total}")


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("swarm-example", workflows=[square]).start()
    else:
        asyncio.run(main())
