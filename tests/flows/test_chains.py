"""Chains: results, errors, callbacks, nesting, and what they cost."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from mageflow.errors import FlowDefinitionError, FlowFailedError, SignatureNotFoundError
from mageflow.flows import Flows
from mageflow.signatures import ChainSignature, FailureRecord, ReturnValue, RunIdentity, Status
from mageflow.store import AttemptOutcome
from tests.flows.admitting import admit
from tests.flows.fake_hatchet import FakeHatchet
from tests.store.counting import RoundTrips


class Limited(BaseModel):
    max_concurrency: int


class Number(BaseModel):
    n: ReturnValue[int] = 0
    by: int = 1


async def add(message: dict[str, Any]) -> int:
    return message.get("n", 0) + message.get("by", 1)


async def fail(message: dict[str, Any]) -> None:
    raise ValueError("no good")


async def test_each_step_gets_the_result_of_the_one_before(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """The result arrives in the marked field, beside the values bound to the step and the chain."""
    hatchet.models["add"] = Number
    chain = await flows.creation.chain(["add", await flows.creation.sign("add", by=10), "add"], by=100)
    await flows.start(chain, Number(n=1))
    await worker(add=add).drain()
    assert [each.get("n") for each in hatchet.inputs("add")] == [1, 101, 111]
    assert [each["by"] for each in hatchet.inputs("add")] == [100, 10, 100]
    assert await flows.wait(chain.key) == 211


async def test_a_chain_of_three_costs_seven_round_trips(
    flows: Flows, hatchet: FakeHatchet, worker: Any, round_trips: RoundTrips
) -> None:
    """One to start it, one to admit and one to settle each step; one call to Hatchet per step."""
    chain = await flows.creation.chain(["add", "add", "add"])
    assert round_trips.total <= 2  # one, and one to teach a new server the script
    await _load_scripts(flows, hatchet, worker)
    round_trips.reset()
    triggers = hatchet.triggers
    await flows.start(chain)
    await worker(add=add).drain()
    assert round_trips.by_operation == {"start": 1, "admit": 3, "settle": 3}
    assert hatchet.triggers - triggers == 3


async def _load_scripts(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Run every script once, so that the server knows it."""
    await flows.start(await flows.creation.chain(["add", "add"], name="learn"))
    await worker(add=add).drain()


async def test_a_failed_step_ends_the_chain_and_fires_its_error_callback(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """The callback receives type, message, task, attempt and failed input; the other steps never run."""
    chain = await flows.creation.chain(["add", "fail", "add"], error="callback")
    await flows.start(chain, {"n": 5})
    await worker(add=add, fail=fail, callback=add).drain()
    assert hatchet.by_task() == {"add": 1, "fail": 1, "callback": 1}
    (received,) = hatchet.inputs("callback")
    error = received["mageflow_error"]
    assert (error["type"], error["message"], error["task"], error["attempt"]) == ("ValueError", "no good", "fail", 1)
    assert error["original_message"] == {"n": 5}
    assert error["signature"] == chain.key
    with pytest.raises(FlowFailedError, match="no good"):
        await flows.wait(chain.key)


async def test_a_step_that_succeeds_on_retry_goes_on(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Only the last attempt decides; error callbacks do not run before it."""
    hatchet.retries["flaky"] = 2
    attempts: list[int] = []

    async def flaky(message: dict[str, Any]) -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("not yet")
        return len(attempts)

    chain = await flows.creation.chain(["flaky", "add"], error="callback")
    await flows.start(chain)
    await worker(flaky=flaky, add=add, callback=add).drain()
    assert hatchet.by_task() == {"flaky": 1, "add": 1}
    assert (await flows.load(chain.steps[0])).attempts == 3
    assert (await flows.load(chain.key)).status is Status.DONE


async def test_a_chain_runs_once(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """Starting it again, while it runs or when it is done, changes nothing."""
    chain = await flows.creation.chain(["add", "add"])
    await flows.start(chain)
    await flows.start(chain)
    await worker(add=add).drain()
    assert await flows.start(chain) is Status.DONE
    await worker(add=add).drain()
    assert sum(each.state == "completed" for each in hatchet.runs.values()) == 2


async def test_success_callbacks_of_step_and_chain_fire_once_with_the_result(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """The callbacks of a step run when it is done, those of the chain when the chain is done."""
    step = await flows.creation.sign("add", success_callbacks=["step_done"])
    chain = await flows.creation.chain([step, step], success=["chain_done"])
    await flows.start(chain, {"n": 1})
    await worker(add=add, step_done=add, chain_done=add).drain()
    assert hatchet.by_task() == {"add": 2, "step_done": 2, "chain_done": 1}
    assert [each["mageflow_results"] for each in hatchet.inputs("step_done")] == [2, 1]
    assert hatchet.inputs("chain_done") == [{"mageflow_results": 1}]


async def test_one_signature_may_be_in_many_chains_and_twice_in_one(
    flows: Flows, hatchet: FakeHatchet, worker: Any
) -> None:
    """Members are copies: no chain owns the signature, and the signature does not change."""
    signature = await flows.creation.sign("add", by=1)
    for _ in range(2):
        await flows.start(await flows.creation.chain([signature, signature]))
    await worker(add=add).drain()
    assert sum(each.state == "completed" for each in hatchet.runs.values()) == 4
    assert (await flows.load(signature.key)).status is Status.PENDING


async def test_chains_nest(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """The first step of an inner chain receives the previous result; the next outer step receives the inner result."""
    hatchet.models["add"] = Number
    inner = await flows.creation.chain(["add", "add"], name="inner")
    outer = await flows.creation.chain(["add", inner, "add"], name="outer")
    await flows.start(outer, Number(n=10))
    await worker(add=add).drain()
    assert await flows.wait(outer.key) == 14
    loaded = await flows.load(inner.key)
    assert isinstance(loaded, ChainSignature)
    assert loaded.status is Status.DONE


async def test_a_failing_inner_chain_fails_the_outer_one(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """The error reaches the outer chain, and the callbacks of each level run once."""
    inner = await flows.creation.chain(["fail", "add"], error="inner_failed")
    outer = await flows.creation.chain([inner, "add"], error="outer_failed")
    await flows.start(outer)
    await worker(add=add, fail=fail, inner_failed=add, outer_failed=add).drain()
    assert hatchet.by_task() == {"fail": 1, "inner_failed": 1, "outer_failed": 1}
    assert hatchet.inputs("outer_failed")[0]["mageflow_error"]["type"] == "ValueError"


async def test_an_inner_flow_cannot_be_in_two_chains(flows: Flows, hatchet: FakeHatchet, worker: Any) -> None:
    """A flow runs once and for one parent; the other parent fails with the reason."""
    inner = await flows.creation.chain(["add", "add"])
    first, second = await flows.creation.chain([inner, "add"]), await flows.creation.chain([inner, "add"])
    await flows.start(first)
    await flows.start(second)
    await worker(add=add).drain()
    assert await flows.wait(first.key) == 1
    with pytest.raises(FlowFailedError, match="FlowUnavailable"):
        await flows.wait(second.key)


@pytest.mark.parametrize("tasks", [[], ["add"]])
async def test_a_chain_has_at_least_two_members(flows: Flows, tasks: list[str]) -> None:
    """A chain of one task is refused."""
    with pytest.raises(FlowDefinitionError, match="at least two"):
        await flows.creation.chain(tasks)


async def test_members_that_cannot_be_run_are_refused_at_once(flows: Flows) -> None:
    """An undeclared function, a number, an expired key: a typed error when the chain is created."""
    with pytest.raises(FlowDefinitionError, match="cannot be part of"):
        await flows.creation.chain(["add", 3])
    gone = await flows.creation.sign("add")
    assert await flows.lifecycle.remove(gone.key)
    with pytest.raises(SignatureNotFoundError):
        await flows.creation.chain([gone.key, "add"])


async def test_a_misspelt_parameter_is_not_taken_for_data(flows: Flows, hatchet: FakeHatchet) -> None:
    """A value for a field that the task does not have is refused, with the nearest name."""
    hatchet.models["add"] = Number
    with pytest.raises(FlowDefinitionError, match="did you mean 'success_callbacks'"):
        await flows.creation.sign("add", succes_callbacks=["x"])


async def test_a_callback_under_the_name_of_another_method_is_not_taken_for_data(flows: Flows) -> None:
    """Chains have ``success``, signatures and swarms ``success_callbacks``: the callback would never be sent."""
    callback = await flows.creation.sign("callback")
    for value in (callback, callback.key, ["add", callback]):
        with pytest.raises(FlowDefinitionError, match=r"'success' is no parameter here.*success_callbacks=.*bind="):
            await flows.creation.swarm(success=value)
    with pytest.raises(FlowDefinitionError, match="error_callbacks="):
        await flows.creation.sign("add", on_error=callback)
    with pytest.raises(FlowDefinitionError, match="write success="):
        await flows.creation.chain(["add", "add"], success_callbacks=[callback])

    assert (await flows.creation.swarm(success="yes", error=["x"])).kwargs == {"success": "yes", "error": ["x"]}
    assert (await flows.creation.swarm(bind={"success": callback.key})).kwargs == {"success": callback.key}


async def test_a_limit_of_a_swarm_is_not_taken_for_data(flows: Flows, hatchet: FakeHatchet) -> None:
    """The swarm would have no limit. A field of an item may have the name of one."""
    with pytest.raises(FlowDefinitionError, match=r"write config=SwarmConfig\(max_concurrency=3\), or bind="):
        await flows.creation.swarm(["add"], max_concurrency=3)
    assert (await flows.creation.swarm(["add"], bind={"max_concurrency": 3})).kwargs == {"max_concurrency": 3}
    hatchet.models["add"] = Limited
    assert (await flows.creation.swarm(["add"], max_concurrency=3)).kwargs == {"max_concurrency": 3}


async def test_fields_with_the_names_of_parameters_can_be_bound(flows: Flows) -> None:
    """``bind`` takes any name."""
    signature = await flows.creation.sign("add", bind={"task": 1, "kwargs": 2, "task_identifiers": 3}, name="x")
    assert signature.kwargs == {"task": 1, "kwargs": 2, "task_identifiers": 3, "name": "x"}


async def test_a_failure_that_is_settled_late_counts(flows: Flows, hatchet: FakeHatchet) -> None:
    """After a timeout Hatchet starts the next attempt at once, before the one before is settled."""
    chain = await flows.creation.chain(["add", "add"], error="callback")
    await flows.start(chain)
    run = hatchet.queue.popleft()
    first, second = (RunIdentity(run.id, "step", "worker", attempt, run.request.dedupe_key) for attempt in (1, 2))
    timeout = FailureRecord(type="TaskTimedOut", task="add", outcome="timed_out", at=datetime.now(UTC))
    step = chain.steps[0]
    assert (await admit(flows, step, first)).verdict == "run"
    assert (await admit(flows, step, second)).failed_attempts == 0
    late = await flows.settle(step, first, AttemptOutcome("timed_out", error=timeout, will_retry=True, max_failures=2))
    last = await flows.settle(step, second, AttemptOutcome("timed_out", error=timeout, will_retry=True, max_failures=2))
    assert (late.verdict, last.verdict) == ("stale", "settled")
    assert (await flows.load(chain.key)).status is Status.FAILED
    assert [each["mageflow_error"]["type"] for each in hatchet.inputs("callback")] == ["TaskTimedOut"]
