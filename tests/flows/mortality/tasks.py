"""What the mortal workers run: the flows' tasks, and the task that creates and starts a flow.

Flows are created inside of a task, so that creating and starting are points of death like any other: the attempt that
follows must find what the first one made.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis.asyncio
from hatchet_sdk import Context
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from mageflow import Mageflow
from mageflow.errors import IllegalTransitionError
from mageflow.signatures import SwarmConfig
from tests.flows.mortality.kill_points import KillPoint, Mortal

LOST_RUNS_WAIT = timedelta(hours=1)
SMALL = SwarmConfig(max_concurrency=3, refill_linger_ms=100)


class Journal:
    """Which bodies ran: one line each, written before anything else is done in the body."""

    def __init__(self, path: Path, url: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._url = url

    def begin(self, ctx: Context, msg: dict[str, Any]) -> None:
        """Note that a body begins."""
        dedupe = str(ctx.additional_metadata.get("mageflow_dedupe") or "")
        note = {
            "at": time.time(),
            "task": ctx.task_name,
            "dedupe": dedupe,
            "run": ctx.workflow_run_id,
            "attempt": ctx.attempt_number,
            "message": msg,
        }
        os.write(self._file, json.dumps(note).encode() + b"\n")

    def redis(self) -> redis.asyncio.Redis:
        """A connection of the bodies' own."""
        return redis.asyncio.Redis.from_url(self._url, decode_responses=True, retry=Retry(ConstantBackoff(0.2), 50))


Begin = Callable[[Mageflow], Awaitable[Any]]


async def chain(client: Mageflow) -> Any:
    step = await client.sign("step", success_callbacks=["told"])
    flow = await client.chain([step, "threaded", "flaky"], success="told", error="warned")
    return flow, {"n": 0}


async def failing_chain(client: Mageflow) -> Any:
    return await client.chain(["step", "fails", "step"], success="told", error="warned"), {"n": 0}


async def slow_chain(client: Mageflow) -> Any:
    return await client.chain(["step", "slow", "step"], success="told", error="warned"), {"n": 0}


async def swarm(client: Mageflow) -> Any:
    flow = await client.swarm(
        ["step"] * 5 + ["fails"], config=SMALL, success_callbacks=["told"], error_callbacks=["warned"], closed=True
    )
    return flow, {"n": 0}


async def failing_swarm(client: Mageflow) -> Any:
    config = SwarmConfig(max_concurrency=2, refill_linger_ms=0, stop_after_n_failures=1)
    flow = await client.swarm(
        ["fails", "waits"], config=config, success_callbacks=["told"], error_callbacks=["warned"], closed=True
    )
    return flow, {"n": 0}


async def growing_swarm(client: Mageflow) -> Any:
    flow = await client.swarm(["step"], config=SMALL, success_callbacks=["told"], error_callbacks=["warned"])
    await flow.aio_run_no_wait({"n": 0})
    await flow.add(["step", "step"])
    await flow.add("step", {"n": 10})
    await flow.close()
    return flow, None


async def swarm_in_chain(client: Mageflow) -> Any:
    inner = await client.swarm(["step"] * 3, config=SMALL, success_callbacks=["told"], closed=True)
    after = await client.chain(["step", "step"])
    return await client.chain(["step", inner, "counts"], success=["told", after], error="warned"), {"n": 0}


async def chain_in_swarm(client: Mageflow) -> Any:
    chains = [await client.chain(["step", "step"]), await client.chain(["step", "fails"], error="warned")]
    flow = await client.swarm(
        [*chains, "step"], config=SMALL, success_callbacks=["told"], error_callbacks=["warned"], closed=True
    )
    return flow, {"n": 0}


async def suspended_chain(client: Mageflow) -> Any:
    return await client.chain(["step", "rests", "step"], success="told", error="warned"), {"n": 0}


async def suspended_before(client: Mageflow) -> Any:
    flow = await client.chain(["step", "step"], success="told", error="warned")
    await client.suspend(flow)
    return flow, {"n": 0}


async def suspended_nest(client: Mageflow) -> Any:
    inner = await client.swarm(["rests", "step", "step", "step"], config=SMALL, closed=True)
    return await client.chain([inner, "counts"], success="told", error="warned"), {"n": 0}


async def interrupted_chain(client: Mageflow) -> Any:
    return await client.chain(["step", "long"], success="told", error="warned"), {"n": 0}


async def interrupted_nest(client: Mageflow) -> Any:
    inner = await client.swarm(["long", "long"], config=SMALL, closed=True)
    return await client.chain([inner, "step"], success="told", error="warned"), {"n": 0}


async def signature(client: Mageflow) -> Any:
    return await client.sign("step", success_callbacks=["told"], error_callbacks=["warned"]), {"n": 0}


async def failing_signature(client: Mageflow) -> Any:
    return await client.sign("fails", success_callbacks=["told"], error_callbacks=["warned"]), {"n": 0}


BEGINNINGS: dict[str, Begin] = {
    "chain": chain,
    "failing chain": failing_chain,
    "chain with a timeout": slow_chain,
    "swarm": swarm,
    "failing swarm": failing_swarm,
    "growing swarm": growing_swarm,
    "swarm in chain": swarm_in_chain,
    "chain in swarm": chain_in_swarm,
    "suspended chain": suspended_chain,
    "chain suspended before": suspended_before,
    "suspended nest": suspended_nest,
    "interrupted chain": interrupted_chain,
    "interrupted nest": interrupted_nest,
    "signature": signature,
    "failing signature": failing_signature,
}


def declare(client: Mageflow, mortal: Mortal, journal: Journal) -> list[Any]:
    """The tasks of one worker."""

    async def begins(ctx: Context, msg: dict[str, Any]) -> None:
        journal.begin(ctx, msg)
        mortal.at("call", "inside", "the body")

    def number(msg: dict[str, Any]) -> int:
        before = msg.get("mageflow_results")
        return int((before if isinstance(before, dict) else msg).get("n", 0))

    def flow_of(ctx: Context) -> str:
        return str(ctx.additional_metadata["mageflow_signature"]).partition("#")[0]

    @client.task(name="begin", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def begin(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        if msg.get("plan") and ctx.attempt_number == 1:
            mortal.arm(KillPoint(**msg["plan"]))
        flow, message = await BEGINNINGS[msg["scenario"]](client)
        async with journal.redis() as probe:
            await probe.sadd(f"probe:flow:{msg['case']}", flow.key)
        if message is not None:
            await flow.aio_run_no_wait(message)
        return {}

    @client.task(name="wake", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    async def wake(msg: dict[str, Any]) -> dict[str, Any]:
        try:
            await client.resume(msg["key"], by="wake")
        except IllegalTransitionError:
            return {"ended": True}
        return {}

    @client.task(name="stop", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    async def stop(msg: dict[str, Any]) -> dict[str, Any]:
        await client.interrupt(msg["key"], by="stop")
        return {}

    @client.task(name="step", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def step(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        return {"n": number(msg) + 1}

    @client.task(name="threaded", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    def threaded(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        journal.begin(ctx, msg)
        mortal.at("call", "inside", "the body in a thread")
        return {"n": number(msg) + 1}

    @client.task(name="counts", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def counts(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        return {"n": sum(each["n"] for each in msg["mageflow_results"])}

    @client.task(name="flaky", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def flaky(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        if ctx.attempt_number == 1:
            raise ValueError("not yet")
        return {"n": number(msg) + 1}

    @client.task(name="fails", retries=1, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def fails(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        raise ValueError("no good")

    @client.task(name="slow", execution_timeout=timedelta(seconds=4), schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def slow(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        await asyncio.sleep(60)
        return {}

    @client.task(name="long", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def long(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        async with journal.redis() as probe:
            await probe.set(f"probe:long:{flow_of(ctx)}", 1, ex=3600)
        await asyncio.sleep(60)
        return {}

    @client.task(name="waits", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def waits(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        await asyncio.sleep(60)
        return {}

    @client.task(name="rests", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def rests(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        async with journal.redis() as probe:
            parent = await probe.hget(flow_of(ctx), "parent") or flow_of(ctx)
        await client.suspend(parent.partition("#")[0], by="rests")
        return {"n": number(msg) + 1}

    @client.task(name="told", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def told(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        return {"told": msg.get("mageflow_results")}

    @client.task(name="warned", retries=8, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def warned(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await begins(ctx, msg)
        return {"type": msg["mageflow_error"]["type"]}

    return [
        begin,
        wake,
        stop,
        step,
        threaded,
        counts,
        flaky,
        fails,
        slow,
        long,
        waits,
        rests,
        told,
        warned,
    ]
