"""Assertions about what the code under test starts and leaves behind, and delays that a test decides."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow
from mageflow.testing import control_stagger, running_worker

pytestmark = pytest.mark.slow


class Order(BaseModel):
    number: int = 0
    customer: str = ""


@dataclass
class Number:
    number: int


def test_a_started_run_is_found_by_task_and_fields(mageflow_runs, mageflow_engine):
    """By the task or its name, by some fields of the input, before a worker takes it."""
    client = Mageflow(Hatchet())

    @client.task(name="runs-order")
    async def order(msg: Order) -> dict[str, int]:
        return {"number": msg.number}

    with running_worker(mageflow_engine, client, "registers", workflows=[order]):
        pass
    mageflow_runs.not_started(order)
    order.run(Order(number=7, customer="ada"), wait_for_result=False)
    order.run(Order(number=8, customer="ada"), wait_for_result=False)

    found = mageflow_runs.started("runs-order", input={"number": 7}, count=1)[0]
    assert (found.task, found.input, found.status) == ("runs-order", {"number": 7, "customer": "ada"}, "QUEUED")
    assert mageflow_runs.started(order, input=Number(8))[0].input["number"] == 8
    assert len(mageflow_runs.started(order, input=Order(number=8, customer="ada"))) == 1
    assert len(mageflow_runs.started(order, count=2)) == 2
    mageflow_runs.not_started(order, input={"number": 9})


def test_a_wrong_expectation_shows_what_there_is(mageflow_runs, mageflow_engine):
    """The inputs of the task, or the tasks that were started."""
    client = Mageflow(Hatchet())

    @client.task(name="runs-shown")
    async def shown(msg: Order) -> dict[str, int]:
        return {}

    with running_worker(mageflow_engine, client, "registers", workflows=[shown]):
        pass
    shown.run(Order(number=7), wait_for_result=False)

    with pytest.raises(
        AssertionError, match=r"0 runs of 'runs-shown' with \{'number': 8\}, expected at least one; .*7"
    ):
        mageflow_runs.started(shown, input={"number": 8}, timeout_seconds=0)
    with pytest.raises(AssertionError, match=r"0 runs of 'other', expected at least one; started: \['runs-shown'\]"):
        mageflow_runs.started("other", timeout_seconds=0)
    with pytest.raises(AssertionError, match="1 runs of 'runs-shown', expected 0"):
        mageflow_runs.not_started(shown)
    with pytest.raises(AssertionError, match="1 runs of 'runs-shown', expected 2"):
        mageflow_runs.started(shown, count=2, timeout_seconds=0)


async def test_steps_of_a_chain_are_started_runs(
    mageflow_runs, mageflow_worker, mageflow_redis, mageflow_stagger, mageflow_leftovers
):
    """Each with its merged input. The window of an hour does not delay it, and nothing is left."""
    client = Mageflow(Hatchet(), redis_client=mageflow_redis.url)

    class Parcel(BaseModel):
        number: int = 0

    @client.task(name="runs-pack")
    @client.stagger_execution(wait_delta=timedelta(hours=1))
    async def pack(msg: Parcel) -> dict[str, int]:
        return {"number": msg.number + 1}

    @client.task(name="runs-ship")
    async def ship(msg: Parcel) -> dict[str, int]:
        return {"shipped": msg.number}

    mageflow_worker.in_process(client, "runs-worker", workflows=[pack, ship])
    chain = await client.chain([pack, ship], name="runs-chain")
    assert any("chain" in each and "is pending" in each for each in mageflow_leftovers.find())

    await chain.aio_run(Parcel(number=7))
    await client.aclose()

    mageflow_runs.started(pack, input={"number": 7}, count=1)
    mageflow_runs.started(ship, count=1)
    assert mageflow_stagger.drawn == [("runs-pack", 0.0)]


async def test_delays_are_decided(mageflow_worker, mageflow_spans, mageflow_redis):
    """A fixed time, at most the window, and the whole window; afterwards chance decides again."""
    client = Mageflow(Hatchet())

    @client.task(name="runs-staggered")
    @client.stagger_execution(wait_delta=timedelta(seconds=0.2))
    async def staggered(msg: Order) -> dict[str, int]:
        return {}

    mageflow_worker.in_process(client, "stagger-worker", workflows=[staggered])
    with control_stagger() as control:
        for decide in (lambda: control.fix(0.05), lambda: control.fix(9), control.whole_window):
            decide()
            await staggered.aio_run(Order())
        assert [seconds for _, seconds in control.drawn] == [0.05, 0.2, 0.2]
        with pytest.raises(ValueError, match="0 s or more"):
            control.fix(-1)
    await staggered.aio_run(Order())

    slept = [
        span.attributes["mageflow.stagger.delay_s"] for span in mageflow_spans.wait_for("stagger runs-staggered", 4)
    ]
    assert slept[:3] == [0.05, 0.2, 0.2]
    assert slept[3] not in (0.05, 0.2)
    assert len(control.drawn) == 3


def run_pytest(folder: Path, source: str) -> str:
    """What a new pytest prints for a file of tests."""
    (folder / "test_outside.py").write_text(source)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return run.stdout + run.stderr


def test_what_a_test_leaves_behind_fails_it(tmp_path):
    """A run that no worker takes, a lock that is not given back, a signature that was not sent, a key without a TTL."""
    source = """
import asyncio
import pytest
from hatchet_sdk import Hatchet
from mageflow import Mageflow
from mageflow.testing import running_worker
from redis import Redis

pytestmark = pytest.mark.usefixtures("mageflow_leftovers")


def test_nothing_is_left():
    pass


def test_much_is_left(mageflow_engine, mageflow_redis):
    client = Mageflow(Hatchet(), redis_client=mageflow_redis.url)

    @client.task(name="left-task")
    async def left(msg: dict) -> dict:
        return {}

    async def leave():
        await client.sign(left, number=1)
        await client.resource("printer").acquire(key=7).__aenter__()

    asyncio.run(leave())
    with running_worker(mageflow_engine, client, "registers", workflows=[left]):
        pass
    left.run({"number": 7}, wait_for_result=False)
    Redis.from_url(mageflow_redis.url).set("of-the-program", "1")
"""
    printed = run_pytest(tmp_path, source)

    assert re.search("2 passed.*, 1 error", printed), printed
    assert "of left-task is QUEUED, input {'number': 7}" in printed
    assert "lock 'printer:7' is held" in printed
    assert "- signature " in printed
    assert " is pending" in printed
    assert "key of-the-program has no TTL" in printed
