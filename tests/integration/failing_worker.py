"""A worker whose one step always fails, for tests that kill it in its first attempt."""

import asyncio
import os
from typing import Any

from hatchet_sdk import ClientConfig, Context, Hatchet

from mageflow import Mageflow

client = Mageflow(Hatchet(config=ClientConfig()))


@client.task(name="always-fails", retries=1)
@client.with_ctx
async def always_fails(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
    if os.environ.get("FAIL_LATER"):
        await asyncio.sleep(60)
    raise ValueError(f"attempt {ctx.attempt_number}")


@client.task(name="after-failure")
async def after_failure(msg: dict[str, Any]) -> dict[str, Any]:
    return {}


if __name__ == "__main__":
    client.worker("failing", workflows=[always_fails, after_failure]).start()
