"""A worker with a task that holds a lock around its function, for tests that stop it while a run waits."""

import os
from datetime import timedelta
from typing import Any

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, telemetry

client = Mageflow(Hatchet())


class Message(BaseModel):
    x: int = 0
    seconds: float = 0.0


@client.task(name="waits-for-a-lock", execution_timeout=timedelta(seconds=90))
@client.exclusive("held-elsewhere")
@client.with_ctx
def waits_for_a_lock(msg: Message, ctx: Context) -> dict[str, Any]:
    return {"x": msg.x, "pid": os.getpid(), "attempt": ctx.attempt_number}


@client.task(name="waits-for-redis", execution_timeout=timedelta(seconds=120))
@client.with_ctx
async def waits_for_redis(msg: Message, ctx: Context) -> dict[str, Any]:
    return {"x": msg.x, "pid": os.getpid(), "attempt": ctx.attempt_number}


if __name__ == "__main__":
    telemetry.configure(service_name="waiting", logs="json")
    client.worker("waiting", workflows=[waits_for_a_lock, waits_for_redis]).start()
