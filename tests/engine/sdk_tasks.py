"""Tasks of a plain SDK program. The worker process and the tests define them on their own clients."""

import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hatchet_sdk import Context, DurableContext, EmptyModel, Hatchet, SleepCondition, UserEventCondition, or_
from hatchet_sdk.runnables.types import BatchMemberId
from pydantic import BaseModel

WAKE_EVENT = "engine-tests:wake"


class Number(BaseModel):
    """An input."""

    n: int = 0


@dataclass
class SdkTasks:
    """The tasks by what they show."""

    double: Any
    flaky: Any
    endless: Any
    pipeline: Any
    parent: Any
    sleeper: Any
    batch: Any
    streamer: Any

    @property
    def all(self) -> list[Any]:
        """All of them, for a worker."""
        return list(self.__dict__.values())


def build(hatchet: Hatchet) -> SdkTasks:
    """Define the tasks on a client."""

    @hatchet.task(name="engine-tests-double", input_validator=Number)
    async def double(message: Number, ctx: Context) -> dict[str, int]:
        ctx.log(f"doubling {message.n}")
        return {"n": message.n * 2}

    @hatchet.task(name="engine-tests-flaky", retries=2, backoff_factor=4.0, backoff_max_seconds=60)
    def flaky(message: EmptyModel, ctx: Context) -> dict[str, int]:
        if ctx.retry_count < 2:
            raise RuntimeError(f"attempt {ctx.retry_count} fails")
        return {"attempt": ctx.retry_count}

    @hatchet.task(name="engine-tests-endless", execution_timeout=timedelta(minutes=2))
    async def endless(message: EmptyModel, ctx: Context) -> dict[str, str]:
        await asyncio.sleep(120)
        return {}

    pipeline = hatchet.workflow(name="engine-tests-pipeline", input_validator=Number)

    @pipeline.task()
    def first(message: Number, ctx: Context) -> dict[str, int]:
        return {"n": message.n + 1}

    @pipeline.task(parents=[first], wait_for=[SleepCondition(timedelta(seconds=40))])
    def second(message: Number, ctx: Context) -> dict[str, int]:
        return {"n": ctx.task_output(first)["n"] * 10}

    @hatchet.task(name="engine-tests-parent", input_validator=Number)
    async def parent(message: Number, ctx: Context) -> dict[str, list[int]]:
        children = await double.aio_run_many([double.create_bulk_run_item(Number(n=n)) for n in range(message.n)])
        return {"children": [child["n"] for child in children]}

    @hatchet.durable_task(name="engine-tests-sleeper", execution_timeout=timedelta(minutes=2), input_validator=Number)
    async def sleeper(message: Number, ctx: DurableContext) -> dict[str, Any]:
        await ctx.aio_sleep_for(timedelta(seconds=20))
        child = await double.aio_run(message)
        woken = await ctx.aio_wait_for(
            "wake",
            or_(SleepCondition(timedelta(hours=1)), UserEventCondition(event_key=WAKE_EVENT, scope=str(message.n))),
        )
        return {"child": child["n"], "woken_by": list(woken["CREATE"])}

    @hatchet.batch_task(
        name="engine-tests-batch",
        batch_max_size=4,
        batch_max_interval=timedelta(milliseconds=300),
        input_validator=Number,
    )
    async def batch(items: dict[BatchMemberId, Number], ctx: Context) -> dict[BatchMemberId, dict[str, int]]:
        return {key: {"n": item.n, "together": len(items)} for key, item in items.items()}

    @hatchet.task(name="engine-tests-streamer")
    async def streamer(message: EmptyModel, ctx: Context) -> dict[str, str]:
        await asyncio.gather(*(ctx.aio_put_stream(f"chunk {n}") for n in range(20)))
        return {}

    return SdkTasks(double, flaky, endless, pipeline, parent, sleeper, batch, streamer)


def main() -> None:
    """Run a worker, named by the first argument, against the engine the environment names."""
    hatchet = Hatchet()
    hatchet.worker(sys.argv[1], slots=50, durable_slots=50, workflows=build(hatchet).all).start()


if __name__ == "__main__":
    main()
