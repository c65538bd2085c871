"""What may be locked and for how long: any text, any time that is one, and a clear no to the rest."""

from datetime import timedelta
from typing import Any

import pytest

from mageflow.errors import ConfigurationError, LockTimeoutError
from mageflow.interceptors import ResourceKey
from mageflow.locks import LockService
from tests.locks.conftest import Services
from tests.locks.scenes import Gate, attempt, is_free, start, waiting


@pytest.mark.parametrize(
    "key", ["ключ", "🗝️", "line\nbreak", '"quoted"\\', "\x01", "a:b", "{tag}", "k" * 100_000, 2**70, "x\x7f\u2028"]
)
async def test_any_text_can_be_a_key(services: Services, key: Any) -> None:
    """It excludes as any other, waits as any other, and is told as it was written."""
    locks, other = services(), services()
    gate = Gate()

    async def hold() -> None:
        async with locks.resource("orders").acquire(key):
            await gate.pass_through()

    async def ask() -> ResourceKey:
        async with other.resource("orders").acquire(key) as lease:
            return lease.resources[0]

    holder = start(hold())
    await gate.reached()
    waiter = start(ask())
    await waiting(locks, 1)
    picture = await locks._store.snapshot()
    assert [each.resource.key for each in picture.holdings] == [str(key)]
    assert [each.resource.key for each in picture.waits] == [str(key)]
    gate.open()
    await holder
    assert await waiter == ResourceKey("orders", str(key))


@pytest.mark.parametrize("key", ["nul\0", "lone \ud800 surrogate"])
async def test_what_cannot_be_a_key_is_refused_at_once(services: Services, key: str) -> None:
    """As a key, and as a resource key that was made by hand."""
    locks = services()
    with pytest.raises(ConfigurationError, match="key"):
        locks.resource("orders").acquire(key)
    with pytest.raises(ConfigurationError, match="key"):
        locks.acquire(ResourceKey("orders", key))


@pytest.mark.parametrize("limit", [timedelta(microseconds=-1), timedelta(days=-1), 5, 0.5])
async def test_timeout_that_is_none_is_refused_at_once(services: Services, limit: Any) -> None:
    """Negative, or a bare number whose unit nobody can know."""
    with pytest.raises(ConfigurationError, match="timeout"):
        services().resource("orders").acquire(timeout=limit)


@pytest.mark.parametrize("limit", [timedelta(0), timedelta(microseconds=1), timedelta.max])
async def test_shortest_and_longest_timeouts_get_a_free_lock(services: Services, limit: timedelta) -> None:
    """And the short ones do not wait for a held one."""
    locks = services()
    async with locks.resource("orders").acquire(timeout=limit):
        if limit < timedelta(seconds=1):
            with pytest.raises(LockTimeoutError):
                await start(_ask(locks, limit))
    assert await is_free(locks)


async def _ask(locks: LockService, limit: timedelta) -> None:
    async with locks.resource("orders").acquire(timeout=limit):
        pytest.fail("entered a held lock")


@pytest.mark.parametrize("enqueued_at", ["inf", "nan", "-1e400", "soon", ""])
async def test_age_that_makes_no_sense_is_the_start_of_the_run(services: Services, enqueued_at: str) -> None:
    """Metadata comes from anywhere."""
    run = attempt("r1", metadata={"mageflow_enqueued_at": enqueued_at})
    locks = services()

    async def ask() -> None:
        async with locks.resource("orders").acquire():
            pass

    await start(ask(), within=run)
