import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from mageflow.interceptors import Interceptor
from mageflow.store import RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.store.counting import RoundTrips
from tests.store.topologies import ServerProcess, redis_binary, valkey_binary


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
    """What the test's port has cost so far."""
    return RoundTrips()


@pytest.fixture
async def port(valkey: EmbeddedValkey, round_trips: Interceptor) -> AsyncIterator[RedisPort]:
    """A port over the real server, observed by `round_trips`. A busy machine may answer after the usual 5 s."""
    port = RedisPort(f"{valkey.url}?socket_timeout=60", round_trips)
    yield port
    await port.aclose()
    await asyncio.sleep(0)


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """One server of either kind."""
    binary = valkey_binary() if request.param == "valkey" else redis_binary()
    if binary is None:
        pytest.skip("there is no redis-server on this machine, and pip cannot bring one")
    with ServerProcess(binary) as process:
        yield process
