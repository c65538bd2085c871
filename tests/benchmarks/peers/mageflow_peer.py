"""mageflow beside the bare SDK, on the local engine: the task and the worker of ``worker_sides``."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis

from tests.benchmarks import worker_sides
from tests.benchmarks.peers.signals import DONE, Send


def _side(is_on: bool) -> str:
    return "mageflow" if is_on else "bare"


def serve(is_on: bool, url: str) -> None:
    """Be the worker."""
    worker_sides.serve(_side(is_on), url)


@asynccontextmanager
async def sender(is_on: bool, url: str) -> AsyncIterator[Send]:
    """Send batches; Hatchet says when the last run is done."""
    _, task = worker_sides.make(_side(is_on), sys.stderr, url)

    async def send(count: int) -> None:
        items = [task.create_bulk_run_item(worker_sides.Message(x=index)) for index in range(count)]
        await task.aio_run_many(items)
        redis.Redis.from_url(url).set(DONE, 1)

    yield send
