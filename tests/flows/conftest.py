import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.store import Keys, RedisPort, Store
from tests.flows.hatchet import Hatchet, Worker
from tests.store.conftest import port, round_trips, valkey, valkey_server  # noqa: F401 - fixtures


@pytest.fixture
def settings() -> Settings:
    """Intervals short enough for tests."""
    return Settings(reconcile_grace_seconds=0.05, reconcile_check_seconds=0.1, reconcile_interval_seconds=0.02)


@pytest.fixture
def store(port: RedisPort, settings: Settings) -> Store:  # noqa: F811 - as pytest has it
    """The store under test."""
    return Store(port, Keys("mageflow", "test"), settings)


@pytest.fixture
def hatchet() -> Hatchet:
    """A Hatchet made of a queue."""
    return Hatchet()


@pytest.fixture
async def flows(store: Store, hatchet: Hatchet) -> AsyncIterator[Flows]:
    """The flows under test; acknowledgements wait long enough to be seen not to be needed."""
    flows = Flows(store, hatchet, hatchet, Settings())
    yield flows
    await stop(flows)


@pytest.fixture
def worker(hatchet: Hatchet, flows: Flows) -> Callable[..., Worker]:
    """Makes workers: ``worker(double=body, …)``."""

    def make(**bodies: Any) -> Worker:
        return Worker(hatchet, flows, bodies)

    return make


async def stop(flows: Flows) -> None:
    """Stop what flows do in the background."""
    await flows.drain()
    for task in asyncio.all_tasks():
        if task.get_name().startswith("mageflow-"):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
