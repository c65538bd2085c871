"""Suspend a running chain, read its status, and resume it. Steps that succeeded are not run again.

Prints::

    suspended after the first of 3 steps, by ada: stock count
    ['a', 'b', 'c']
"""

import asyncio
import sys
from typing import Annotated, Any

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, ReturnValue

client = Mageflow(Hatchet())


class Letters(BaseModel):
    letter: str = ""
    before: Annotated[dict[str, Any], ReturnValue()] = {}


@client.task(name="append")
async def append(message: Letters) -> dict[str, list[str]]:
    await asyncio.sleep(0.3)
    return {"letters": [*message.before.get("letters", []), message.letter]}


async def wait_for_status(key: str, status: str) -> None:
    while (await client.load_signature(key)).status != status:  # noqa: ASYNC110 - another process changes it
        await asyncio.sleep(0.05)


async def main() -> None:
    steps = [await client.sign(append, letter=letter) for letter in "abc"]
    chain = await client.chain(steps, name="letters")
    running = asyncio.create_task(chain.aio_run())

    await wait_for_status(chain.steps[0], "active")
    await client.suspend(chain.key, by="ada", why="stock count")

    await wait_for_status(chain.steps[0], "done")  # the running step ends; no other one starts
    now = await client.load_signature(chain.key)
    last = now.history[-1]
    print(f"{now.status} after the first of {len(now.steps)} steps, by {last.by}: {last.why}")

    await client.resume(chain.key, by="ada")
    print((await running)["letters"])


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("lifecycle-example", workflows=[append]).start()
    else:
        asyncio.run(main())
