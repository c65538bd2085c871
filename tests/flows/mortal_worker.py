"""A real worker that dies (``os._exit``) at random calls to Redis or Hatchet, and inside bodies.

``MORTALITY`` is the chance per call; a key ``probe:calm`` in Redis ends the dying. Bodies note their beginning in
Redis under names of their own, by the clock of Redis.
"""

import os
import random
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import redis
import redis.asyncio
from hatchet_sdk import ClientConfig, Context, Hatchet
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from mageflow import Mageflow, Settings
from mageflow.interceptors import Attempt, Enqueue, Interceptor, RedisCall

URL = os.environ["PROBE_REDIS"]
NOTE = """
local clock = redis.call('TIME')
redis.call('RPUSH', 'probe:begun', cjson.encode({
  place = ARGV[1], run = ARGV[2], attempt = tonumber(ARGV[3]), at = clock[1] * 1000 + math.floor(clock[2] / 1000)}))
return 1
"""


QUEUE = timedelta(hours=1)
"""Where workers die faster than they start, runs wait; Hatchet would cancel them after five minutes."""


class Mortal(Interceptor):
    """Dies before or after whatever it stands around."""

    def __init__(self) -> None:
        self.chance = float(os.environ.get("MORTALITY", "0"))
        self.probe = redis.Redis.from_url(URL)

    def maybe_die(self, point: str) -> None:
        is_upkeep = not any(each in point for each in ("admit", "settle", "start", "dispatch", "body", "ack", "swarm"))
        chance = self.chance / 50 if is_upkeep else self.chance
        if chance and random.random() < chance and not self.probe.exists("probe:calm"):
            self.probe.hincrby("probe:deaths", point, 1)
            os._exit(137)

    @contextmanager
    def around(self, point: str) -> Generator[None]:
        self.maybe_die(f"before {point}")
        yield
        self.maybe_die(f"after {point}")

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        return self.around(call.operation)

    def enqueue(self, call: Enqueue) -> AbstractContextManager[None]:
        return self.around("dispatch")

    def execute(self, call: Attempt) -> AbstractContextManager[None]:
        return self.around("body")


mortal = Mortal()
client = Mageflow(
    Hatchet(config=ClientConfig()),
    URL,
    settings=Settings(
        metrics=False, reconcile_grace_seconds=1.0, reconcile_check_seconds=2.0, reconcile_interval_seconds=0.3
    ),
    interceptors=[mortal],
)


async def begin(ctx: Context) -> None:
    """Note that a body runs; and perhaps die in it."""
    metadata = ctx.additional_metadata
    patience = Retry(ConstantBackoff(0.2), 50)
    async with redis.asyncio.Redis.from_url(URL, retry=patience, retry_on_error=[RedisConnectionError]) as probe:
        key, dedupe = str(metadata.get("mageflow_signature", "")), str(metadata.get("mageflow_dedupe", ""))
        await probe.eval(NOTE, 0, f"{key} {dedupe}", ctx.workflow_run_id, str(ctx.attempt_number))
    mortal.maybe_die("inside a body")


@client.task(name="step", retries=8, schedule_timeout=QUEUE)
@client.with_ctx
async def step(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
    await begin(ctx)
    return {"n": 1}


@client.task(name="fails", retries=1, schedule_timeout=QUEUE)
@client.with_ctx
async def fails(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
    await begin(ctx)
    raise ValueError("no good")


@client.task(name="flow_done", retries=8, schedule_timeout=QUEUE)
@client.with_ctx
async def flow_done(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
    await begin(ctx)
    return {}


@client.task(name="flow_failed", retries=8, schedule_timeout=QUEUE)
@client.with_ctx
async def flow_failed(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
    await begin(ctx)
    return {}


if __name__ == "__main__":
    client.worker("mortal", slots=20, workflows=[step, fails, flow_done, flow_failed]).start()
