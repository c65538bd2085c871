"""A worker with a workflow. Arguments: the ledger, to which each task that ends writes its name and the order."""

import asyncio
import os
import sys
from typing import Any

from hatchet_sdk import ClientConfig, Context, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, Settings

LEDGER = sys.argv[1]


class Order(BaseModel):
    number: int = 0
    mageflow_results: Any = None
    """Where the sender does not know this model, the result before arrives here."""


def note(task: str, what: object) -> None:
    """One line, in one write."""
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{task} {what}\n".encode())
    os.close(file)


settings = Settings(
    metrics_port=0, reconcile_grace_seconds=1, reconcile_check_seconds=2, reconcile_interval_seconds=0.2
)
client: Any = Mageflow(Hatchet(config=ClientConfig()), os.environ["WORKFLOW_REDIS"], settings=settings)
workflow = client.workflow(name="killed-order", input_validator=Order)


@workflow.task(name="price")
async def price(msg: Order) -> dict[str, Any]:
    await asyncio.sleep(0.3)
    note("price", msg.number)
    return {"price": msg.number * 2}


@workflow.task(name="ship", parents=[price])
@client.with_ctx
async def ship(msg: Order, ctx: Context) -> dict[str, Any]:
    await asyncio.sleep(0.3)
    note("ship", msg.number)
    return {"paid": ctx.task_output(price)["price"]}


@client.task(name="killed-note")
async def last(msg: Order) -> Any:
    note("last", msg.mageflow_results["ship"]["paid"])
    return msg.mageflow_results


if __name__ == "__main__":
    client.worker("killed", slots=30, workflows=[workflow, last]).start()
