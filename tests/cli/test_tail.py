"""``mageflow tail`` follows real runs: what it prints, what it leaves out, and how it ends."""

import asyncio
import json
import os
import signal
import sys
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from mageflow import Settings, SwarmConfig
from mageflow.cli.tail_filter import TailFilter
from mageflow.cli.tail_follower import Follower
from mageflow.store import Keys, RedisPort
from mageflow.testing.ports import free_port
from tests.integration.conftest import make_observed  # noqa: F401 - a fixture
from tests.started_program import StartedProgram


@pytest.fixture
def client(make_observed: Any, mageflow_redis: Any, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: F811
    """A client whose worker serves at a port that the command finds."""
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT", str(free_port()))
    monkeypatch.setenv("MAGEFLOW_METRICS_PORT_SPAN", "1")
    return make_observed(mageflow_redis.url, settings=Settings()).client


async def collect(follower: Follower, wanted: set[tuple[str, str, str]]) -> list[Any]:
    """Look until all of these were reported as subject, name and what."""
    found: list[Any] = []
    async with asyncio.timeout(40):
        while not wanted <= {(each.subject, each.name, each.what) for each in found}:
            found += await follower.look()
            await asyncio.sleep(0.1)
    return found


async def test_a_chain_is_followed(client: Any, mageflow_worker: Any, mageflow_redis: Any) -> None:
    """Starts, steps, attempts with their parts, errors and ends come once each; filters leave out the rest."""

    @client.task(name="works")
    async def works(message: dict[str, Any]) -> dict[str, Any]:
        return {}

    @client.task(name="breaks")
    async def breaks(message: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("no \x1b[31msuch order")

    mageflow_worker.in_process(client, "tail", workflows=[works, breaks])
    before = await client.chain([works, works], "before")
    port = RedisPort(mageflow_redis.url)
    keys, settings = Keys("mageflow", ""), Settings()
    everything = Follower(port, keys, settings, TailFilter())
    of_task = Follower(port, keys, settings, TailFilter(task="works"))
    of_flow = Follower(port, keys, settings, TailFilter(flow="other"))
    for follower in (everything, of_task, of_flow):
        await follower.begin()
    assert await everything.look() == []
    chain = await client.chain([works, breaks], "nightly")
    await chain.aio_run_no_wait()

    found = await collect(
        everything,
        {("chain", "nightly", "active"), ("step", "works", "done"), ("chain", "nightly", "failed"),
         ("attempt", "works", "succeeded"), ("attempt", "breaks", "failed")},
    )  # fmt: skip
    await asyncio.sleep(0.5)
    found += await everything.look()
    assert len({(each.at, each.key, each.run, each.what) for each in found}) == len(found)
    assert not any(each.key.startswith(before.key) for each in found)
    [attempt] = [each for each in found if (each.subject, each.name) == ("attempt", "breaks")]
    assert attempt.detail.startswith("ValueError; ")  # workers say no more of an error by default
    [step] = [each for each in found if (each.subject, each.what) == ("step", "failed")]
    assert step.detail == "ValueError: no \x1b[31msuch order"
    assert "\x1b" not in step.line()
    assert attempt.parts["body"] >= 0
    [end] = [each for each in found if (each.subject, each.what) == ("chain", "failed")]
    assert end.seconds is not None
    assert 0 < end.seconds < 60
    assert {each.name for each in await of_task.look()} == {"works"}
    assert await of_flow.look() == []
    await port.aclose()


async def test_nothing_is_missed_where_much_changes_and_the_clock_of_this_host_is_wrong(
    client: Any, mageflow_redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every member of a large swarm, every one of many signatures; the clock is an hour ahead of that of Redis."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr("mageflow.cli.tail_follower.datetime", Ahead)

    @client.task(name="many")
    async def many(message: dict[str, Any]) -> dict[str, Any]:
        return {}

    port = RedisPort(mageflow_redis.url)
    follower = Follower(port, Keys("mageflow", ""), Settings(), TailFilter())
    await follower.begin()
    await follower.look()
    await asyncio.sleep(2.5)  # longer than looks overlap
    signatures = [await client.sign(many, n=each) for each in range(250)]
    swarm = await client.swarm([many] * 250, config=SwarmConfig(max_concurrency=300), closed=True)
    await swarm.aio_run_no_wait()
    found = await follower.look()
    assert {each.key for each in found if each.what == "pending"} >= {each.key for each in signatures}
    assert {f"{swarm.key}#{each}" for each in range(250)} <= {each.key for each in found}
    await port.aclose()


def test_a_key_is_followed_to_its_end(client: Any, mageflow_worker: Any, mageflow_redis: Any) -> None:
    """It prints what has happened, then what happens, and ends with status 0. Ctrl-C ends it with 0 as well."""

    @client.task(name="quick")
    async def quick(message: dict[str, Any]) -> dict[str, Any]:
        return {}

    mageflow_worker.in_process(client, "tail-key", workflows=[quick])
    chain = asyncio.run(client.chain([quick, quick], "by-key"))
    command = [sys.executable, "-m", "mageflow", "tail", "--json", "--redis-url", mageflow_redis.url]
    with (
        StartedProgram([*command, "--key", chain.key]) as followed,
        StartedProgram(command, env={**os.environ, "NO_COLOR": "1"}) as endless,
    ):
        first = json.loads(followed.line())
        assert (first["subject"], first["what"], first["key"]) == ("chain", "pending", chain.key)
        asyncio.run(chain.aio_run_no_wait())
        status, rest, errors = followed.ended()
        assert (status, errors) == (0, "")
        lines = [json.loads(line) for line in rest.splitlines()]
        assert ("chain", "done") in {(each["subject"], each["what"]) for each in lines}
        # It prints what happens after it has begun, and only a line of it shows that it has.
        deadline = time.monotonic() + 90
        while not endless.has_line(within=0.5) and time.monotonic() < deadline:
            asyncio.run(client.sign(quick))
        assert json.loads(endless.line(within=1))["at"]
        endless.send_signal(signal.SIGINT)
        status, _, errors = endless.ended()
        assert (status, errors) == (0, "")
