"""A worker with durable tasks, in its own process: gRPC's asyncio client supports one event loop per process."""

from datetime import timedelta
from typing import Any

from hatchet_sdk import DurableContext, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow

client = Mageflow(Hatchet())


class Message(BaseModel):
    x: int = 0


@client.task(name="leaf")
async def leaf(msg: Message) -> Message:
    return Message(x=msg.x * 10)


@client.durable_task(name="durable")
@client.stagger_execution(timedelta(milliseconds=20))
@client.with_ctx
async def durable(msg: Message, ctx: DurableContext) -> dict[str, Any]:
    await ctx.aio_sleep_for(timedelta(seconds=1))
    child = await leaf.aio_run(Message(x=msg.x))
    return {"x": child.x, "run": ctx.workflow_run_id}


if __name__ == "__main__":
    client.worker("durable", workflows=[leaf, durable]).start()
