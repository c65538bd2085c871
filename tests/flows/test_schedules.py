"""Chains and swarms that start by themselves at a time."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mageflow import Settings
from mageflow.errors import IllegalTransitionError, SignatureNotFoundError
from mageflow.flows import Flows
from mageflow.flows.reconciler import Sweep
from mageflow.signatures import RunOptions, Status
from mageflow.store import Store
from tests.flows.conftest import echo, until_ended

OPTIONS = RunOptions(metadata={"tenant": "acme"}, priority=3)
DAY_SECONDS = 24 * 3600


def soon(seconds: float = 0.3) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def ttl_seconds(flows: Any, store: Any, key: str) -> float:
    return float(await store.port.command("TTL", key, operation="test"))


async def test_a_chain_starts_at_its_time_with_its_message_and_options(quick: Any, hatchet: Any, worker: Any) -> None:
    """Not before, once, and every run has the options."""
    chain = await quick.creation.chain(["one", "two"], name="nightly", success="three")
    at = soon(2.0)
    await quick.schedules.schedule(chain.key, at, {"number": 7}, OPTIONS)

    reconcilers = [quick.reconciler(), quick.reconciler()]
    while datetime.now(UTC) < at - timedelta(seconds=1.2):
        await asyncio.gather(*(each.sweep() for each in reconcilers))
        loaded = await quick.load(chain.key)
        assert (loaded.status, list(hatchet.queue)) == ("pending", [])
        assert abs((loaded.starts_at - at).total_seconds()) < 0.01
        await asyncio.sleep(0.02)
    assert await until_ended(quick, chain.key, worker(one=echo, two=echo, three=echo)) is Status.DONE

    assert hatchet.inputs("one") == [{"number": 7}]
    assert [len(hatchet.inputs(name)) for name in ("one", "two")] == [1, 1]
    assert (await quick.load(chain.key)).starts_at is None
    sent = [run.request for run in hatchet.runs.values()]
    assert [(run.metadata, run.priority) for run in sent] == [({"tenant": "acme"}, 3)] * 3


async def test_scheduling_again_replaces_time_message_and_options(quick: Any, hatchet: Any, worker: Any) -> None:
    swarm = await quick.creation.swarm(["one"], closed=True)
    await quick.schedules.schedule(swarm.key, soon(0.05), {"number": 1}, OPTIONS)
    await quick.schedules.schedule(swarm.key, soon(3.0), {"number": 2}, RunOptions())
    await asyncio.sleep(0.15)
    await quick.reconciler().sweep()
    assert list(hatchet.queue) == []
    await until_ended(quick, swarm.key, worker(one=echo))
    assert hatchet.inputs("one") == [{"number": 2}]
    assert [run.request.metadata for run in hatchet.runs.values()] == [{}]


async def test_a_start_by_hand_is_the_only_one(quick: Any, hatchet: Any, worker: Any) -> None:
    """It has its own message and none of the scheduled options; afterwards nothing can be scheduled."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.schedules.schedule(chain.key, soon(0.1), {"number": 1}, OPTIONS)
    await quick.start(chain, {"number": 2})
    await asyncio.sleep(0.15)
    await until_ended(quick, chain.key, worker(one=echo, two=echo))
    await quick.reconciler().sweep()
    assert hatchet.inputs("one") == [{"number": 2}]
    assert {run.request.priority for run in hatchet.runs.values()} == {None}
    with pytest.raises(IllegalTransitionError, match="cannot schedule"):
        await quick.schedules.schedule(chain.key, soon(), {}, OPTIONS)


async def test_suspended_and_interrupted_flows_keep_their_state(quick: Any, hatchet: Any, worker: Any) -> None:
    """A suspended one begins at resume, an interrupted one never."""
    held, ended = [await quick.creation.chain(["one", "two"]) for _ in range(2)]
    for chain in (held, ended):
        await quick.schedules.schedule(chain.key, soon(0.1), {"number": 1}, OPTIONS)
    await quick.lifecycle.suspend(held.key)
    await quick.lifecycle.interrupt(ended.key)
    await asyncio.sleep(0.15)
    for _ in range(3):
        await quick.reconciler().sweep()
        await asyncio.sleep(0.05)
    assert list(hatchet.queue) == []
    assert (await quick.load(ended.key)).status is Status.INTERRUPTED
    await quick.lifecycle.resume(held.key)
    assert await until_ended(quick, held.key, worker(one=echo, two=echo)) is Status.DONE
    assert hatchet.inputs("one")[0] == {"number": 1}  # a slow machine sends it again: the grace time is short


async def test_what_is_scheduled_lives_until_then(flows: Any, store: Any) -> None:
    """The record, nested flows and flows that are callbacks; a later change does not take the time back."""
    callback = await flows.creation.chain(["five", "six"])
    inner = await flows.creation.swarm(["two"], closed=True, success_callbacks=[callback])
    chain = await flows.creation.chain(["one", inner])
    signature = await flows.creation.sign("one", success_callbacks=[await flows.creation.chain(["seven", "eight"])])
    at = datetime.now(UTC) + timedelta(days=9)
    await flows.schedules.schedule(chain.key, at, {}, OPTIONS)
    await flows.schedules.keep(signature.key, at)
    await flows.rebinding.rebind(chain.key, {"number": 3})
    later = await flows.creation.sign("other")
    assert await ttl_seconds(flows, store, later.key) <= DAY_SECONDS

    for key in (chain.key, inner.key, callback.key, signature.key):
        assert 9.9 * DAY_SECONDS < await ttl_seconds(flows, store, key) <= 10 * DAY_SECONDS + 1, key
    shards = {store.keys.parse(each).due for each in (chain.key,)}
    for index in shards:
        assert await ttl_seconds(flows, store, index) > 10 * DAY_SECONDS
    await flows.lifecycle.remove(inner.key)
    with pytest.raises(SignatureNotFoundError):
        await flows.schedules.schedule(chain.key, at, {}, OPTIONS)


async def test_an_idle_worker_wakes_when_the_next_flow_is_due(store: Any, hatchet: Any) -> None:
    """It knows the time: it neither looks before nor up to an interval late. What is not known is spread as before."""
    settings = Settings()
    interval, grace = settings.reconcile_interval_seconds, settings.reconcile_grace_seconds
    reconciler = Flows(Store(store.port, store.keys, settings), hatchet, hatchet, settings).reconciler()

    for seconds in (interval / 2, grace * 0.9):
        pauses = [reconciler._pause_seconds(Sweep(next_seconds=seconds)) for _ in range(200)]
        assert seconds <= min(pauses)
        assert max(pauses) <= seconds + 0.1 * interval
    for seconds in (0.0, grace * 2):
        pauses = [reconciler._pause_seconds(Sweep(next_seconds=seconds)) for _ in range(200)]
        assert max(pauses) - min(pauses) > 0.5 * interval
        assert min(pauses) >= max(0.5 * interval, min(seconds, grace) - 0.5 * interval)
