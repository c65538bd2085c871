"""The commonest mistakes of a program that uses mageflow. Each function makes one; the page has its sentence."""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from hatchet_sdk import Hatchet
from pydantic import BaseModel, ConfigDict

from mageflow import Mageflow, Settings, TaskError, TaskSignature

Make = Callable[[Mageflow], Awaitable[object]]
MISTAKES: dict[str, Make] = {}


class Order(BaseModel):
    number: int = 0


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int = 0


async def double(order: Order) -> dict[str, int]:
    return {"number": 2 * order.number}


def mistake(title: str) -> Callable[[Make], Make]:
    """Add a mistake under the title that it has on the page."""

    def add(make: Make) -> Make:
        MISTAKES[title] = make
        return make

    return add


@mistake("A token instead of a client")
async def _(client: Mageflow) -> None:
    Mageflow("my-token")


@mistake("A task decorator without parentheses")
async def _(client: Mageflow) -> None:
    client.task(double)


@mistake("Parentheses where none belong")
async def _(client: Mageflow) -> None:
    client.with_ctx()


@mistake("A number of seconds instead of a timedelta")
async def _(client: Mageflow) -> None:
    client.stagger_execution(wait_delta=10)


@mistake("A stagger without its window")
async def _(client: Mageflow) -> None:
    client.stagger_execution(double)


@mistake("A decorator above the declaration")
async def _(client: Mageflow) -> None:
    client.with_ctx(client.task(name="double")(double))


@mistake("A lock without the name of its resource")
async def _(client: Mageflow) -> None:
    client.exclusive(double)


@mistake("A lock with a key that is no function")
async def _(client: Mageflow) -> None:
    client.exclusive("orders", key="number")(double)


@mistake("A context that the function does not take")
async def _(client: Mageflow) -> None:
    @client.task(name="double")
    @client.with_ctx
    async def without_context(order: Order) -> dict[str, int]:
        return {}


@mistake("A message that is no object")
async def _(client: Mageflow) -> None:
    @client.task(name="double")
    async def of_a_number(number: int) -> dict[str, int]:
        return {}


@mistake("A worker with a function")
async def _(client: Mageflow) -> None:
    client.worker("shop", workflows=[double])


@mistake("A parameter that has no source")
async def _(client: Mageflow) -> None:
    @client.task(name="double")
    async def with_more(order: Order, session: str, retries: int) -> dict[str, int]:
        return {}


@mistake("An acquire without async with")
async def _(client: Mageflow) -> None:
    await client.resource("orders").acquire(key=7)


@mistake("A signature without Redis")
async def _(client: Mageflow) -> None:
    plain = Mageflow(Hatchet())
    await plain.sign(plain.task(name="double")(double))


@mistake("A chain with one task")
async def _(client: Mageflow) -> None:
    await client.chain([client.task(name="double")(double)])


@mistake("A function that was not declared")
async def _(client: Mageflow) -> None:
    await client.chain([double, client.task(name="double")(double)])


@mistake("A bound field that the input does not have")
async def _(client: Mageflow) -> None:
    await client.sign(client.task(name="double")(double), nmber=7)


@mistake("A bound value of the wrong type")
async def _(client: Mageflow) -> None:
    await client.sign(client.task(name="double")(double), number="seven")


@mistake("An error callback where a result arrives")
async def _(client: Mageflow) -> None:
    @client.task(name="report")
    async def report(error: TaskError) -> dict[str, Any]:
        return {}

    await client.chain([client.task(name="double")(double), report])


@mistake("A step that cannot take the result before it")
async def _(client: Mageflow) -> None:
    @client.task(name="strict")
    async def strict(order: Strict) -> dict[str, Any]:
        return {}

    await client.chain([client.task(name="double")(double), strict])


@mistake("A limit of a swarm outside of its config")
async def _(client: Mageflow) -> None:
    await client.swarm(name="day", max_concurrency=10)


@mistake("An option that does not exist")
async def _(client: Mageflow) -> None:
    await (await client.sign(client.task(name="double")(double))).aio_run(Order(), prioritty=3)


@mistake("A setting that does not exist")
async def _(client: Mageflow) -> None:
    Settings(lock_lease_second=5)


@mistake("A swarm that is closed")
async def _(client: Mageflow) -> None:
    task = client.task(name="double")(double)
    swarm = await client.swarm(name="day")
    await swarm.add(task, Order(number=1))
    await swarm.close()
    await swarm.add(task, Order(number=2))


@mistake("A key that is not stored")
async def _(client: Mageflow) -> None:
    signature = await client.sign(client.task(name="double")(double))
    await signature.remove()
    await client.load_signature(signature.key)


@mistake("A time without a time zone")
async def _(client: Mageflow) -> None:
    async for _ in client.signatures(since=datetime(2026, 1, 1)):  # noqa: DTZ001 - the mistake
        pass


@mistake("A status that does not exist")
async def _(client: Mageflow) -> None:
    async for _ in client.signatures(status="faild"):
        pass


@mistake("A resume of what has ended")
async def _(client: Mageflow) -> None:
    signature = await client.sign(client.task(name="double")(double))
    await client.interrupt(signature.key)
    await client.resume(signature.key)


@mistake("A signature of a batch task")
async def _(client: Mageflow) -> None:
    @client.batch_task(name="double", batch_max_size=10, batch_max_interval=timedelta(seconds=1))
    @client.with_signature
    async def many(orders: list[Order], signature: TaskSignature) -> list[dict[str, int]]:
        return []


@mistake("A command without Redis")
async def _(client: Mageflow) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("REDIS_URL")}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mageflow", "locks", env=environment, stderr=asyncio.subprocess.PIPE
    )
    return (await run.communicate())[1].decode().splitlines()[-1]


async def sentence(make: Make, client: Mageflow) -> str:
    """What the program gets for a mistake: the error with its class, or the line of a command. Ids are replaced."""
    try:
        found = str(await make(client))
    except Exception as error:  # noqa: BLE001 - the mistake's
        found = f"{type(error).__name__}: {error}"
    return re.sub(r"\{/[0-9a-f]\}:(\w+):[0-9a-f]{32}", r"{/0}:\1:0123456789abcdef", found)
