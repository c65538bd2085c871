"""Keys, timeouts and metadata a caller may pass: any text, any valid time, and a clear error for the rest."""

import json
import time
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import redis.asyncio

from mageflow.errors import ConfigurationError, LockTimeoutError
from mageflow.interceptors import ResourceKey
from mageflow.locks import LockService, exclusive_mark
from mageflow.store import Keys
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.conftest import Services
from tests.locks.runs import Gate, attempt, is_free, start, waiting


@pytest.mark.parametrize(
    "key", ["ключ", "🗝️", "line\nbreak", '"quoted"\\', "\x01", "a:b", "{tag}", "k" * 100_000, 2**70, "x\x7f\u2028"]
)
async def test_any_text_can_be_a_key(services: Services, key: Any) -> None:
    """Holder and waiter exclude each other, and a snapshot shows the key as it was written."""
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
    snapshot = await locks._store.snapshot()
    assert [each.resource.key for each in snapshot.holdings] == [str(key)]
    assert [each.resource.key for each in snapshot.waits] == [str(key)]
    gate.open()
    await holder
    assert await waiter == ResourceKey("orders", str(key))


@pytest.mark.parametrize("key", ["nul\0", "lone \ud800 surrogate"])
async def test_invalid_key_is_refused_at_once(services: Services, key: str) -> None:
    """As an argument, and in a `ResourceKey` made by hand."""
    locks = services()
    with pytest.raises(ConfigurationError, match="key"):
        locks.resource("orders").acquire(key)
    with pytest.raises(ConfigurationError, match="key"):
        locks.acquire(ResourceKey("orders", key))


@pytest.mark.parametrize("limit", [timedelta(microseconds=-1), timedelta(days=-1), 5, 0.5])
async def test_invalid_timeout_is_refused_at_once(services: Services, limit: Any) -> None:
    """Negative, or a number without a unit."""
    with pytest.raises(ConfigurationError, match="timeout"):
        services().resource("orders").acquire(timeout=limit)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"timeout": timedelta(seconds=-1)}, "timeout must not be negative"),
        ({"timeout": 5}, "timeout is a timedelta"),
        ({"policy": "yungest"}, "there is no policy 'yungest'; did you mean 'youngest'"),
        ({"on_lost": "raise"}, "there is no on_lost 'raise'; known are cancel, flag"),
    ],
)
def test_invalid_options_are_refused_where_they_are_written(
    services: Services, options: dict[str, Any], says: str
) -> None:
    """By ``acquire``, and by ``@client.exclusive`` when the module is imported and not in each run."""
    locks = services()
    for request in (locks.resource("orders").acquire, partial(exclusive_mark, locks, "orders")):
        with pytest.raises(ConfigurationError) as caught:
            request(**options)
        assert says in str(caught.value)


@pytest.mark.parametrize("name", [3, None, b"orders", "", "two words", "x" * 129])
def test_invalid_name_is_refused_at_once(services: Services, name: Any) -> None:
    """Text of another form, and what is no text."""
    with pytest.raises(ConfigurationError, match="cannot name a resource: use 1 to 128"):
        services().resource(name)


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
async def test_invalid_enqueue_time_is_replaced_by_the_start_of_the_run(
    services: Services, valkey: EmbeddedValkey, enqueued_at: str
) -> None:
    """Metadata may contain anything; the age of a run decides who is the youngest of a deadlock."""
    before = time.time()
    run = attempt("r1", metadata={"mageflow_enqueued_at": enqueued_at})
    after = time.time()
    born = await start(_stored_birth(services(), valkey), within=run)
    assert before - 0.1 <= born <= after + 0.1


async def test_valid_enqueue_time_is_the_age_of_the_run(services: Services, valkey: EmbeddedValkey) -> None:
    """On every attempt the same, so that a victim grows older with each retry."""
    for number in (1, 2):
        run = attempt("r1", number=number, metadata={"mageflow_enqueued_at": "1234567.891"})
        assert await start(_stored_birth(services(), valkey), within=run) == 1234567.891


async def _stored_birth(locks: LockService, valkey: EmbeddedValkey) -> float:
    """Seconds since the epoch, as Redis has it while the run holds a lock."""
    async with locks.resource("orders").acquire(), redis.asyncio.Redis.from_url(valkey.url) as client:
        [record] = (await client.hgetall(Keys("mageflow", "tests").lock("owners"))).values()
        return json.loads(record)["born_ms"] / 1000
