"""What Celery's words become: ``delay``, ``chain``, ``group``, ``chord`` and ``link_error``.

==========================================  ==================================================================
Celery                                      here
==========================================  ==================================================================
``@app.task(bind=True)``                    ``@client.task(name=...)`` with ``@client.with_ctx``
``task.delay(x)``                           ``await task.aio_run(Message(x), wait_for_result=False)``
``task.delay(x).get()``                     ``await task.aio_run(Message(x))``
``task.s(x)``                               ``await client.sign(task, field=x)``
``chain(a.s(), b.s())``                     ``await client.chain([a, b])``
``group(...)``                              ``await client.swarm()``, ``add`` and ``close``
``chord(group, callback)``                  ``await client.swarm(success_callbacks=[callback])``
``link_error=task.s()``                     ``error_callbacks=[task]``, or ``error=`` of a chain
``autoretry_for``, ``retry_backoff``        ``retries=`` and ``backoff_factor=`` of ``@client.task``
``time_limit``                              ``execution_timeout=``
==========================================  ==================================================================

Arguments are one message, a pydantic model, instead of positional values. Results need no result backend.

Prints::

    delay().get(): {'price': 107}
    chain: {'shipped': 7}
    group: [{'price': 101}, {'price': 102}, {'price': 103}]
"""

import asyncio
import sys
from typing import Annotated

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, ReturnValue

client = Mageflow(Hatchet())  # chains and swarms need Redis: MAGEFLOW_REDIS_URL


class Order(BaseModel):
    number: int


class Parcel(BaseModel):
    packed: Annotated[dict[str, int], ReturnValue()]  # where Celery passes the result as the first argument


@client.task(name="celery-price", retries=3, backoff_factor=2.0)
async def price(order: Order) -> dict[str, int]:
    return {"price": 100 + order.number}


@client.task(name="celery-pack")
async def pack(order: Order) -> dict[str, int]:
    return {"number": order.number}


@client.task(name="celery-ship")
async def ship(parcel: Parcel) -> dict[str, int]:
    return {"shipped": parcel.packed["number"]}


async def main() -> None:
    print("delay().get():", await price.aio_run(Order(number=7)))

    chain = await client.chain([pack, ship], name="order")
    print("chain:", await chain.aio_run(Order(number=7)))

    group = await client.swarm(name="prices")
    for number in (1, 2, 3):
        await group.add(price, Order(number=number))
    await group.close()
    print("group:", await group.aio_run())
    await client.aclose()


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("celery-example", workflows=[price, pack, ship]).start()
    else:
        asyncio.run(main())
