"""Your own metrics are exported on the worker's endpoint too: one port, one scrape.

Prints::

    shop_revenue_euros_total 42.0
    mageflow_task_runs_total{outcome="succeeded",task="sell"} 1.0
"""

import asyncio
import sys

from hatchet_sdk import Hatchet
from prometheus_client import Counter, generate_latest
from pydantic import BaseModel

from mageflow import Mageflow

client = Mageflow(Hatchet())


class Sale(BaseModel):
    euros: float


class Metrics:
    """Created when the worker starts, not on import: the SDK's listener process imports this file too."""

    revenue: Counter


@client.task(name="sell")
async def sell(sale: Sale) -> None:
    Metrics.revenue.inc(sale.euros)


@client.task(name="read-metrics")
async def read_metrics(_: Sale) -> dict[str, str]:
    # The process-wide registry is what the worker serves on /metrics.
    return {"text": generate_latest().decode()}


async def main() -> None:
    await sell.aio_run(Sale(euros=42))
    for line in (await read_metrics.aio_run(Sale(euros=0)))["text"].splitlines():
        if line.startswith(("shop_revenue_euros_total", 'mageflow_task_runs_total{outcome="succeeded",task="sell"')):
            print(line)


if __name__ == "__main__":
    if "worker" in sys.argv:
        Metrics.revenue = Counter("shop_revenue_euros", "Money earned.")
        client.worker("own-metrics-example", workflows=[sell, read_metrics]).start()
    else:
        asyncio.run(main())
