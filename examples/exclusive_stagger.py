"""Six runs share one account: a lock lets one in at a time, and a stagger makes its queue short.

``stagger_execution`` alone makes it rare that two run at once; ``exclusive`` makes it impossible. Together, most runs
find the lock free, because they arrive one after another. The delay and the wait for the lock both extend the timeout
of two seconds.

Prints::

    6 of 6 runs finished
    never two at once: True
"""

import asyncio
import sys
import time
from datetime import timedelta
from itertools import pairwise

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow

client = Mageflow(Hatchet())  # locks need Redis: MAGEFLOW_REDIS_URL


class Payment(BaseModel):
    account: str
    number: int


@client.task(name="book-exclusively", execution_timeout=timedelta(seconds=2), retries=2)
@client.stagger_execution(wait_delta=timedelta(seconds=2))
@client.exclusive("account", key=lambda payment: payment.account)
async def book_exclusively(payment: Payment) -> dict[str, float]:
    began = time.time()
    await asyncio.sleep(0.2)
    return {"number": payment.number, "began": began, "ended": time.time()}


async def main() -> None:
    items = [book_exclusively.create_bulk_run_item(Payment(account="ada", number=number)) for number in range(6)]
    booked = sorted(await book_exclusively.aio_run_many(items), key=lambda each: each["began"])
    print(f"{len(booked)} of 6 runs finished")
    print("never two at once:", all(one["ended"] <= next_one["began"] for one, next_one in pairwise(booked)))
    await client.aclose()


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("exclusive-example", slots=20, workflows=[book_exclusively]).start()
    else:
        asyncio.run(main())
