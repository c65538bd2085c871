"""What a suspension holds back is neither lost nor miscounted, whatever comes in between."""

import asyncio
from typing import Any

import pytest

from mageflow.flows import Flows
from mageflow.signatures import RunIdentity, Status, SwarmConfig
from mageflow.store import AttemptOutcome, Store
from tests.flows.hatchet import Hatchet


async def echo(message: dict[str, Any]) -> Any:
    return message


async def fail(message: dict[str, Any]) -> None:
    raise ValueError("no good")


async def test_a_suspended_chain_counts_the_step_that_ended(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """``step`` is how many steps have succeeded, also before resume lets the next one go."""
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


async def test_a_suspended_swarm_counts_the_items_that_ended(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """Running, succeeded and failed are true at any moment; freed places are filled at resume."""
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


async def test_failures_under_suspension_count_against_the_limit_at_resume(flows: Flows, hatchet: Hatchet) -> None:
    """The failure that reaches the limit ends the swarm when it may go on, and cancels what runs."""
    config = SwarmConfig(max_concurrency=3, stop_after_n_failures=2)
    swarm = await flows.creation.swarm(["one"] * 6, config=config, error_callbacks=["told"], closed=True)
    await flows.start(swarm)
    runs = [await begin(flows, hatchet) for _ in range(3)]
    await swarm.suspend()
    for index in range(2):
        await flows.settle(f"{swarm.key}#{index}", runs[index], AttemptOutcome("failed"))
    assert (await flows.load(swarm.key)).status is Status.SUSPENDED
    assert await swarm.resume() is Status.FAILED
    assert hatchet.runs[runs[2].workflow_run_id].state == "cancelled"
    assert hatchet.by_task() == {"one": 3, "told": 1}


async def begin(flows: Flows, hatchet: Hatchet) -> RunIdentity:
    """Start the body of the queued run."""
    run = hatchet.queue.popleft()
    run.state, run.attempt = "running", 1
    identity = RunIdentity(run.id, f"step-{run.id}", "worker", 1, run.request.dedupe_key)
    assert (await flows.admit(run.request.signature_key, identity)).verdict == "run"
    return identity


@pytest.mark.parametrize("body", [echo, fail])
async def test_interrupt_lets_callbacks_of_what_had_ended_go(
    flows: Flows, hatchet: Hatchet, worker: Any, body: Any
) -> None:
    """A step that ended while its chain was suspended has ended: its own callbacks fire once, interrupt or not."""
    step = await flows.creation.sign("one", success_callbacks=["good"], error_callbacks=["bad"])
    chain = await flows.creation.chain([step, "two"], error="told")

    async def suspends(message: dict[str, Any]) -> Any:
        await chain.suspend()
        return await body(message)

    await flows.start(chain)
    working = worker(one=suspends, good=echo, bad=echo, told=echo)
    await working.drain()
    assert hatchet.by_task() == {"one": 1}
    assert await chain.interrupt() is Status.INTERRUPTED
    await working.drain()
    assert hatchet.by_task() == {"one": 1, "good" if body is echo else "bad": 1, "told": 1}


async def test_interrupt_lets_callbacks_go_that_were_held(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """A callback that was turned away under suspension is a decision that was taken: it runs once."""
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


async def test_interrupting_a_step_ends_the_chain_as_cancelled(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """It counts as that step's cancellation, not as a failure."""
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    await (await flows.load(chain.steps[0])).interrupt()
    assert (await flows.load(chain.key)).status is Status.CANCELLED


async def test_a_nested_flow_started_in_the_moment_of_an_interrupt_is_interrupted(
    flows: Flows, hatchet: Hatchet, store: Store
) -> None:
    """Its parent is interrupted between its start and the word that it was started."""
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
    async with asyncio.timeout(5):
        while not (await flows.load(inner.key)).has_ended:
            await asyncio.sleep(0.02)
            await reconciler.sweep()
    assert (await flows.load(inner.key)).status is Status.INTERRUPTED


async def test_a_nested_flow_that_ends_while_its_parent_is_suspended_is_not_lost(
    flows: Flows, hatchet: Hatchet, worker: Any, store: Store
) -> None:
    """Suspended before it was known that the nested flow had begun: what it came to is kept for resume."""
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


async def test_resume_overtakes_a_suspension_that_was_not_passed_on(
    flows: Flows, hatchet: Hatchet, store: Store
) -> None:
    """The word to a nested flow was late: what was said last is what it obeys."""
    inner = await flows.creation.chain(["one", "one"])
    outer = await flows.creation.chain([inner, "two"])
    await flows.start(outer)
    await store.apply_lifecycle(outer.key, "suspend")  # decided, and not sent
    await store.apply_lifecycle(outer.key, "resume")
    waiting = await store.port.command("HKEYS", f"{outer.key}:outbox")
    assert waiting == [f"!resume:{inner.key}"]


async def test_a_suspended_flow_costs_reconcilers_nothing(flows: Flows, hatchet: Hatchet, store: Store) -> None:
    """With nothing under way it is not looked at until somebody resumes it."""
    chain = await flows.creation.chain(["one", "two"])
    await chain.suspend()
    await flows.start(chain)
    indexed = [await store.port.command("ZCARD", store.keys.due(shard)) for shard in range(16)]
    assert sum(indexed) == 0
