"""Real services with work in them, and a reader on them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from mageflow.cli.demo import session
from mageflow.cli.demo.services import Services, start_services
from mageflow.cli.top.sources import Reader, Snapshot
from mageflow.store import Keys, RedisPort


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Generator[Services]:
    """A Valkey, an engine and the worker of the demo."""
    with start_services(tmp_path_factory.mktemp("top"), lambda _: None) as services:
        yield services


@asynccontextmanager
async def reading(services: Services) -> AsyncGenerator[Reader]:
    """A reader of the worker and of the Redis of these services."""
    port = RedisPort(services.valkey.url)
    async with Reader(lambda: [services.metrics_url], port, Keys("mageflow", "")) as reader:
        yield reader
    await port.aclose()


@pytest.fixture
def workload(services: Services) -> Any:
    """Opens a workload on the services."""
    return lambda: session.open_workload(services, registry=CollectorRegistry())


async def until(read: Callable[[], Awaitable[Snapshot]], holds: Callable[[Snapshot], Any]) -> Snapshot:
    """Read until the snapshot is as expected, for at most 30 s."""
    async with asyncio.timeout(30):
        while not holds(snapshot := await read()):
            await asyncio.sleep(0.1)
    return snapshot
