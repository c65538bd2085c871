"""``mageflow inspect`` of flows on a real engine and worker: what they wait for now, and where their time went."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from mageflow import Settings, Status
from mageflow.testing.ports import free_port
from tests.integration.conftest import make_observed, until  # noqa: F401 - a fixture


@pytest.fixture
def client(make_observed: Any, mageflow_redis: Any, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    """A client whose worker serves at a port that the command finds."""
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT", str(free_port()))
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT_SPAN", "1")
    monkeypatch.setenv("COLUMNS", "120")
    yield make_observed(mageflow_redis.url, settings=Settings()).client
    assert mageflow_redis.keys_without_ttl() == []


async def document(inspected: Any, key: str) -> dict[str, Any]:
    result = await inspected(key, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


async def waiting(inspected: Any, key: str, kind: str) -> dict[str, Any]:
    """The wait of this kind, once there is one."""
    async with asyncio.timeout(30):
        while True:
            for each in (await document(inspected, key))["waits"]:
                if each["kind"] == kind:
                    return each
            await asyncio.sleep(0.05)


async def test_what_a_chain_waits_for_and_where_its_time_went(
    client: Any, inspected: Any, mageflow_worker: Any, mageflow_stagger: Any
) -> None:
    """A start, a stagger, a lock with its holder; afterwards the parts of each step, which add up to its time."""
    mageflow_stagger.fix(6.0)
    release = asyncio.Event()
    printer = client.resource("printer")

    @client.task(name="staggered")
    @client.stagger_execution(wait_delta=timedelta(seconds=30))
    async def staggered(message: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.3)
        return {}

    @client.task(name="prints")
    @client.exclusive(printer)
    async def prints(message: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.2)
        return {}

    mageflow_worker.in_process(client, "timeline", workflows=[staggered, prints])
    chain = await client.chain([staggered, prints], "nightly")
    [start] = (await document(inspected, chain.key))["waits"]
    assert (start["kind"], start["path"], start["text"]) == ("start", "", "a start")

    async def hold() -> None:
        async with printer.acquire():
            await release.wait()

    holder = asyncio.create_task(hold())
    await chain.aio_run_no_wait()
    stagger = await waiting(inspected, chain.key, "stagger")
    assert stagger["path"] == "0"
    lock = await waiting(inspected, chain.key, "lock")
    assert lock["path"] == "1"
    assert lock["text"].startswith("the lock printer, held by a program")
    drawn = (await inspected(chain.key)).output
    assert "waits for" in drawn
    assert "the lock printer" in drawn
    await asyncio.sleep(0.6)
    release.set()
    await holder
    async with asyncio.timeout(30):
        while (await client.load_signature(chain.key)).status != Status.DONE:
            await asyncio.sleep(0.05)

    found = await document(inspected, chain.key)
    assert found["waits"] == []
    first, second = found["timeline"]["spans"]
    assert (first["path"], second["path"]) == ("0", "1")
    assert 5.9 <= first["parts"]["stagger"] < 30
    assert 0.29 <= first["parts"]["body"] < 5
    assert second["parts"]["lock"] >= 0.5
    assert 0.19 <= second["parts"]["body"] < 5
    assert "stagger" not in second["parts"]
    for each in (first, second):
        assert sum(each["parts"].values()) == pytest.approx(each["seconds"], abs=0.02)
    assert second["begin_s"] == pytest.approx(first["begin_s"] + first["seconds"], abs=0.02)
    assert found["timeline"]["budget"]["body"] == pytest.approx(first["parts"]["body"] + second["parts"]["body"])
    drawn = (await inspected(chain.key)).output
    assert "time line" in drawn
    assert "budget" in drawn
    assert "stagger 6" in drawn


async def test_a_suspended_and_an_unserved_flow(client: Any, inspected: Any) -> None:
    """Who has to do something: the one who resumes, or a worker."""
    chain = await client.chain(["unserved", "unserved"])
    await client.suspend(chain, by="ada", why="bank is down")
    wait = (await document(inspected, chain.key))["waits"][0]
    assert wait["text"] == "resume; it was suspended by ada: bank is down"
    assert wait["seconds"] < 60

    swarm = await client.swarm([], "empty")
    await swarm.aio_run_no_wait()
    assert [each["kind"] for each in (await document(inspected, swarm.key))["waits"]] == ["close"]
