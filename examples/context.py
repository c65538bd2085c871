"""Most tasks need only their message. ``with_ctx`` gives a task Hatchet's context too.

Prints::

    4 + 4 = 8
    attempt 1, and the run id is the right one: True
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


@client.task(name="read-context")
@client.with_ctx
async def read_context(message: Number, ctx: Context) -> dict[str, str]:
    ctx.log(f"called with {message.number}")
    return {"run": ctx.workflow_run_id, "attempt": str(ctx.attempt_number)}


async def main() -> None:
    print("4 + 4 =", (await double.aio_run(Number(number=4)))["doubled"])
    ref = await read_context.aio_run(Number(number=4), wait_for_result=False)
    answer = await ref.aio_result()
    print(f"attempt {answer['attempt']}, and the run id is the right one:", answer["run"] == ref.workflow_run_id)


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("context-example", workflows=[double, read_context]).start()
    else:
        asyncio.run(main())
