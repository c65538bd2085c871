"""One engine for the whole session, quick to lose workers and twenty times as fast in its own waits."""

from collections.abc import AsyncGenerator, Generator

import aiohttp
import pytest
import pytest_asyncio

from mageflow.engine import LocalEngine
from tests.engine.raw_client import ManualWorker, RawClient, task, unique

SPEED = 20.0
LOST_AFTER = 2.0


@pytest.fixture(scope="session")
def engine() -> Generator[LocalEngine]:
    """A running engine; its process ends with the session."""
    with LocalEngine(speed=SPEED, worker_lost_after=LOST_AFTER) as started:
        yield started


@pytest_asyncio.fixture
async def client(engine: LocalEngine) -> AsyncGenerator[RawClient]:
    """A client that sends single protocol messages to the engine."""
    async with aiohttp.ClientSession() as http:
        client = RawClient(engine.handshake, http)
        yield client
        await client.close()


class Single:
    """A workflow with one task and a worker that listens for it."""

    def __init__(self, client: RawClient, name: str, worker: ManualWorker) -> None:
        self.client = client
        self.name = name
        self.worker = worker

    async def declare(self, **options: object) -> None:
        """Register the workflow, with options for its task."""
        await self.client.put(self.name, task("work", self.name, **options))


@pytest_asyncio.fixture
async def single(client: RawClient) -> AsyncGenerator[Single]:
    """A workflow name of the test's own and a worker for its task ``work``; the test declares the workflow."""
    name = unique("single")
    async with client.worker(f"{name}:work".lower()) as worker:
        yield Single(client, name, worker)
