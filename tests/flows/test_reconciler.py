"""Reconcilers finish what dead workers left, and end flows whose worker never comes back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mageflow.errors import StoreUnavailableError
from mageflow.flows import Flows
from mageflow.signatures import RunIdentity, Status, SwarmConfig
from mageflow.store import AttemptOutcome, Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.admitting import admit
from tests.flows.conftest import QUICK, echo, stop, until_ended
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker


async def admitted(hatchet: FakeHatchet, flows: Flows) -> RunIdentity:
    """Start the queued run; its worker then disappears."""
    run = hatchet.queue.popleft()
    run.state, run.attempt = "running", 1
    identity = RunIdentity(run.id, "step", "gone", 1, run.request.dedupe_key)
    assert (await admit(flows, run.request.signature_key, identity)).verdict == "run"
    return identity


async def test_a_dispatch_hatchet_refused_is_sent_later(quick: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Hatchet is away at the dispatch: the step stays succeeded, and the next step is sent later."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    run = hatchet.queue[0]
    hatchet.is_away = True
    await working.one()
    assert run.state == "completed"
    assert not hatchet.queue
    hatchet.is_away = False
    assert await until_ended(quick, chain.key, working) is Status.DONE
    assert working.started.total() == 2


async def test_a_run_that_failed_in_hatchet_unsettled_fails_its_flow(
    quick: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """The worker died in the last attempt: the chain fails as WorkerLost, and its error callback runs."""
    chain = await quick.creation.chain(["one", "two"], error=["callback"])
    await quick.start(chain, {"order": 17})
    await admitted(hatchet, quick)
    hatchet.runs["run-0"].state = "failed"
    assert await until_ended(quick, chain.key) is Status.FAILED
    await FakeWorker(hatchet, quick, {"callback": echo}).drain()
    (received,) = (each["mageflow_error"] for each in hatchet.inputs("callback"))
    assert (received["type"], received["task"], received["original_message"]) == ("WorkerLost", "one", {"order": 17})


async def test_a_run_that_was_cancelled_before_it_began_cancels_its_flow(quick: Flows, hatchet: FakeHatchet) -> None:
    """Cancelled in Hatchet's dashboard while it was queued: no worker took it, and the chain ends."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    await quick.drain()
    hatchet.queue.popleft().state = "cancelled"
    assert await until_ended(quick, chain.key) is Status.CANCELLED


async def test_a_run_that_completed_without_being_settled_keeps_its_output(quick: Flows, hatchet: FakeHatchet) -> None:
    """Redis was away when the task ended, and Hatchet has the output: the next step receives it."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    await admitted(hatchet, quick)
    hatchet.runs["run-0"].state, hatchet.runs["run-0"].output = "completed", '{"n": 7}'
    working = FakeWorker(hatchet, quick, {"two": echo})
    assert await until_ended(quick, chain.key, working) is Status.DONE
    assert [
        run.input for run in hatchet.runs.values() if run.request.task_name == "two" and run.state == "completed"
    ] == [{"mageflow_results": {"n": 7}}]


async def test_the_error_of_the_last_attempt_is_kept(quick: Flows, hatchet: FakeHatchet) -> None:
    """The retry never came: the flow fails with the error that the worker reported."""
    hatchet.retries["one"] = 5

    async def fail(message: dict[str, Any]) -> None:
        raise KeyError("k")

    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    await FakeWorker(hatchet, quick, {"one": fail}).one()
    hatchet.queue.clear()
    hatchet.runs["run-0"].state = "failed"
    assert await until_ended(quick, chain.key) is Status.FAILED
    error = (await quick.load(chain.key)).last_error
    assert error is not None
    assert error.type == "KeyError"


async def test_a_run_that_is_still_running_is_left_alone(quick: Flows, hatchet: FakeHatchet, store: Store) -> None:
    """A long task keeps its flow, and the TTL, as long as Hatchet says it runs."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    identity = await admitted(hatchet, quick)
    await store.port.command("EXPIRE", chain.key, 100)
    alive = 0
    async with asyncio.timeout(60):
        while not alive:
            alive = (await quick.reconciler().sweep()).alive
            await asyncio.sleep(0.01)
    assert (await quick.load(chain.key)).status is Status.ACTIVE
    assert await store.port.command("TTL", chain.key) > 100
    assert (await quick.settle(f"{chain.key}#0", identity, AttemptOutcome("succeeded"))).verdict == "settled"


async def test_a_run_hatchet_lost_is_sent_again_started_or_not(quick: Flows, hatchet: FakeHatchet) -> None:
    """The engine forgot a run that waited for a worker and one that had started: each is sent once more."""
    waiting, begun = await quick.creation.chain(["one", "one"]), await quick.creation.chain(["two", "one"])
    await quick.start(begun)
    await admitted(hatchet, quick)
    await quick.start(waiting)
    await quick.drain()
    hatchet.runs.clear()
    hatchet.queue.clear()
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    assert await until_ended(quick, waiting.key, working) is Status.DONE
    assert await until_ended(quick, begun.key, working) is Status.DONE
    assert hatchet.by_task() == {"one": 3, "two": 1}


async def test_a_task_hatchet_keeps_refusing_fails_its_flow_alone(quick: Flows, hatchet: FakeHatchet) -> None:
    """A run that is refused too often fails; the runs of the same call are not held up by it."""
    hatchet.refused.add("bad")
    swarm = await quick.creation.swarm(["bad", "one", "one"], closed=True)
    await quick.start(swarm)
    working = FakeWorker(hatchet, quick, {"one": echo})
    assert await until_ended(quick, swarm.key, working) is Status.DONE
    assert await quick.wait(swarm.key) == [None, {}, {}]


async def test_an_outage_of_any_length_fails_nothing(quick: Flows, hatchet: FakeHatchet) -> None:
    """An unreachable Hatchet is no refusal: the run is sent when Hatchet is back."""
    hatchet.is_away = True
    chain = await quick.creation.chain(["one", "one"])
    await quick.start(chain)
    reconciler, sent = quick.reconciler(), 0
    async with asyncio.timeout(60):
        while sent < 15:
            await quick._store.port.command("ZADD", chain_index(quick, chain.key), 0, chain.key)
            await asyncio.sleep(0.04)
            await quick._store.port.command("HSET", f"{chain.key}:outbox", "0", outbox_entry(sent))
            sent += (await reconciler.sweep()).sent
    hatchet.is_away = False
    assert await until_ended(quick, chain.key, FakeWorker(hatchet, quick, {"one": echo})) is Status.DONE


def chain_index(flows: Flows, key: str) -> str:
    return flows._store.keys.parse(key).due


def outbox_entry(tries: int) -> str:
    return f'{{"kind":"run","epoch":0,"decided_ms":0,"tries":{tries}}}'


async def test_a_task_no_worker_declares_ends_its_flow_after_three_runs(quick: Flows, hatchet: FakeHatchet) -> None:
    """Hatchet accepts such runs and does not know them: they are sent three times, then the flow fails."""
    hatchet.undeclared["nobody"] = 0
    chain = await quick.creation.chain(["one", "nobody"], error=["callback"])
    await quick.start(chain)
    working = FakeWorker(hatchet, quick, {"one": echo, "callback": echo})
    assert await until_ended(quick, chain.key, working) is Status.FAILED
    await working.drain()
    assert hatchet.undeclared["nobody"] == 3
    (received,) = (each["mageflow_error"] for each in hatchet.inputs("callback"))
    assert (received["type"], received["task"]) == ("UnknownTaskError", "nobody")


async def test_a_task_whose_worker_comes_late_is_run(quick: Flows, hatchet: FakeHatchet) -> None:
    """The worker was deployed after the flow started: the lost run is sent again, and the flow ends well."""
    hatchet.undeclared["late"] = 0
    chain = await quick.creation.chain(["one", "late"])
    await quick.start(chain)
    working, reconciler = FakeWorker(hatchet, quick, {"one": echo, "late": echo}), quick.reconciler()
    async with asyncio.timeout(60):
        while hatchet.undeclared["late"] < 2:
            await reconciler.sweep()
            await working.drain()
            await asyncio.sleep(0.01)
    del hatchet.undeclared["late"]
    assert await until_ended(quick, chain.key, working) is Status.DONE


async def test_an_attempt_lost_with_its_worker_is_no_failed_one(quick: Flows, hatchet: FakeHatchet) -> None:
    """Admission returns the number of failed attempts: Hatchet counts only those against the retries."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    first = await admitted(hatchet, quick)  # and its worker is lost

    async def attempt(number: int) -> int:
        identity = RunIdentity(first.workflow_run_id, "step", "other", number, first.dedupe_key)
        return (await admit(quick, f"{chain.key}#0", identity)).failed_attempts

    async def fail(number: int) -> None:
        identity = RunIdentity(first.workflow_run_id, "step", "other", number, first.dedupe_key)
        await quick.settle(f"{chain.key}#0", identity, AttemptOutcome("retried", will_retry=True))

    assert await attempt(2) == 0
    await fail(2)
    await fail(2)  # its answer was lost, and it is settled again
    assert await attempt(3) == 1
    assert await attempt(4) == 1  # the third was lost too
    await fail(4)
    assert await attempt(5) == 2


async def test_a_tampered_definition_fails_its_flow_and_is_not_run(
    quick: Flows, hatchet: FakeHatchet, store: Store
) -> None:
    """A callback or step that does not validate is a typed failure; it is never executed."""
    chain = await quick.creation.chain(["one", "two"], error=["callback"])
    await store.port.command("HSET", f"{chain.key}:definitions", "1", "T:0:0|gASVBQAAAAAAAACMAWGULg==")
    await quick.start(chain)
    await FakeWorker(hatchet, quick, {"one": echo, "callback": echo}).drain()
    assert (await quick.load(chain.key)).status is Status.FAILED
    assert [each["mageflow_error"]["type"] for each in hatchet.inputs("callback")] == ["SignatureInvalidError"]
    assert hatchet.by_task() == {"one": 1, "callback": 1}


async def test_an_expired_inner_flow_fails_the_outer_one(quick: Flows, hatchet: FakeHatchet) -> None:
    """A nested flow that is gone when its turn comes ends its parent with an error."""
    inner = await quick.creation.chain(["two", "two"])
    chain = await quick.creation.chain(["one", inner])
    await quick.lifecycle.remove(inner.key)
    await quick.start(chain)
    await FakeWorker(hatchet, quick, {"one": echo}).drain()
    assert (await quick.load(chain.key)).status is Status.FAILED


async def test_reconcilers_share_the_work(quick: Flows, hatchet: FakeHatchet) -> None:
    """Ten reconcilers at once send each unsent run once."""
    hatchet.is_away = True
    chains = [await quick.creation.chain(["one", "two"]) for _ in range(20)]
    for chain in chains:
        await quick.start(chain)
    hatchet.is_away = False
    await asyncio.sleep(0.05)
    sweeps = await asyncio.gather(*(quick.reconciler().sweep() for _ in range(10)))
    assert sum(each.sent for each in sweeps) == 20
    assert len(hatchet.runs) == 20


async def test_the_most_overdue_records_are_taken_first(store: Store) -> None:
    """Of all shards: with more due records than a sweep takes, none waits for ever behind those of other shards."""
    for shard in range(16):
        for age in range(8):
            record = f"mageflow:{{test/{shard:x}}}:chain:{age:031x}{shard:x}"
            overdue = age * 16 + shard
            await store.port.command("ZADD", store.keys.due(shard), 1000 - overdue, record)
        await store.port.command("EXPIRE", store.keys.due(shard), 600)
    taken = [key async for key in _taken(store, 50)]
    assert len(set(taken)) == 128
    assert taken == sorted(taken, key=lambda key: (int(key[-32:-1], 16), int(key[-1], 16)), reverse=True)


async def _taken(store: Store, limit: int) -> AsyncIterator[str]:
    while keys := (await store.due(limit, 600.0)).keys:
        for key in keys:
            yield key


async def test_a_hatchet_that_does_not_answer_holds_up_one_visit_only(quick: Flows, hatchet: FakeHatchet) -> None:
    """The connection is open and silent: the sweep gives the visit up, and a later one sends the run."""
    chain = await quick.creation.chain(["one", "two"])
    hatchet.is_away = True
    await quick.start(chain)
    hatchet.is_away, hatchet.gate = False, asyncio.Event()
    reconciler = quick.reconciler()
    reconciler._visit_seconds = 0.3
    async with asyncio.timeout(60):
        while not (await reconciler.sweep()).sent:
            await asyncio.sleep(0.01)
    assert hatchet.at_gate
    assert not hatchet.runs
    hatchet.gate = None
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    assert await until_ended(quick, chain.key, working) is Status.DONE


async def test_records_are_visited_side_by_side_up_to_a_bound(quick: Flows, hatchet: FakeHatchet) -> None:
    """A slow Hatchet delays eight records at a time, not each one behind all others, and every run is sent once."""
    hatchet.is_away = True
    for _ in range(30):
        await quick.start(await quick.creation.chain(["one", "two"]))
    hatchet.is_away, hatchet.gate = False, asyncio.Event()
    await asyncio.sleep(0.05)
    sweep = asyncio.create_task(quick.reconciler().sweep())
    async with asyncio.timeout(60):
        while hatchet.at_gate < 8:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert hatchet.at_gate == 8
    hatchet.gate.set()
    assert (await sweep).sent == 30
    assert len(hatchet.runs) == 30


async def test_an_outage_of_redis_ends_the_sweep_and_begins_no_visit(hatchet: FakeHatchet) -> None:
    """It dies while eight visits go on: they end, and the sweep raises it once."""
    with EmbeddedValkey() as server:
        port = RedisPort(server.url)
        flows = Flows(Store(port, Keys("mageflow", "test"), QUICK), hatchet, hatchet, QUICK)
        hatchet.is_away = True
        for _ in range(30):
            await flows.start(await flows.creation.chain(["one", "two"]))
        hatchet.is_away, hatchet.gate = False, asyncio.Event()
        await asyncio.sleep(0.05)
        sweep = asyncio.create_task(flows.reconciler().sweep())
        async with asyncio.timeout(60):
            while hatchet.at_gate < 8:
                await asyncio.sleep(0.01)
            server.kill()
            hatchet.gate.set()
            with pytest.raises(StoreUnavailableError):
                await sweep
        assert len(hatchet.runs) == 8
        server.start()
        await stop(flows)
        await port.aclose()


async def test_forgotten_places_of_a_swarm_are_filled(quick: Flows, hatchet: FakeHatchet) -> None:
    """The worker whose timer would fill the place died: a reconciler fills it."""
    config = SwarmConfig(max_concurrency=3, refill_linger_ms=10)
    swarm = await quick.creation.swarm(["one"] * 8, config=config, closed=True)
    await quick.start(swarm)
    working = FakeWorker(hatchet, quick, {"one": echo})
    await working.one()
    for task in asyncio.all_tasks():
        if task.get_name() == "mageflow-refill":
            task.cancel()
    assert await until_ended(quick, swarm.key, working) is Status.DONE


async def test_ended_records_leave_the_index(quick: Flows, hatchet: FakeHatchet, store: Store) -> None:
    """Records that are over cost reconcilers nothing."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    await FakeWorker(hatchet, quick, {"one": echo, "two": echo}).drain()
    await asyncio.sleep(0.05)
    await quick.reconciler().sweep()
    indexed = [await store.port.command("ZCARD", store.keys.due(shard)) for shard in range(16)]
    assert sum(indexed) == 0


async def test_the_census_counts_every_record(quick: Flows, hatchet: FakeHatchet, store: Store) -> None:
    """Signatures by kind and status, active flows with the age of the oldest, items by state."""
    await quick.creation.sign("one")
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    swarm = await quick.creation.swarm(["one"] * 5, config=SwarmConfig(max_concurrency=2))
    await quick.start(swarm)
    census = await store.census()
    assert census.signatures["task", "pending"] == census.signatures["chain", "active"] == 1
    assert census.active == {"chain": 1, "swarm": 1}
    assert census.oldest_seconds["chain"] > 0
    assert census.items == {"pending": 3, "running": 2, "done": 0, "failed": 0}
    await quick.lifecycle.remove(chain.key)
    await quick.lifecycle.interrupt(swarm.key)
    census = await store.census()
    assert census.active == {"chain": 0, "swarm": 0}
    assert census.items == {"pending": 0, "running": 0, "done": 0, "failed": 0}
    assert census.signatures["swarm", "interrupted"] == 1
