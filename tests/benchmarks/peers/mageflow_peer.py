"""mageflow beside the bare SDK, on the local engine: the task and the worker of ``bench_worker``."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis

from tests.benchmarks import bench_worker
from tests.benchmarks.peers.signals import DONE, Send


def _side(is_on: bool) -> str:
    return "mageflow" if is_on else "bare"


def serve(is_on: bool, url: str) -> None:
    """Be the worker."""
    bench_worker.serve(_side(is_on), url)


@asynccontextmanager
async def sender(is_on: bool, url: str) -> AsyncIterator[Send]:
    """Send batches; Hatchet says when the last run is done."""
    _, task = bench_worker.make(_side(is_on), sys.stderr, url)

    async def send(count: int) -> None:
        items = [task.create_bulk_run_item(bench_worker.Message(x=index)) for index in range(count)]
        await task.aio_run_many(items)
        redis.Redis.from_url(url).set(DONE, 1)

    yield send
