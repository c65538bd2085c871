"""A worker whose task functions write down what they do, for the comparison with telemetry.

Arguments: the file for the ledger, the file for spans, and ``cron`` for the task that a cron starts too. A line of the
ledger is the task, the attempt, and ``begin`` or how the function ends.
"""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from hatchet_sdk import ClientConfig, Context, Hatchet
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from pydantic import BaseModel

from mageflow import Mageflow

LEDGER, SPANS = Path(sys.argv[1]), Path(sys.argv[2])


class ToFile(SpanExporter):
    """One JSON object for each span."""

    def export(self, spans: Any) -> SpanExportResult:
        with SPANS.open("a") as file:
            file.writelines(_line(each) for each in spans)
        return SpanExportResult.SUCCESS


def _line(span: ReadableSpan) -> str:
    return span.to_json(indent=None) + "\n"


def note(task: str, ctx: Context | None, what: str) -> None:
    """One line, in one write."""
    line = f"{task} {ctx.attempt_number if ctx else 1} {what}\n"
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


class Message(BaseModel):
    x: int = 0


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ToFile()))
client = Mageflow(Hatchet(config=ClientConfig()), tracer_provider=provider)
shelf = client.resource("shelf")


@client.task(name="ledger-fine")
@client.with_ctx
async def fine(msg: Message, ctx: Context) -> dict[str, Any]:
    note("ledger-fine", ctx, "begin")
    async with shelf.acquire(msg.x % 2):
        await asyncio.sleep(0.02)
    note("ledger-fine", ctx, "succeeded")
    return {"x": msg.x}


@client.task(name="ledger-flaky", retries=2)
@client.with_ctx
def flaky(msg: Message, ctx: Context) -> dict[str, Any]:
    note("ledger-flaky", ctx, "begin")
    if ctx.attempt_number <= msg.x:
        note("ledger-flaky", ctx, "failed" if ctx.attempt_number == 3 else "retried")
        raise ConnectionError("no")
    note("ledger-flaky", ctx, "succeeded")
    return {"x": msg.x}


# Hatchet counts from the assignment, and on a busy machine the function begins some time after that.
@client.task(name="ledger-slow", execution_timeout=timedelta(seconds=4))
@client.with_ctx
async def slow(msg: Message, ctx: Context) -> dict[str, Any]:
    note("ledger-slow", ctx, "begin")
    try:
        await asyncio.sleep(60)
    finally:
        note("ledger-slow", ctx, "timed_out")
    return {}


@client.task(name="ledger-staggered")
@client.with_ctx
@client.stagger_execution(wait_delta=timedelta(seconds=0.3))
async def staggered(msg: Message, ctx: Context) -> dict[str, Any]:
    note("ledger-staggered", ctx, "begin")
    note("ledger-staggered", ctx, "succeeded")
    return {"x": msg.x}


@client.task(name="ledger-unsendable")
@client.with_ctx
async def unsendable(msg: Message, ctx: Context) -> dict[str, Any]:
    note("ledger-unsendable", ctx, "begin")
    note("ledger-unsendable", ctx, "failed")
    return {"x": object()}


@client.task(name="ledger-held")
@client.with_ctx
async def held(msg: Message, ctx: Context) -> dict[str, Any]:
    note("ledger-held", ctx, "begin")
    await asyncio.sleep(60 if ctx.attempt_number == 1 else 0)
    note("ledger-held", ctx, "succeeded")
    return {"x": msg.x}


@client.task(name="ledger-step")
@client.with_ctx
async def step(msg: Message, ctx: Context) -> dict[str, Any]:
    note("ledger-step", ctx, "begin")
    note("ledger-step", ctx, "succeeded")
    return {"x": msg.x}


@client.task(name="ledger-item")
@client.with_ctx
async def item(msg: Message, ctx: Context) -> dict[str, Any]:
    note("ledger-item", ctx, "begin")
    note("ledger-item", ctx, "failed" if msg.x == 1 else "succeeded")
    if msg.x == 1:
        raise ConnectionError("no")
    return {"x": msg.x}


@client.task(name="ledger-then")
@client.with_ctx
async def then(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
    note("ledger-then", ctx, "begin")
    note("ledger-then", ctx, "succeeded")
    return {}


@client.task(name="ledger-catch")
@client.with_ctx
async def catch(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
    note("ledger-catch", ctx, "begin")
    note("ledger-catch", ctx, "succeeded")
    return {}


@client.task(name="ledger-cron", on_crons=["* * * * *"])
@client.with_ctx
async def cron(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
    note("ledger-cron", ctx, "begin")
    note("ledger-cron", ctx, "succeeded")
    return {}


@client.batch_task(name="ledger-batch", batch_max_size=3, batch_max_interval=timedelta(seconds=1))
async def batch(items: dict[str, Message]) -> dict[str, Any]:
    for each in items.values():
        note("ledger-batch", None, "begin")
        note("ledger-batch", None, "failed" if each.x == 1 else "succeeded")
    return {key: {"x": object() if each.x == 1 else each.x} for key, each in items.items()}


if __name__ == "__main__":
    tasks = [fine, flaky, slow, staggered, unsendable, held, step, item, then, catch, batch]
    if "cron" in sys.argv[3:]:
        tasks.append(cron)
    client.worker("ledger", slots=50, workflows=tasks).start()
