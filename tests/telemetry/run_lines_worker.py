"""A worker with one task of each kind, and a task of plain Hatchet, that sets up its log by its arguments."""

import ast
import asyncio
import logging
import sys
from typing import Any

from hatchet_sdk import Context, DurableContext, EmptyModel, Hatchet

from mageflow import Mageflow
from mageflow.telemetry import configure

hatchet = Hatchet()
client = Mageflow(hatchet)


@client.task(name="lines-ok")
async def ok(msg: EmptyModel) -> dict[str, int]:
    return {"x": 1}


@client.task(name="lines-thread")
def in_thread(msg: EmptyModel) -> dict[str, int]:
    return {"x": 1}


@client.durable_task(name="lines-durable")
async def durable(msg: EmptyModel, ctx: DurableContext) -> dict[str, int]:
    return {"x": 1}


@client.task(name="lines-fails", retries=0)
async def fails(msg: EmptyModel) -> dict[str, int]:
    raise ValueError("no")


@client.task(name="lines-cancelled")
async def cancelled(msg: EmptyModel) -> dict[str, int]:
    logging.getLogger("hatchet").info("the body has begun")
    await asyncio.sleep(60)
    return {}


@hatchet.task(name="lines-plain")
async def plain(msg: EmptyModel, ctx: Context) -> dict[str, int]:
    return {"x": 1}


TASKS: list[Any] = [ok, in_thread, durable, fails, cancelled, plain]


if __name__ == "__main__":
    for name, level in ast.literal_eval(sys.argv[2]).items():
        logging.getLogger(name).setLevel(level)
    if sys.argv[1] != "None":
        configure(service_name="lines", **ast.literal_eval(sys.argv[1]))
    client.worker("lines", workflows=TASKS).start()
