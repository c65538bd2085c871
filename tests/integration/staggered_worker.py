"""A worker with one staggered task, for tests that kill it."""

import os
from datetime import timedelta
from typing import Any

from hatchet_sdk import ClientConfig, Context, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow


class Whole:
    """Draws the whole window, so that the test knows where the task is."""

    def uniform(self, a: float, b: float, /) -> float:
        return b


client = Mageflow(Hatchet(config=ClientConfig()), random=Whole())


class Message(BaseModel):
    x: int = 0


@client.task(name="staggered-victim", execution_timeout=timedelta(seconds=3))
@client.stagger_execution(wait_delta=timedelta(seconds=float(os.environ.get("STAGGER_SECONDS", "1"))))
@client.with_ctx
async def staggered(msg: Message, ctx: Context) -> dict[str, Any]:
    return {"x": msg.x, "pid": os.getpid(), "attempt": ctx.attempt_number}


if __name__ == "__main__":
    client.worker("victim", workflows=[staggered]).start()
