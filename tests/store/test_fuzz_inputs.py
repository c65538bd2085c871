"""A bounded part of ``python -m tests.store.fuzz_inputs``: wrong inputs end in typed errors, within bounded time."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hatchet_sdk import Hatchet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mageflow import Mageflow, Settings
from mageflow.error_text import shown
from mageflow.errors import ConfigurationError, FlowDefinitionError
from mageflow.store import RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.store.fuzz import QUICK
from tests.store.fuzz_inputs import NESTED, bare_echo, circle, declare_echo, deep, fuzz_inputs, fuzz_metadata
from tests.store.stored_records import Stage

SEEDS = st.lists(st.integers(0, 2**48), min_size=4, max_size=8)


def each_of(seeds: list[int]) -> Callable[[], int | None]:
    """The seeds, one after another."""
    left = list(seeds)
    return lambda: left.pop() if left else None


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=SEEDS)
def test_wrong_inputs_end_in_typed_errors(valkey_server: EmbeddedValkey, seeds: list[int]) -> None:
    """Lone surrogates, NUL, infinity, 5,000 digits, deep nesting: in values, names, keys, locks and commands."""
    counts = asyncio.run(fuzz_inputs(valkey_server.url, each_of(seeds)))
    assert counts.untyped == []
    assert counts.typed.total() > 0


async def test_wrong_metadata_leaves_a_plain_run(mageflow_redis: EmbeddedValkey, mageflow_worker: Any) -> None:
    """A run with garbage under mageflow's own keys runs its own function and succeeds."""
    client = Mageflow(Hatchet(), mageflow_redis.url, settings=Settings(metrics_port=0))
    echo = declare_echo(client)
    mageflow_worker.in_process(client, "fuzzed", workflows=[echo])
    counts = await fuzz_metadata(bare_echo(Hatchet()), each_of(list(range(60))))
    assert counts.untyped == []
    assert counts.operations == 60


@pytest.mark.parametrize("value", [10**5000, deep(NESTED, of_lists=True), circle(), object()], ids=type)
def test_an_error_shows_any_value(value: object) -> None:
    """Also one that has no text, or a very long one."""
    assert 0 < len(shown(value)) < 250


async def test_what_cannot_be_stored_is_refused_by_name(valkey: EmbeddedValkey) -> None:
    """The error says what is wrong, and nothing is stored."""
    stage = Stage.open(valkey.url, QUICK)
    create = stage.flows.creation
    with pytest.raises(ConfigurationError, match="cannot be stored as JSON"):
        await create.sign("price", bind={"x": "\ud800"})
    with pytest.raises(ConfigurationError, match=r"cannot be stored as JSON.*4300 digits"):
        await create.sign("price", bind={"x": 10**5000})
    with pytest.raises(FlowDefinitionError, match="the task of a TaskDefinition cannot be stored"):
        await create.sign("")
    with pytest.raises(FlowDefinitionError, match="the name of a FlowDefinition cannot be stored"):
        await create.chain(["price", "price"], "\ud800")
    assert await stage.port.command("KEYS", "*") == []
    chain = await create.chain(["price", "price"])
    with pytest.raises(ConfigurationError, match="lone surrogates"):
        await stage.flows.lifecycle.suspend(chain.key, by="\ud800")
    await stage.aclose()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:99999/0", "redis://[::1", "redis://127.0.0.1/0?max_connections=x"])
def test_a_url_that_is_wrong_is_refused_at_once(url: str) -> None:
    """Not at the first command."""
    with pytest.raises(ConfigurationError, match="the Redis URL is wrong"):
        RedisPort(url)
