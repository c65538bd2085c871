"""A worker process with tasks whose functions raise what is no `Exception`, which may end the worker."""

import asyncio
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


KINDS: dict[str, type[BaseException]] = {
    each.__name__: each for each in (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)
}


def declare(kind: type[BaseException]) -> list[Any]:
    """Two tasks: one that raises in a thread, and one that raises on the event loop."""

    @client.task(name=f"thread-{kind.__name__}")
    def in_thread(msg: dict[str, Any]) -> dict[str, Any]:
        raise kind("exits")

    @client.task(name=f"loop-{kind.__name__}")
    async def on_loop(msg: dict[str, Any]) -> dict[str, Any]:
        raise kind("exits")

    return [in_thread, on_loop]


if __name__ == "__main__":
    client.worker("exits", workflows=[task for kind in KINDS.values() for task in declare(kind)]).start()
