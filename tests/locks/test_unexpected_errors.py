"""A driver raises what no driver should: the background work of locks goes on, and the log says so."""

import asyncio
import time

import pytest

from mageflow import background
from mageflow.interceptors import InterceptorChain
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.conftest import valkey, valkey_server  # noqa: F401 - fixtures
from tests.locks.runs import until
from tests.store.faulty_client import Faulty

LEASE_SECONDS = 6.0


async def test_leases_are_renewed_after_an_unexpected_error(
    valkey: EmbeddedValkey,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The renewals ended without a word, and the lock went to another while its holder worked on."""
    monkeypatch.setattr(background, "_FIRST_PAUSE_SECONDS", 0.05)
    client = Faulty.from_url(valkey.url)
    chain = InterceptorChain()
    port = RedisPort(client, chain)
    locks = LockService(LockStore(port, Keys("mageflow", "tests")), chain, lease_seconds=LEASE_SECONDS)
    try:
        async with locks.resource("orders").acquire(on_lost="flag") as lease:
            began = time.monotonic()
            client.is_faulty = True
            await until(lambda: "lease renewals failed unexpectedly" in caplog.text)
            client.is_faulty = False
            await asyncio.sleep(began + LEASE_SECONDS + 1.0 - time.monotonic())
            lease.check()
        assert "an error in the driver" in caplog.text
    finally:
        await locks.aclose()
        await port.aclose()
        await client.aclose()
