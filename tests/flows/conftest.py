import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.interceptors import Interceptor
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.hatchet import Hatchet, Worker
from tests.store.counting import RoundTrips


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[EmbeddedValkey]:
    """One real server for the session."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def valkey(valkey_server: EmbeddedValkey) -> Iterator[EmbeddedValkey]:
    """An empty server; a key of ours that is left without a TTL fails the test."""
    valkey_server.flush()
    yield valkey_server
    assert valkey_server.keys_without_ttl() == []


@pytest.fixture
def round_trips() -> RoundTrips:
    """What the test has cost so far."""
    return RoundTrips()


@pytest.fixture
async def port(valkey: EmbeddedValkey, round_trips: Interceptor) -> AsyncIterator[RedisPort]:
    """A port over the real server, observed by `round_trips`."""
    port = RedisPort(valkey.url, round_trips)
    yield port
    await port.aclose()
    await asyncio.sleep(0)


@pytest.fixture
def settings() -> Settings:
    """Intervals short enough for tests."""
    return Settings(reconcile_grace_seconds=0.05, reconcile_check_seconds=0.1, reconcile_interval_seconds=0.02)


@pytest.fixture
def store(port: RedisPort, settings: Settings) -> Store:
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
