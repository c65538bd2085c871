"""Swarms: concurrency, results, ends, additions, refilling, and what they cost."""

import asyncio
import time
from typing import Any

import pytest

from mageflow.errors import FlowFailedError, SwarmClosedError, SwarmFullError
from mageflow.flows import Flows
from mageflow.signatures import Status, SwarmConfig, SwarmSignature
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker, FakeWorkers
from tests.store.counting import RoundTrips


async def echo(message: dict[str, Any]) -> Any:
    return message


async def fail(message: dict[str, Any]) -> None:
    raise ValueError("no good")


async def odd_fails(message: dict[str, Any]) -> int:
    if message["n"] % 2:
        raise ValueError(f"odd {message['n']}")
    return message["n"]


async def numbered(flows: Flows, task: str, count: int) -> list[Any]:
    return [await flows.creation.sign(task, n=index) for index in range(count)]


async def test_results_come_in_task_order(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """The items may end in any order: the callback receives their results in the order of the tasks."""
    swarm = await flows.creation.swarm(await numbered(flows, "echo", 5), success_callbacks=["done"], closed=True)
    await flows.start(swarm, {"m": 1})
    hatchet.queue.reverse()
    await worker(echo=echo, done=echo).drain()
    assert hatchet.inputs("done") == [{"mageflow_results": [{"n": index, "m": 1} for index in range(5)]}]
    assert await flows.wait(swarm.key) == [{"n": index, "m": 1} for index in range(5)]


async def test_never_more_than_max_concurrency_run(flows: Flows, hatchet: FakeHatchet) -> None:
    """The limit holds for any number of workers, and every item runs."""

    async def slow(message: dict[str, Any]) -> int:
        await asyncio.sleep(0.002)
        return 1

    swarm = await flows.creation.swarm(["slow"] * 60, config=SwarmConfig(max_concurrency=5), closed=True)
    await flows.start(swarm)
    sent = [0]
    workers = [FakeWorker(hatchet, flows, {"slow": slow}, f"w{index}") for index in range(12)]
    running = [0, 0]

    async def counted(message: dict[str, Any]) -> int:
        running[0] += 1
        running[1] = max(running)
        sent[0] += 1
        try:
            return await slow(message)
        finally:
            running[0] -= 1

    for each in workers:
        each.bodies = {"slow": counted}
    await FakeWorkers(workers).drain()
    assert await flows.wait(swarm.key) == [1] * 60
    assert running[1] <= 5


@pytest.mark.parametrize("count", [100, 1000])
async def test_an_item_costs_two_round_trips_and_a_twentieth_of_a_call(
    flows: Flows, hatchet: FakeHatchet, worker: Any, round_trips: RoundTrips, count: int
) -> None:
    """One to admit and one to settle; places are filled twenty at a time.

    The first call starts 30 items and each of the others 20, so 1,000 items need exactly a twentieth. On a busy machine
    twenty items take longer than the second for which a free place waits. Then the next end fills fewer than twenty,
    which is one call more and no fault: here the places wait as long as it takes.
    """
    first = await flows.creation.swarm(["echo"], closed=True)  # teaches the server every script
    await flows.start(first)
    await worker(echo=echo).drain()
    await flows.wait(first.key)
    config = SwarmConfig(refill_linger_ms=60_000)  # a busy machine takes long to free twenty places
    swarm = await flows.creation.swarm(["echo"] * count, config=config, closed=True)
    round_trips.reset()
    triggers = hatchet.triggers
    await flows.start(swarm)
    await worker(echo=echo).drain()
    assert await flows.wait(swarm.key) == [{}] * count
    assert round_trips.by_operation == {"start": 1, "admit": count, "settle": count, "load": 1}
    assert hatchet.triggers - triggers <= count * 0.05


async def test_a_timer_that_is_late_sends_no_item_twice(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """The process stands still for longer than the linger time: the next end and the timer want to fill the places."""
    stops = iter([False, False, True])

    async def stands_still(message: dict[str, Any]) -> Any:
        if next(stops, False):
            time.sleep(0.2)  # noqa: ASYNC251 - so that the timer is late
        return message

    config = SwarmConfig(refill_linger_ms=100)
    swarm = await flows.creation.swarm(["echo"] * 100, config=config, closed=True)
    await flows.start(swarm)
    await worker(echo=stands_still).drain()
    async with asyncio.timeout(60):
        while not (await flows.load(swarm.key)).has_ended:  # what the timer sends may come after the drain
            await asyncio.sleep(0.01)
            await worker(echo=stands_still).drain()
    assert await flows.wait(swarm.key) == [{}] * 100
    assert len(hatchet.runs) == 100
    assert hatchet.triggers > 5, "one call filled fewer than twenty places"


async def test_a_partly_failed_swarm_is_done_with_gaps(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Failures are tolerated as long as one item succeeded; the result of a failed item is null."""
    swarm = await flows.creation.swarm(
        await numbered(flows, "odd_fails", 4), success_callbacks=["done"], error_callbacks=["callback"], closed=True
    )
    await flows.start(swarm)
    await worker(odd_fails=odd_fails, done=echo, callback=echo).drain()
    assert hatchet.inputs("done") == [{"mageflow_results": [0, None, 2, None]}]
    assert not hatchet.inputs("callback")
    loaded = await flows.load(swarm.key)
    assert isinstance(loaded, SwarmSignature)
    assert (loaded.succeeded, loaded.failed, loaded.status) == (2, 2, Status.DONE)


async def test_a_swarm_whose_items_all_failed_has_failed(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """No success callback with an empty list: its error callback receives the last failure."""
    swarm = await flows.creation.swarm(
        ["fail"] * 3, success_callbacks=["done"], error_callbacks=["callback"], closed=True
    )
    await flows.start(swarm)
    await worker(fail=fail, done=echo, callback=echo).drain()
    assert hatchet.by_task() == {"fail": 3, "callback": 1}
    with pytest.raises(FlowFailedError, match="ValueError: no good"):
        await flows.wait(swarm.key)


async def test_an_empty_closed_swarm_is_done(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Its result is the empty list."""
    swarm = await flows.creation.swarm(success_callbacks=["done"], closed=True)
    await flows.start(swarm)
    await worker(done=echo).drain()
    assert hatchet.inputs("done") == [{"mageflow_results": []}]
    assert await flows.wait(swarm.key) == []


async def test_an_open_swarm_waits_to_be_closed(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Without items left it does not end, because more may come."""
    swarm = await flows.creation.swarm(["echo"], success_callbacks=["done"])
    await flows.start(swarm, {"m": 1})
    workers = worker(echo=echo, done=echo)
    await workers.drain()
    assert (await flows.load(swarm.key)).status is Status.ACTIVE
    keys = await swarm.add(["echo", "echo"], {"m": 2, "own": True})
    assert [key.rpartition("#")[2] for key in keys] == ["1", "2"]
    await workers.drain()
    await swarm.close()
    await swarm.close()
    await workers.drain()
    assert hatchet.inputs("done") == [{"mageflow_results": [{"m": 1}, *[{"m": 2, "own": True}] * 2]}]


async def test_a_closed_swarm_takes_no_more(flows: Flows) -> None:
    """Adding to a closed swarm is a typed error."""
    swarm = await flows.creation.swarm(["echo"], closed=True)
    with pytest.raises(SwarmClosedError):
        await flows.swarms.add(swarm.key, "echo")


async def test_a_full_swarm_takes_no_more_and_may_close_itself(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """An addition that does not fit adds nothing; reaching the limit closes the swarm, unless asked not to."""
    swarm = await flows.creation.swarm(["echo"], config=SwarmConfig(max_task_allowed=3))
    with pytest.raises(SwarmFullError, match="3 tasks"):
        await swarm.add(["echo"] * 3)
    loaded = await flows.load(swarm.key)
    assert isinstance(loaded, SwarmSignature)
    assert loaded.total == 1
    await flows.start(swarm)
    await swarm.add(["echo"] * 2)
    await worker(echo=echo).drain()
    assert await flows.wait(swarm.key) == [{}, {}, {}]
    with pytest.raises(SwarmFullError):
        await flows.creation.swarm(["echo"] * 4, config=SwarmConfig(max_task_allowed=3))


async def test_too_many_failures_stop_a_swarm(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """At the n-th failure waiting items are dropped, runs are cancelled, and the error callback runs once."""
    config = SwarmConfig(max_concurrency=4, stop_after_n_failures=2)
    swarm = await flows.creation.swarm(["fail"] * 10, config=config, error_callbacks=["callback"], closed=True)
    await flows.start(swarm)
    await worker(fail=fail, callback=echo).drain()
    states = [run.state for run in hatchet.runs.values() if run.request.task_name == "fail"]
    assert sorted(states) == ["cancelled", "cancelled", "failed", "failed"]
    assert len(hatchet.inputs("callback")) == 1
    assert (await flows.load(swarm.key)).status is Status.FAILED


async def test_chains_and_swarms_are_items_too(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Nested flows take one place each, and their results are in the list."""
    inner = await flows.creation.swarm(["echo", "echo"], closed=True)
    swarm = await flows.creation.swarm([await flows.creation.chain(["echo", "echo"]), "echo", inner], closed=True)
    await flows.start(swarm, {"m": 1})
    await worker(echo=echo).drain()
    assert await flows.wait(swarm.key) == [{"mageflow_results": {"m": 1}}, {"m": 1}, [{"m": 1}, {"m": 1}]]


async def test_a_swarm_is_a_step_of_a_chain(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Every item receives the previous result; the next step receives the list."""
    inner = await flows.creation.swarm(["echo", "echo"], closed=True)
    chain = await flows.creation.chain(["echo", inner, "last"])
    await flows.start(chain, {"m": 1})
    await worker(echo=echo, last=echo).drain()
    assert await flows.wait(chain.key) == {"mageflow_results": [{"mageflow_results": {"m": 1}}] * 2}


async def test_places_that_stay_free_are_filled_in_time(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """A slow swarm does not wait for a whole batch of free places."""
    config = SwarmConfig(max_concurrency=3, refill_linger_ms=30)
    swarm = await flows.creation.swarm(["echo"] * 6, config=config, closed=True)
    await flows.start(swarm)
    working = worker(echo=echo)
    await working.one()
    assert len(hatchet.queue) == 2
    async with asyncio.timeout(60):
        while len(hatchet.queue) < 3:
            await asyncio.sleep(0.005)
    await working.drain()
    assert await flows.wait(swarm.key) == [{}] * 6


async def test_the_next_end_of_an_item_does_not_stop_the_send_of_a_refill(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """A refill is on its way to a slow Hatchet when another item ends. It arrives without a reconciler."""
    config = SwarmConfig(max_concurrency=3, refill_linger_ms=30)
    swarm = await flows.creation.swarm(["echo"] * 8, config=config, closed=True)
    await flows.start(swarm)
    working = worker(echo=echo)
    hatchet.gate = asyncio.Event()
    await working.one()
    async with asyncio.timeout(60):
        while not hatchet.at_gate:
            await asyncio.sleep(0.005)
    await working.one()
    hatchet.gate.set()
    async with asyncio.timeout(20):
        while len(hatchet.runs) < 5:
            await asyncio.sleep(0.005)
    await working.drain()
    assert hatchet.by_task() == {"echo": 8}
    assert await flows.wait(swarm.key) == [{}] * 8


async def test_places_that_nested_flows_free_are_filled_in_time(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """A chain that is an item frees its place like a task: the next item starts after the linger time."""
    config = SwarmConfig(max_concurrency=3, refill_linger_ms=30)
    chains = [await flows.creation.chain(["first", "last"]) for _ in range(3)]
    swarm = await flows.creation.swarm([*chains, "echo", "echo"], config=config, closed=True)
    await flows.start(swarm)
    chain_worker = worker(first=echo, last=echo)
    while not (await flows.load(chains[0].key)).has_ended:
        run = next(run for run in hatchet.queue if run.request.signature_key.startswith(chains[0].key))
        hatchet.queue.remove(run)
        hatchet.queue.appendleft(run)
        await chain_worker.one()
    async with asyncio.timeout(60):
        while not hatchet.inputs("echo"):
            await asyncio.sleep(0.01)
    assert len(hatchet.inputs("echo")) == 1


async def test_bytes_per_item_do_not_grow_with_the_swarm(flows: Flows, port: Any, worker: Any) -> None:
    """One item transfers as many bytes in a swarm of a hundred as in one of ten thousand."""

    async def bytes_of_one_item(count: int) -> float:
        swarm = await flows.creation.swarm(["echo"] * count, closed=True)
        await flows.start(swarm)
        before = await traffic()
        working = worker(echo=echo)
        for _ in range(30):
            await working.one()
        used = await traffic() - before
        await flows.lifecycle.remove(swarm.key)
        working.hatchet.queue.clear()
        return used / 30

    async def traffic() -> int:
        info = await port.command("INFO", "stats")
        text = info if isinstance(info, str) else "\n".join(f"{name}:{value}" for name, value in info.items())
        found = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return int(found["total_net_input_bytes"]) + int(found["total_net_output_bytes"])

    await bytes_of_one_item(50)
    small, large = await bytes_of_one_item(100), await bytes_of_one_item(10_000)
    print(f"bytes per item: {small:.0f} at 100, {large:.0f} at 10,000")
    assert large < small * 1.1
