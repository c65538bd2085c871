"""A server with flows in it, and the commands that show them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mageflow.cli.inspect import inspect
from mageflow.testing import EmbeddedValkey
from tests.cli.stored_flows import StoredFlows


@pytest.fixture(autouse=True)
def no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe has no width. Parallel test processes have the variable, and a shell may."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
async def stored(mageflow_redis: EmbeddedValkey) -> AsyncIterator[StoredFlows]:
    """An empty server; what is left in it must have a TTL."""
    stored = StoredFlows(mageflow_redis.url)
    yield stored
    await stored.flows.drain()
    await stored.port.aclose()
    assert mageflow_redis.keys_without_ttl() == []


@pytest.fixture
def inspected(mageflow_redis: EmbeddedValkey) -> Any:
    """Runs ``mageflow inspect`` with the server's URL, in a thread: it has an event loop of its own."""

    async def run(*arguments: str) -> Result:
        command = [*arguments, "--redis-url", mageflow_redis.url]
        return await asyncio.to_thread(CliRunner().invoke, inspect, command, catch_exceptions=False)

    return run
