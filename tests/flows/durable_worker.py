"""A worker process whose durable tasks are members of flows."""

import os
from datetime import timedelta
from typing import Any

from hatchet_sdk import DurableContext, Hatchet

from mageflow import Mageflow, Settings

client = Mageflow(
    Hatchet(),
    os.environ["PROBE_REDIS"],
    settings=Settings(
        metrics=False, reconcile_grace_seconds=0.5, reconcile_check_seconds=0.5, reconcile_interval_seconds=0.2
    ),
)


@client.task(name="leaf")
async def leaf(msg: dict[str, Any]) -> dict[str, Any]:
    return {"tenfold": msg["n"] * 10}


@client.durable_task(name="patient")
@client.with_ctx
async def patient(msg: dict[str, Any], ctx: DurableContext) -> dict[str, Any]:
    await ctx.aio_sleep_for(timedelta(seconds=2))
    child = await leaf.aio_run({"n": msg["n"]})
    return {"n": child["tenfold"], "run": ctx.workflow_run_id}


@client.task(name="after")
def after(msg: dict[str, Any]) -> dict[str, Any]:
    return {"got": msg["mageflow_results"]["n"]}


if __name__ == "__main__":
    client.worker("durable-flows", workflows=[leaf, patient, after]).start()
