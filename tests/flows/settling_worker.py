"""A worker process that notes each execution in the folder ``PROBE_FOLDER``, and whose bodies wait for a file there."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from hatchet_sdk import Hatchet

from mageflow import Mageflow, Settings

FOLDER = Path(os.environ["PROBE_FOLDER"])

client = Mageflow(
    Hatchet(),
    os.environ["PROBE_REDIS"],
    settings=Settings(
        metrics=False, reconcile_grace_seconds=1.0, reconcile_check_seconds=1.0, reconcile_interval_seconds=0.2
    ),
)


def note(line: str) -> None:
    """Append one line to the log, in one write."""
    with (FOLDER / "log").open("a") as log:
        log.write(f"{line}\n")


async def go() -> None:
    """Wait for the test."""
    while not (FOLDER / "go").exists():
        await asyncio.sleep(0.02)


@client.task(name="pays", retries=2)
async def pays(msg: dict[str, Any]) -> dict[str, Any]:
    note("pays begins")
    await go()
    note("pays ends")
    return {"paid": 1}


@client.task(name="fails")
async def fails(msg: dict[str, Any]) -> dict[str, Any]:
    note("fails begins")
    await go()
    raise ValueError("no good: line 1\nline 2")


@client.task(name="on-failure")
async def on_failure(msg: dict[str, Any]) -> dict[str, Any]:
    note(f"callback {json.dumps(msg['mageflow_error'])}")
    return {}


if __name__ == "__main__":
    client.worker("settling", workflows=[pays, fails, on_failure]).start()
