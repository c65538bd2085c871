"""Tasks that lock, for real workers in processes of their own: ``python lock_worker.py NAME``."""

import asyncio
import os
import sys
import time
from datetime import timedelta
from typing import Any, Literal

import redis.asyncio
from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow
from mageflow.errors import DeadlockError

client = Mageflow(Hatchet())
shelf = client.resource("shelf")
orders = client.resource("orders")
places = client.resource("places")


class Place(BaseModel):
    """One run's place in a planned deadlock."""

    deadlock: int
    place: int
    size: int
    policy: Literal["requester", "youngest", "lowest_priority"]
    priority: int


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


@client.task(name="take-part", retries=3, execution_timeout=timedelta(seconds=60))
@client.with_ctx
async def take_part(want: Place, ctx: Context) -> dict[str, Any]:
    """Hold its own resource, wait until every run does, then acquire the resource of the next."""
    name = f"test:deadlock:{want.deadlock}"
    following = (want.place + 1) % want.size
    mine = f"{want.deadlock}-{want.place}"
    async with places.acquire(mine), redis.asyncio.Redis.from_url(os.environ["MAGEFLOW_REDIS_URL"]) as bookkeeping:
        if ctx.attempt_number == 1:
            await bookkeeping.incr(name)
            while int(await bookkeeping.get(name)) < want.size:
                await asyncio.sleep(0.01)
        try:
            async with places.acquire(f"{want.deadlock}-{following}", policy=want.policy):
                cycle = await bookkeeping.lrange(f"{name}:{want.place}", 0, -1)
                return {
                    "place": want.place,
                    "attempt": ctx.attempt_number,
                    "run": ctx.workflow_run_id,
                    "cycle": [each.decode() for each in cycle],
                    "worker": ctx.worker_id,
                }
        except DeadlockError as error:
            await bookkeeping.rpush(f"{name}:{want.place}", *(edge.run_id for edge in error.cycle))
            raise


TASKS = [cross, exclusive_async, exclusive_sync, impatient, hold, take_part]

if __name__ == "__main__":
    served = [hold_here] if sys.argv[1] == "locks-victim" else TASKS
    client.worker(sys.argv[1], slots=int(sys.argv[2]), workflows=served).start()
