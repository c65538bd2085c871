"""Tasks that lock, for real workers in processes of their own: ``python lock_worker.py NAME``."""

import asyncio
import sys
import time
from datetime import timedelta
from typing import Any

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow

client = Mageflow(Hatchet())
shelf = client.resource("shelf")
orders = client.resource("orders")


class Want(BaseModel):
    first: str = ""
    second: str = ""
    seconds: float = 0.0


@client.task(name="cross", retries=3, execution_timeout=timedelta(seconds=30))
@client.with_ctx
async def cross(want: Want, ctx: Context) -> dict[str, Any]:
    async with shelf.acquire(want.first):
        if ctx.attempt_number == 1:
            while len((await client.locks.snapshot()).holders) < 2:
                await asyncio.sleep(0.02)
        async with shelf.acquire(want.second) as lease:
            return {"attempt": ctx.attempt_number, "worker": ctx.worker_id, "token": lease.token}


@client.task(name="exclusive-async")
@client.exclusive("orders", key=lambda want: want.first)
async def exclusive_async(want: Want) -> dict[str, Any]:
    began = time.time()
    await asyncio.sleep(want.seconds)
    return {"began": began, "ended": time.time()}


@client.task(name="exclusive-sync")
@client.exclusive("orders", key=lambda want: want.first)
def exclusive_sync(want: Want) -> dict[str, Any]:
    began = time.time()
    with orders.acquire(want.first) as again:  # the same run, in its thread: no second request
        time.sleep(want.seconds)
        assert not again.is_lost
    return {"began": began, "ended": time.time()}


@client.task(name="impatient", execution_timeout=timedelta(seconds=3))
def impatient(want: Want) -> dict[str, Any]:
    with orders.acquire(want.first) as lease:
        return {"waited": lease.waited_seconds}


@client.task(name="hold", execution_timeout=timedelta(seconds=60), retries=3)
@client.with_ctx
async def hold(want: Want, ctx: Context) -> dict[str, Any]:
    async with orders.acquire(want.first) as lease:
        if ctx.attempt_number == 1:
            await asyncio.sleep(want.seconds)
        return {"attempt": ctx.attempt_number, "token": lease.token}


@client.task(name="hold-here", execution_timeout=timedelta(seconds=60))
async def hold_here(want: Want) -> dict[str, Any]:
    """Only the worker that is going to be killed serves it."""
    async with orders.acquire(want.first):
        await asyncio.sleep(want.seconds)
    return {}


TASKS = [cross, exclusive_async, exclusive_sync, impatient, hold]

if __name__ == "__main__":
    served = [hold_here] if sys.argv[1] == "locks-victim" else TASKS
    client.worker(sys.argv[1], slots=int(sys.argv[2]), workflows=served).start()
