"""Most tasks want only their message; ``with_ctx`` is for the few that want Hatchet's context too.

Prints::

    4 + 4 = 8
    attempt 1 of a run that knows its own id: True
"""

import asyncio
import sys

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow

client = Mageflow(Hatchet())


class Number(BaseModel):
    number: int


@client.task(name="double")
async def double(message: Number) -> dict[str, int]:
    return {"doubled": 2 * message.number}


@client.task(name="who-am-i")
@client.with_ctx
async def who_am_i(message: Number, ctx: Context) -> dict[str, str]:
    ctx.log(f"asked by number {message.number}")
    return {"run": ctx.workflow_run_id, "attempt": str(ctx.attempt_number)}


async def main() -> None:
    print("4 + 4 =", (await double.aio_run(Number(number=4)))["doubled"])
    ref = await who_am_i.aio_run(Number(number=4), wait_for_result=False)
    answer = await ref.aio_result()
    print(f"attempt {answer['attempt']} of a run that knows its own id:", answer["run"] == ref.workflow_run_id)


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("context-example", workflows=[double, who_am_i]).start()
    else:
        asyncio.run(main())
