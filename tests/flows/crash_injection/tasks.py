"""The tasks of the workers that die: the task functions of the scenarios, and the task that begins a scenario.

A scenario begins inside a task, so that creating and starting a flow have kill points too: the next attempt must find
what the first one created.
"""

import asyncio
import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis.asyncio
from hatchet_sdk import Context
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from mageflow import Mageflow
from mageflow.errors import IllegalTransitionError
from tests.flows.crash_injection.kill_points import KillPoint, KillSwitch
from tests.flows.crash_injection.progress import flows_key, long_key
from tests.flows.crash_injection.scenarios import SCENARIOS, error_type, next_number, received, sum_of_results

LOST_RUNS_WAIT = timedelta(hours=1)
BEGINNINGS = {each.name: each.begin for each in SCENARIOS}
SETTINGS: dict[str, Any] = {"retries": 8, "schedule_timeout": LOST_RUNS_WAIT}


class Journal:
    """The task functions that ran: one line each, written before the function does anything else."""

    def __init__(self, path: Path, url: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._url = url

    def begin(self, ctx: Context, msg: dict[str, Any]) -> None:
        """Note that a task function starts."""
        dedupe = str(ctx.additional_metadata.get("mageflow_dedupe") or "")
        note = {
            "started_at": time.time(),
            "task": ctx.task_name,
            "dedupe": dedupe,
            "run": ctx.workflow_run_id,
            "attempt": ctx.attempt_number,
            "message": msg,
        }
        # SIGKILL may cut a write in two, at the end of a page of the file: what follows begins a line of its own.
        os.write(self._file, b"\n" + json.dumps(note).encode() + b"\n")

    def redis(self) -> redis.asyncio.Redis:
        """A connection for the task functions."""
        return redis.asyncio.Redis.from_url(self._url, decode_responses=True, retry=Retry(ConstantBackoff(0.2), 50))


def declare(client: Mageflow, switch: KillSwitch, journal: Journal, body_seconds: float = 0.0) -> list[Any]:
    """The tasks of one worker; steps, failures and callbacks take ``body_seconds``."""

    async def works() -> None:
        if body_seconds:  # without it, a body has no await point
            await asyncio.sleep(body_seconds)

    def begins(ctx: Context, msg: dict[str, Any], place: str = "the body") -> None:
        journal.begin(ctx, msg)
        switch.reach("call", "inside", place)

    def flow_of(ctx: Context) -> str:
        return str(ctx.additional_metadata["mageflow_signature"]).partition("#")[0]

    @client.task(name="begin", **SETTINGS)
    @client.with_ctx
    async def begin(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        if msg.get("point") and ctx.attempt_number == 1:
            switch.arm(KillPoint(**msg["point"]))

        async def start(signature: Any, message: dict[str, Any]) -> None:
            async with journal.redis() as probe:
                await probe.sadd(flows_key(msg["case"]), signature.key)
            await signature.aio_run_no_wait(message)

        await BEGINNINGS[msg["scenario"]](client, start)
        return {}

    @client.task(name="resume", **SETTINGS)
    async def resume(msg: dict[str, Any]) -> dict[str, Any]:
        try:
            await client.resume(msg["key"], by="test")
        except IllegalTransitionError:
            return {"ended": True}
        return {}

    @client.task(name="interrupt", **SETTINGS)
    async def interrupt(msg: dict[str, Any]) -> dict[str, Any]:
        await client.interrupt(msg["key"], by="test")
        return {}

    @client.task(name="step", **SETTINGS)
    @client.with_ctx
    async def step(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        await works()
        return next_number(msg)

    @client.task(name="threaded", **SETTINGS)
    @client.with_ctx
    def threaded(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg, "the body in a thread")
        return next_number(msg)

    @client.task(name="counts", **SETTINGS)
    @client.with_ctx
    async def counts(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        await works()
        return sum_of_results(msg)

    @client.task(name="flaky", **SETTINGS)
    @client.with_ctx
    async def flaky(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        await works()
        if ctx.attempt_number == 1:
            raise ValueError("not yet")
        return next_number(msg)

    @client.task(name="fails", retries=1, schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def fails(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        await works()
        raise ValueError("no good")

    @client.task(name="slow", execution_timeout=timedelta(seconds=4), schedule_timeout=LOST_RUNS_WAIT)
    @client.with_ctx
    async def slow(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        await asyncio.sleep(60)
        return {}

    @client.task(name="long", **SETTINGS)
    @client.with_ctx
    async def long(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        async with journal.redis() as probe:
            await probe.set(long_key(flow_of(ctx)), 1, ex=3600)
        await asyncio.sleep(60)
        return {}

    @client.task(name="waits", **SETTINGS)
    @client.with_ctx
    async def waits(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        await asyncio.sleep(60)
        return {}

    @client.task(name="suspends", **SETTINGS)
    @client.with_ctx
    async def suspends(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        async with journal.redis() as probe:
            parent = await probe.hget(flow_of(ctx), "parent") or flow_of(ctx)
        await client.suspend(parent.partition("#")[0], by="test")
        return next_number(msg)

    @client.task(name="on_success", **SETTINGS)
    @client.with_ctx
    async def on_success(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        await works()
        return received(msg.get("mageflow_results"))

    @client.task(name="on_error", **SETTINGS)
    @client.with_ctx
    async def on_error(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begins(ctx, msg)
        await works()
        return error_type(msg["mageflow_error"]["type"])

    return [
        *(begin, resume, interrupt, step, threaded, counts, flaky, fails),
        *(slow, long, waits, suspends, on_success, on_error),
    ]
