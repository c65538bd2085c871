"""Work that a suspension holds back is neither lost nor counted wrong."""

import asyncio
from typing import Any

import pytest

from mageflow.flows import Flows
from mageflow.signatures import RunIdentity, Status, SwarmConfig
from mageflow.store import AttemptOutcome, Store
from mageflow.types import DispatchRun
from tests.flows.admitting import admit
from tests.flows.fake_hatchet import FakeHatchet


async def echo(message: dict[str, Any]) -> Any:
    return message


async def fail(message: dict[str, Any]) -> None:
    raise ValueError("no good")


async def test_a_suspended_chain_counts_the_step_that_ended(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """``step`` is the number of steps that have succeeded, also before resume."""
    chain = await flows.creation.chain(["one", "two"])

    async def suspends(message: dict[str, Any]) -> Any:
        await chain.suspend()
        return {}

    await flows.start(chain)
    working = worker(one=suspends, two=echo)
    await working.drain()
    loaded = await flows.load(chain.key)
    assert (loaded.status, loaded.step) == (Status.SUSPENDED, 1)
    assert hatchet.by_task() == {"one": 1}
    await chain.resume()
    assert (await flows.load(chain.key)).step == 1
    await working.drain()
    loaded = await flows.load(chain.key)
    assert (loaded.status, loaded.step) == (Status.DONE, 2)


async def test_a_suspended_swarm_counts_the_items_that_ended(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Running, succeeded and failed are right at any moment; free places are filled at resume."""
    config = SwarmConfig(max_concurrency=3, refill_linger_ms=0)
    swarm = await flows.creation.swarm(["one", "bad", "one", "one", "one"], config=config, closed=True)
    await flows.start(swarm)
    runs = [await begin(flows, hatchet) for _ in range(3)]
    await swarm.suspend()
    await flows.settle(f"{swarm.key}#0", runs[0], AttemptOutcome("succeeded"))
    await flows.settle(f"{swarm.key}#1", runs[1], AttemptOutcome("failed"))
    loaded = await flows.load(swarm.key)
    assert (loaded.running, loaded.succeeded, loaded.failed, loaded.pending) == (1, 1, 1, 2)
    assert not hatchet.queue
    await swarm.resume()
    assert len(hatchet.queue) == 2
    await flows.settle(f"{swarm.key}#2", runs[2], AttemptOutcome("succeeded"))
    await worker(one=echo).drain()
    loaded = await flows.load(swarm.key)
    assert (loaded.status, loaded.running, loaded.succeeded, loaded.failed) == (Status.DONE, 0, 4, 1)


async def test_failures_under_suspension_count_against_the_limit_at_resume(flows: Flows, hatchet: FakeHatchet) -> None:
    """The failure that reaches the limit ends the swarm at resume and cancels its runs."""
    config = SwarmConfig(max_concurrency=3, stop_after_n_failures=2)
    swarm = await flows.creation.swarm(["one"] * 6, config=config, error_callbacks=["callback"], closed=True)
    await flows.start(swarm)
    runs = [await begin(flows, hatchet) for _ in range(3)]
    await swarm.suspend()
    for index in range(2):
        await flows.settle(f"{swarm.key}#{index}", runs[index], AttemptOutcome("failed"))
    assert (await flows.load(swarm.key)).status is Status.SUSPENDED
    assert await swarm.resume() is Status.FAILED
    assert hatchet.runs[runs[2].workflow_run_id].state == "cancelled"
    assert hatchet.by_task() == {"one": 3, "callback": 1}


async def begin(flows: Flows, hatchet: FakeHatchet) -> RunIdentity:
    """Start the task function of the queued run."""
    run = hatchet.queue.popleft()
    run.state, run.attempt = "running", 1
    identity = RunIdentity(run.id, f"step-{run.id}", "worker", 1, run.request.dedupe_key)
    assert (await admit(flows, run.request.signature_key, identity)).verdict == "run"
    return identity


@pytest.mark.parametrize("body", [echo, fail])
async def test_interrupt_releases_callbacks_of_ended_steps(
    flows: Flows, hatchet: FakeHatchet, worker: Any, body: Any
) -> None:
    """A step that ended while its chain was suspended has ended: its callbacks run once."""
    step = await flows.creation.sign("one", success_callbacks=["good"], error_callbacks=["bad"])
    chain = await flows.creation.chain([step, "two"], error="callback")

    async def suspends(message: dict[str, Any]) -> Any:
        await chain.suspend()
        return await body(message)

    await flows.start(chain)
    working = worker(one=suspends, good=echo, bad=echo, callback=echo)
    await working.drain()
    assert hatchet.by_task() == {"one": 1}
    assert await chain.interrupt() is Status.INTERRUPTED
    await working.drain()
    assert hatchet.by_task() == {"one": 1, "good" if body is echo else "bad": 1, "callback": 1}


async def test_interrupt_releases_held_callbacks(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """A callback that a suspension turned away was decided before: it runs once."""
    step = await flows.creation.sign("one", success_callbacks=["good"])
    chain = await flows.creation.chain([step, "two"])
    await flows.start(chain)
    working = worker(one=echo, two=echo, good=echo)
    await working.one()
    await chain.suspend()
    await working.drain()
    assert working.skipped == {"suspended": 2}
    await chain.interrupt()
    await working.drain()
    assert (await flows.load(f"{chain.key}#0.s0")).status is Status.DONE
    assert [key for key in working.started if key.endswith(":good")] != []
    assert working.started.total() == 2


async def test_interrupting_a_step_ends_the_chain_as_cancelled(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """It counts as the cancellation of that step, not as a failure."""
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    await (await flows.load(chain.steps[0])).interrupt()
    assert (await flows.load(chain.key)).status is Status.CANCELLED


async def test_a_nested_flow_started_in_the_moment_of_an_interrupt_is_interrupted(
    flows: Flows, hatchet: FakeHatchet, store: Store
) -> None:
    """Its parent is interrupted between its start and the acknowledgement of the start."""
    inner = await flows.creation.chain(["one", "one"])
    outer = await flows.creation.chain([inner, "two"])
    acknowledge = store.acknowledge

    async def interrupted(*args: Any) -> None:
        store.acknowledge = acknowledge  # type: ignore[method-assign]
        await flows.lifecycle.interrupt(outer.key)
        await acknowledge(*args)

    store.acknowledge = interrupted  # type: ignore[method-assign]
    await flows.start(outer)
    reconciler = flows.reconciler()
    async with asyncio.timeout(60):
        while not (await flows.load(inner.key)).has_ended:
            await asyncio.sleep(0.02)
            await reconciler.sweep()
    assert (await flows.load(inner.key)).status is Status.INTERRUPTED


async def test_a_nested_flow_that_ends_while_its_parent_is_suspended_is_not_lost(
    flows: Flows, hatchet: FakeHatchet, worker: Any, store: Store
) -> None:
    """Its parent was suspended before the start was acknowledged: the result is kept for resume."""
    inner = await flows.creation.chain(["one", "one"])
    outer = await flows.creation.chain([inner, "two"])
    acknowledge = store.acknowledge

    async def suspended(*args: Any) -> None:
        store.acknowledge = acknowledge  # type: ignore[method-assign]
        await flows.lifecycle.suspend(outer.key)
        await acknowledge(*args)

    store.acknowledge = suspended  # type: ignore[method-assign]
    await flows.start(outer, {"m": 1})
    working = worker(one=echo, two=echo)
    await working.drain()
    assert (await flows.load(inner.key)).status is Status.DONE
    await outer.resume()
    await working.drain()
    assert (await flows.load(outer.key)).status is Status.DONE
    assert working.started.total() == 3


async def test_resume_overtakes_a_suspension_of_a_nested_flow(flows: Flows, hatchet: FakeHatchet, store: Store) -> None:
    """The suspension reaches the nested flow late: the last action wins."""
    inner = await flows.creation.chain(["one", "one"])
    outer = await flows.creation.chain([inner, "two"])
    await flows.start(outer)
    await store.apply_lifecycle(outer.key, "suspend")  # decided, and not sent
    await store.apply_lifecycle(outer.key, "resume")
    waiting = await store.port.command("HKEYS", f"{outer.key}:outbox")
    assert waiting == [f"!resume:{inner.key}"]


async def test_a_suspended_flow_costs_reconcilers_nothing(flows: Flows, hatchet: FakeHatchet, store: Store) -> None:
    """With no live run it is not visited until it is resumed."""
    chain = await flows.creation.chain(["one", "two"])
    await chain.suspend()
    await flows.start(chain)
    indexed = [await store.port.command("ZCARD", store.keys.due(shard)) for shard in range(16)]
    assert sum(indexed) == 0


async def test_a_suspended_callback_of_a_signature_waits_in_every_run(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """Its key holds it back, whichever run it belongs to; at resume each run's callback runs once."""
    signature = await flows.creation.sign("one", success_callbacks=["callback"], n=1)
    working = worker(one=echo, callback=echo)
    assert await flows.lifecycle.suspend(signature.success_callbacks[0]) is Status.SUSPENDED
    for _ in range(2):
        await hatchet.dispatch([DispatchRun("one", "{}", signature.key, flows.new_run_key(signature))])
    await working.drain()
    assert hatchet.by_task() == {"one": 2}
    await flows.lifecycle.resume(signature.success_callbacks[0])
    await working.drain()
    assert hatchet.by_task() == {"one": 2, "callback": 2}
    await hatchet.dispatch([DispatchRun("one", "{}", signature.key, flows.new_run_key(signature))])
    await working.drain()
    assert hatchet.by_task() == {"one": 3, "callback": 3}


async def test_a_suspended_member_that_is_a_flow_suspends_the_flow(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """Its steps wait, and go on when the member is resumed."""
    inner = await flows.creation.chain(["one", "two"])
    outer = await flows.creation.chain([inner, "three"])
    await flows.start(outer)
    await flows.lifecycle.suspend(f"{outer.key}#0")
    working = worker(one=echo, two=echo, three=echo)
    await working.drain()
    assert (await flows.load(inner.key)).status is Status.SUSPENDED
    assert working.started == {}
    await flows.lifecycle.resume(f"{outer.key}#0")
    await working.drain()
    assert (await flows.load(outer.key)).status is Status.DONE
