"""Suspend, resume, interrupt, remove."""

from typing import Any

import pytest

from mageflow.errors import IllegalTransitionError, SignatureNotFoundError
from mageflow.flows import Flows
from mageflow.signatures import RunIdentity, Status, SwarmConfig, TaskSignature
from mageflow.store import AttemptOutcome, Store
from mageflow.types import DispatchRun
from tests.flows.hatchet import Hatchet


async def echo(message: dict[str, Any]) -> Any:
    return message


async def user_run(flows: Flows, hatchet: Hatchet, signature: TaskSignature, message: str = "{}") -> None:
    """What the client does when a user runs a signature."""
    request = DispatchRun(signature.task_name, message, signature.key, flows.new_run_key(signature))
    await hatchet.dispatch([request])


async def test_a_suspended_chain_goes_on_where_it_was(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """What succeeded does not run again; the step that was waiting runs with its whole input."""
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


async def test_a_body_that_ends_while_suspended_is_not_lost(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """Its result is kept; the next step waits for resume and then runs once."""
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


async def test_a_chain_suspended_before_it_began_begins_at_resume(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """The message of the start is kept."""
    chain = await flows.creation.chain(["one", "two"])
    await chain.suspend()
    assert await flows.start(chain, {"m": 1}) is Status.SUSPENDED
    assert not hatchet.queue
    await chain.resume()
    await worker(one=echo, two=echo).drain()
    assert hatchet.inputs("one") == [{"m": 1}]


async def test_a_users_run_that_arrives_while_suspended_keeps_its_message(
    flows: Flows, hatchet: Hatchet, worker: Any
) -> None:
    """Resume runs it with what it was sent, not with nothing; two runs are two runs."""
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


async def test_resume_while_the_body_runs_starts_no_second_one(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """Suspend and resume around a running body are no second run."""
    signature = await flows.creation.sign("one", success_callbacks=["done"])

    async def body(message: dict[str, Any]) -> int:
        await signature.suspend()
        assert await signature.resume() is Status.ACTIVE
        return 1

    await user_run(flows, hatchet, signature)
    working = worker(one=body, done=echo)
    await working.drain()
    assert hatchet.by_task() == {"one": 1, "done": 1}


async def test_a_suspended_swarm_starts_nothing_and_leaks_no_place(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """Queued items are turned away, added ones wait; resume runs each once within the limit."""
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


async def test_interrupt_cancels_what_runs_and_tells_once(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """Runs are cancelled in Hatchet, error callbacks fire once, and a late result changes nothing."""
    chain = await flows.creation.chain(["one", "two"], error=["told"])

    async def body(message: dict[str, Any]) -> int:
        assert await chain.interrupt(by="ops", why="wrong file") is Status.INTERRUPTED
        assert await chain.interrupt() is Status.INTERRUPTED
        return 1

    await flows.start(chain)
    working = worker(one=body, two=echo, told=echo)
    await working.drain()
    assert hatchet.by_task() == {"one": 1, "told": 1}
    assert next(iter(hatchet.runs.values())).state == "cancelled"
    error = hatchet.inputs("told")[0]["mageflow_error"]
    assert (error["type"], error["message"]) == ("TaskInterrupted", "wrong file")
    assert (await flows.load(chain.key)).status is Status.INTERRUPTED
    with pytest.raises(IllegalTransitionError, match="cannot resume"):
        await chain.resume()


async def test_interrupt_of_a_swarm_drops_what_waits(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """Queued runs are cancelled, items that were not sent never are."""
    swarm = await flows.creation.swarm(["one"] * 9, config=SwarmConfig(max_concurrency=3))
    await flows.start(swarm)
    await swarm.interrupt()
    working = worker(one=echo)
    await working.drain()
    assert working.started.total() == 0
    assert len(hatchet.runs) == 3


async def test_an_interrupted_signature_admits_no_run(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """A run that was queued when it was interrupted ends visibly cancelled."""
    signature = await flows.creation.sign("one")
    await user_run(flows, hatchet, signature)
    await signature.interrupt()
    working = worker(one=echo)
    await working.drain()
    assert working.skipped == {"interrupted": 1}


@pytest.mark.parametrize("verb", ["suspend", "resume", "interrupt"])
async def test_what_is_done_cannot_be_brought_back(flows: Flows, hatchet: Hatchet, worker: Any, verb: str) -> None:
    """No verb re-runs or changes what has ended; the error says where it stands."""
    chain = await flows.creation.chain(["one", "one"])
    await flows.start(chain)
    await worker(one=echo).drain()
    with pytest.raises(IllegalTransitionError, match=f"cannot {verb} .* it is done"):
        await getattr(chain, verb)()
    assert len(hatchet.runs) == 2


@pytest.mark.parametrize("verb", ["suspend", "resume", "interrupt"])
async def test_an_unknown_key_is_a_typed_error(flows: Flows, verb: str) -> None:
    """Expired and removed are the same to a caller, and neither is an AttributeError."""
    signature = await flows.creation.sign("one")
    assert await signature.remove()
    assert not await signature.remove()
    with pytest.raises(SignatureNotFoundError):
        await getattr(signature, verb)()


async def test_removing_leaves_nothing_behind(flows: Flows, hatchet: Hatchet, store: Store, worker: Any) -> None:
    """Every key is gone, what was live is cancelled, a run that still arrives fails as not found."""
    swarm = await flows.creation.swarm(["one"] * 4, config=SwarmConfig(max_concurrency=2))
    await flows.start(swarm)
    await flows.drain()
    assert await swarm.remove()
    assert [run.state for run in hatchet.runs.values()] == ["cancelled", "cancelled"]
    keys = await store.port.command("KEYS", f"{swarm.key}*")
    assert keys == []
    with pytest.raises(SignatureNotFoundError):
        await flows.admit(f"{swarm.key}#0", RunIdentity("run"))
    assert (await flows.settle(f"{swarm.key}#0", RunIdentity("run"), AttemptOutcome("succeeded"))).verdict == "gone"


async def test_nested_flows_obey_with_their_parent(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """Suspending, resuming and interrupting reach the flow that runs inside."""
    inner = await flows.creation.chain(["one", "one"])
    outer = await flows.creation.chain([inner, "one"])
    await flows.start(outer)
    await outer.suspend()
    assert (await flows.load(inner.key)).status is Status.SUSPENDED
    await outer.resume()
    assert (await flows.load(inner.key)).status is Status.ACTIVE
    await outer.interrupt()
    assert (await flows.load(inner.key)).status is Status.INTERRUPTED


async def test_one_step_can_be_suspended_ahead(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """The chain stops in front of it and goes on when it is resumed."""
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


async def test_interrupting_a_step_cancels_the_chain(flows: Flows, hatchet: Hatchet, worker: Any) -> None:
    """It counts as that step's cancellation."""
    chain = await flows.creation.chain(["one", "two"], error="told")
    await flows.start(chain)
    await (await flows.load(chain.steps[0])).interrupt(why="stop")
    await worker(one=echo, two=echo, told=echo).drain()
    assert (await flows.load(chain.key)).status is not Status.ACTIVE
    assert len(hatchet.inputs("told")) == 1
