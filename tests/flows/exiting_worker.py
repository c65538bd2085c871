"""A worker process with tasks whose functions raise SystemExit, which ends the worker."""

import os
from typing import Any

from hatchet_sdk import Hatchet

from mageflow import Mageflow, Settings

client = Mageflow(
    Hatchet(),
    os.environ["PROBE_REDIS"],
    settings=Settings(
        metrics=False, reconcile_grace_seconds=1.0, reconcile_check_seconds=1.0, reconcile_interval_seconds=0.2
    ),
)


@client.task(name="exits-in-thread")
def exits_in_thread(msg: dict[str, Any]) -> dict[str, Any]:
    raise SystemExit(3)


@client.task(name="exits-on-loop")
async def exits_on_loop(msg: dict[str, Any]) -> dict[str, Any]:
    raise SystemExit(3)


if __name__ == "__main__":
    client.worker("exits", workflows=[exits_in_thread, exits_on_loop]).start()
