"""Many runs that start at once are spread over two seconds, although the timeout of each is one second.

Twelve runs use the same account. With the random delays of ``stagger_execution`` they run one after another or nearly
so. Each delay extends the run's timeout before it begins, so no run times out.

Prints::

    12 of 12 runs finished
    spread over ... s
"""

import asyncio
import sys
import time
from datetime import timedelta

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow

client = Mageflow(Hatchet())


class Payment(BaseModel):
    number: int


@client.task(name="book-payment", execution_timeout=timedelta(seconds=1))
@client.stagger_execution(wait_delta=timedelta(seconds=2))
async def book_payment(payment: Payment) -> dict[str, float]:
    began = time.time()
    await asyncio.sleep(0.2)
    return {"number": payment.number, "began": began}


async def main() -> None:
    items = [book_payment.create_bulk_run_item(Payment(number=number)) for number in range(12)]
    booked = await book_payment.aio_run_many(items)
    began = [each["began"] for each in booked]
    print(f"{len(booked)} of 12 runs finished")
    print(f"spread over {max(began) - min(began):.2f} s")


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("stagger-example", slots=20, workflows=[book_payment]).start()
    else:
        asyncio.run(main())
