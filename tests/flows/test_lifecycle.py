"""Suspend, resume, interrupt, remove."""

from typing import Any

import pytest

from mageflow.errors import IllegalTransitionError, SignatureNotFoundError
from mageflow.flows import Flows
from mageflow.signatures import RunIdentity, Status, SwarmConfig, TaskSignature
from mageflow.store import AttemptOutcome, Store
from mageflow.types import DispatchRun
from tests.flows.admitting import admit
from tests.flows.fake_hatchet import FakeHatchet


async def echo(message: dict[str, Any]) -> Any:
    return message


async def user_run(flows: Flows, hatchet: FakeHatchet, signature: TaskSignature, message: str = "{}") -> None:
    """Run a signature as the client does for a user."""
    request = DispatchRun(signature.task_name, message, signature.key, flows.new_run_key(signature))
    await hatchet.dispatch([request])


async def test_a_suspended_chain_resumes_where_it_was(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Steps that succeeded do not run again; the waiting step runs with its whole input."""
    chain = await flows.creation.chain(["one", "two", "three"])
    await flows.start(chain, {"m": 1})
    working = worker(one=echo, two=echo, three=echo)
    await working.one()
    assert await chain.suspend(by="ops", why="maintenance") is Status.SUSPENDED
    assert await chain.suspend() is Status.SUSPENDED
    await working.drain()
    assert working.skipped == {"suspended": 1}
    assert await chain.resume() is Status.ACTIVE
    assert await chain.resume() is Status.ACTIVE
    await working.drain()
    assert hatchet.by_task() == {"one": 1, "two": 2, "three": 1}
    assert working.started.total() == 3
    assert await flows.wait(chain.key) == {"mageflow_results": {"mageflow_results": {"m": 1}}}
    history = [(each.status, each.by, each.why) for each in (await flows.load(chain.key)).history]
    assert history[2] == (Status.SUSPENDED, "ops", "maintenance")
    assert [status for status, _, _ in history] == ["pending", "active", "suspended", "active", "done"]


async def test_a_body_that_ends_while_suspended_is_not_lost(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Its result is stored; the next step waits for resume and then runs once."""
    chain = await flows.creation.chain(["one", "two"])

    async def suspends(message: dict[str, Any]) -> Any:
        await chain.suspend()
        return {"kept": True}

    await flows.start(chain)
    working = worker(one=suspends, two=echo)
    await working.drain()
    assert hatchet.by_task() == {"one": 1}
    await chain.resume()
    await working.drain()
    assert await flows.wait(chain.key) == {"mageflow_results": {"kept": True}}
    assert working.started.total() == 2


async def test_a_chain_suspended_before_it_started_starts_at_resume(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """The message of the start is kept."""
    chain = await flows.creation.chain(["one", "two"])
    await chain.suspend()
    assert await flows.start(chain, {"m": 1}) is Status.SUSPENDED
    assert not hatchet.queue
    await chain.resume()
    await worker(one=echo, two=echo).drain()
    assert hatchet.inputs("one") == [{"m": 1}]


async def test_a_users_run_that_arrives_while_suspended_keeps_its_message(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """Resume runs it with its own message; two held runs are two runs."""
    signature = await flows.creation.sign("one")
    working = worker(one=echo)
    await signature.suspend()
    await user_run(flows, hatchet, signature, '{"x": 42}')
    await user_run(flows, hatchet, signature, '{"x": 43}')
    await working.drain()
    assert working.started.total() == 0
    assert await signature.resume() is Status.PENDING
    await working.drain()
    assert [run.input for run in hatchet.runs.values() if run.state == "completed"] == [{"x": 42}, {"x": 43}]
    assert (await flows.load(signature.key)).status is Status.DONE


async def test_resume_while_the_body_runs_starts_no_second_one(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Suspend and resume during a running task function start no second run."""
    signature = await flows.creation.sign("one", success_callbacks=["done"])

    async def body(message: dict[str, Any]) -> int:
        await signature.suspend()
        assert await signature.resume() is Status.ACTIVE
        return 1

    await user_run(flows, hatchet, signature)
    working = worker(one=body, done=echo)
    await working.drain()
    assert hatchet.by_task() == {"one": 1, "done": 1}


async def test_a_suspended_swarm_starts_nothing_and_leaks_no_place(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """Queued items are turned away and added ones wait; resume runs each once, within the limit."""
    swarm = await flows.creation.swarm(["one"] * 6, config=SwarmConfig(max_concurrency=3, refill_linger_ms=0))
    await flows.start(swarm)
    working = worker(one=echo)
    await working.one()
    await swarm.suspend()
    await swarm.add("one")
    await working.drain()
    assert working.started.total() == 1
    await swarm.resume()
    assert len(hatchet.queue) <= 3
    await swarm.close()
    await working.drain()
    assert await flows.wait(swarm.key) == [{}] * 7
    assert working.started.total() == 7


async def test_interrupt_cancels_runs_and_calls_back_once(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Runs are cancelled in Hatchet, error callbacks run once, and a late result changes nothing."""
    chain = await flows.creation.chain(["one", "two"], error=["callback"])

    async def body(message: dict[str, Any]) -> int:
        assert await chain.interrupt(by="ops", why="wrong file") is Status.INTERRUPTED
        assert await chain.interrupt() is Status.INTERRUPTED
        return 1

    await flows.start(chain)
    working = worker(one=body, two=echo, callback=echo)
    await working.drain()
    assert hatchet.by_task() == {"one": 1, "callback": 1}
    assert next(iter(hatchet.runs.values())).state == "cancelled"
    error = hatchet.inputs("callback")[0]["mageflow_error"]
    assert (error["type"], error["message"]) == ("TaskInterrupted", "wrong file")
    assert (await flows.load(chain.key)).status is Status.INTERRUPTED
    with pytest.raises(IllegalTransitionError, match="cannot resume"):
        await chain.resume()


async def test_interrupt_of_a_swarm_drops_waiting_items(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Queued runs are cancelled, and waiting items are never sent."""
    swarm = await flows.creation.swarm(["one"] * 9, config=SwarmConfig(max_concurrency=3))
    await flows.start(swarm)
    await swarm.interrupt()
    working = worker(one=echo)
    await working.drain()
    assert working.started.total() == 0
    assert len(hatchet.runs) == 3


async def test_an_interrupted_signature_admits_no_run(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """A run that was queued at the interruption ends as cancelled."""
    signature = await flows.creation.sign("one")
    await user_run(flows, hatchet, signature)
    await signature.interrupt()
    working = worker(one=echo)
    await working.drain()
    assert working.skipped == {"interrupted": 1}


@pytest.mark.parametrize("action", ["suspend", "resume", "interrupt"])
async def test_an_ended_flow_cannot_be_changed(flows: Flows, hatchet: FakeHatchet, worker: Any, action: str) -> None:
    """No action runs it again or changes it; the error says which status it has."""
    chain = await flows.creation.chain(["one", "one"])
    await flows.start(chain)
    await worker(one=echo).drain()
    with pytest.raises(IllegalTransitionError, match=f"cannot {action} .* it is done"):
        await getattr(chain, action)()
    assert len(hatchet.runs) == 2


@pytest.mark.parametrize("action", ["suspend", "resume", "interrupt"])
async def test_an_unknown_key_is_a_typed_error(flows: Flows, action: str) -> None:
    """An expired key and a removed key give the same error."""
    signature = await flows.creation.sign("one")
    assert await signature.remove()
    assert not await signature.remove()
    with pytest.raises(SignatureNotFoundError):
        await getattr(signature, action)()


async def test_removing_leaves_nothing_behind(flows: Flows, hatchet: FakeHatchet, store: Store, worker: Any) -> None:
    """Every key is gone, live runs are cancelled, and a run that arrives later fails as not found."""
    swarm = await flows.creation.swarm(["one"] * 4, config=SwarmConfig(max_concurrency=2))
    await flows.start(swarm)
    await flows.drain()
    assert await swarm.remove()
    assert [run.state for run in hatchet.runs.values()] == ["cancelled", "cancelled"]
    keys = await store.port.command("KEYS", f"{swarm.key}*")
    assert keys == []
    with pytest.raises(SignatureNotFoundError):
        await admit(flows, f"{swarm.key}#0", RunIdentity("run"))
    assert (await flows.settle(f"{swarm.key}#0", RunIdentity("run"), AttemptOutcome("succeeded"))).verdict == "gone"


async def test_actions_reach_nested_flows(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Suspend, resume and interrupt apply to the running nested flow."""
    inner = await flows.creation.chain(["one", "one"])
    outer = await flows.creation.chain([inner, "one"])
    await flows.start(outer)
    await outer.suspend()
    assert (await flows.load(inner.key)).status is Status.SUSPENDED
    await outer.resume()
    assert (await flows.load(inner.key)).status is Status.ACTIVE
    await outer.interrupt()
    assert (await flows.load(inner.key)).status is Status.INTERRUPTED


async def test_one_step_can_be_suspended_ahead(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """The chain stops before it and continues when it is resumed."""
    chain = await flows.creation.chain(["one", "two"])
    step = await flows.load(chain.steps[1])
    await step.suspend()
    await flows.start(chain)
    working = worker(one=echo, two=echo)
    await working.drain()
    assert hatchet.by_task() == {"one": 1}
    await step.resume()
    await working.drain()
    assert await flows.wait(chain.key) == {"mageflow_results": {}}


async def test_interrupting_a_step_cancels_the_chain(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """The interruption counts as the cancellation of that step."""
    chain = await flows.creation.chain(["one", "two"], error="callback")
    await flows.start(chain)
    await (await flows.load(chain.steps[0])).interrupt(why="stop")
    await worker(one=echo, two=echo, callback=echo).drain()
    assert (await flows.load(chain.key)).status is not Status.ACTIVE
    assert len(hatchet.inputs("callback")) == 1
