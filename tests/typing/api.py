"""Read by a type checker, never executed: what decorated tasks promise their users."""

from datetime import timedelta
from typing import Any, assert_type

from hatchet_sdk import Context, DurableContext, EmptyModel, Hatchet
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.types import BatchMemberId
from hatchet_sdk.runnables.workflow import Standalone
from pydantic import BaseModel

from mageflow import ChainSignature, Mageflow, Status, SwarmSignature, TaskSignature


class Message(BaseModel):
    x: int = 0


class Result(BaseModel):
    y: int = 0


client = Mageflow(Hatchet(), "redis://localhost")


@client.task(name="inferred")
async def inferred(msg: Message) -> Result:
    return Result(y=msg.x)


@client.task(name="given", input_validator=Message, retries=3, execution_timeout=timedelta(seconds=5))
def given(msg: Message, ctx: Context) -> Result:
    return Result(y=msg.x)


@client.task(name="extras")
@client.with_signature
@client.with_ctx
@client.stagger_execution(wait_delta=timedelta(seconds=1))
@client.exclusive("orders", key=lambda msg: msg.x)
async def extras(msg: Message, ctx: Context, signature: TaskSignature) -> Result:
    return Result(y=len(signature.task_name))


@client.task()
async def context_only(ctx: Context) -> Result:
    return Result()


@client.durable_task(name="durable")
async def durable(msg: Message, ctx: DurableContext) -> Result:
    return Result()


@client.batch_task(name="batch", batch_max_size=3)
async def batch(items: dict[BatchMemberId, Message]) -> dict[BatchMemberId, Result]:
    return {key: Result(y=each.x) for key, each in items.items()}


workflow = client.workflow(name="w", input_validator=Message)


@workflow.task(retries=1)
async def step(msg: Message) -> Result:
    return Result()


@workflow.durable_task(parents=[step])
async def second(msg: Message, ctx: DurableContext) -> Result:
    return Result()


assert_type(inferred, Standalone[Message, Result])
assert_type(given, Standalone[Message, Result])
assert_type(extras, Standalone[Message, Result])
assert_type(context_only, Standalone[EmptyModel, Result])
assert_type(durable, Standalone[Message, Result])
assert_type(batch, Standalone[Message, Result])
assert_type(step, Task[Message, Result])
assert_type(second, Task[Message, Result])


async def use() -> None:
    assert_type(await inferred.aio_run(Message(x=1)), Result)
    assert_type(given.run(Message(x=1)), Result)
    assert_type(await workflow.aio_run(Message(x=1)), dict[str, Any])
    signature = await client.sign(inferred, x=1)
    assert_type(signature, TaskSignature)
    assert_type(await signature.suspend(), Status)
    assert_type(await client.chain([inferred, given]), ChainSignature)
    assert_type(await client.swarm([inferred]), SwarmSignature)
