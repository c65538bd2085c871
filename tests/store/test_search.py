"""`search_records` finds every record once, by kind, status, name and age, without a scan of keys."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mageflow.config import Settings
from mageflow.errors import ConfigurationError
from mageflow.flows import Flows
from mageflow.signatures import Status
from mageflow.store import FoundSignature, Keys, RedisPort, Store, search_records
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker

KINDS = ("task", "chain", "swarm")


@pytest.fixture
async def flows(port: RedisPort) -> Any:
    hatchet = FakeHatchet()
    flows = Flows(Store(port, Keys("mageflow", "test"), Settings()), hatchet, hatchet, Settings())
    flows.fake = hatchet  # type: ignore[attr-defined]
    yield flows
    await flows.drain()


async def found(flows: Flows, **filters: Any) -> list[FoundSignature]:
    return [each async for each in flows.search.find(**filters)]


async def test_the_filters(flows: Any) -> None:
    """Status, task, flow and age; each alone and together."""
    first = await flows.creation.sign("price", number=1)
    await asyncio.sleep(0.02)
    middle = datetime.now(UTC)
    await asyncio.sleep(0.02)
    other = await flows.creation.sign("ship")
    chain = await flows.creation.chain(["price", "ship"], name="order")
    swarm = await flows.creation.swarm(["price"], name="order", closed=True)
    await flows.start(chain)
    await flows.lifecycle.suspend(swarm.key)

    async def keys(**filters: Any) -> set[str]:
        return {each.key for each in await found(flows, **filters)}

    assert await keys() == {first.key, other.key, chain.key, swarm.key}
    assert await keys(task="price") == {first.key}
    assert await keys(flow="order") == {chain.key, swarm.key}
    assert await keys(status="active") == {chain.key}
    assert await keys(status=[Status.SUSPENDED, "active"]) == {chain.key, swarm.key}
    assert await keys(status="suspended", flow="order") == {swarm.key}
    assert await keys(since=middle) == {other.key, chain.key, swarm.key}
    assert await keys(since=timedelta(hours=1), task="ship") == {other.key}
    assert await keys(flow="price") == set()
    [one] = await found(flows, task="price")
    assert (one.kind, one.name, one.status, one.attempts) == ("task", "price", Status.PENDING, 0)
    assert abs(one.created_at - middle) < timedelta(seconds=10)


async def test_wrong_filters(flows: Any) -> None:
    """Typed errors that name the nearest word; before the first round trip."""
    with pytest.raises(ConfigurationError, match="no status 'faild'; did you mean 'failed'"):
        flows.search.find(status="faild")
    with pytest.raises(ConfigurationError, match="not both"):
        flows.search.find(task="price", flow="order")
    with pytest.raises(ConfigurationError, match="time zone"):
        flows.search.find(since=datetime(2026, 1, 1))  # noqa: DTZ001 - the fault under test
    with pytest.raises(ConfigurationError, match="a task declared"):
        flows.search.find(task=object())


@pytest.mark.parametrize("page", [1, 7, 500])
async def test_pages_hold_every_record_once(flows: Any, port: RedisPort, page: int) -> None:
    """Also records whose times in the index are equal, over all shards and statuses."""
    made = {(await flows.creation.sign("price", number=number)).key for number in range(120)}
    keys = Keys("mageflow", "test")
    for key in made:  # all at one time
        parsed = keys.parse(key)
        await port.command("ZADD", f"{parsed.stats}:task:pending", "4102444800000", parsed.id)

    rows = [each async for each in search_records(port, keys, kinds=KINDS, statuses=list(Status), page=page)]

    assert len(rows) == len(made)
    assert {each.key for each in rows} == made


async def test_it_reads_no_keys_and_costs_one_round_trip_a_page(flows: Any, port: RedisPort, monkeypatch: Any) -> None:
    """1,000 records in three calls of one script, among thousands of keys that belong to others."""
    for number in range(1000):
        await flows.creation.sign("price", number=number)
    calls: list[str] = []
    call = port.call

    async def counted(script: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(script.name)
        return await call(script, *args, **kwargs)

    monkeypatch.setattr(port, "call", counted)

    assert len(await found(flows)) == 1000
    assert calls == ["search"] * 3


async def test_records_that_are_gone_or_damaged_are_left_out(flows: Any, port: RedisPort) -> None:
    """An expired record leaves its entry for a while; a damaged one stops nothing."""
    kept = await flows.creation.sign("price", number=1)
    for number, damage in ((2, ("DEL",)), (3, ("HDEL", "name")), (4, ("HSET", "created_ms", "x"))):
        signature = await flows.creation.sign("price", number=number)
        await port.command(damage[0], signature.key, *damage[1:])
    other = await flows.creation.sign("price", number=5)
    await port.command("DEL", other.key)
    await port.command("SET", other.key, "text")
    await port.command("EXPIRE", other.key, 600)

    assert [each.key for each in await found(flows)] == [kept.key]


async def test_the_counts_are_those_of_the_index(flows: Any) -> None:
    """By kind and status, with zeros."""
    signature = await flows.creation.sign("price")
    await flows.start(await flows.creation.chain(["price", "ship"]))
    worker = FakeWorker(flows.fake, flows, {"price": _echo, "ship": _echo})
    await worker.drain()

    counts = await flows.search.counts()

    assert signature.status == "pending"
    assert counts["task"] == dict.fromkeys(Status, 0) | {Status.PENDING: 1}
    assert counts["chain"] == dict.fromkeys(Status, 0) | {Status.DONE: 1}
    assert set(counts["swarm"].values()) == {0}


async def _echo(message: dict[str, Any]) -> dict[str, Any]:
    return message
