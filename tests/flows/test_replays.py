"""A failed run that is replayed in Hatchet runs again, and its flow continues from there."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mageflow.flows import Flows
from mageflow.signatures import FailureRecord, RunIdentity, Status, SwarmConfig, TaskSignature
from mageflow.store import Admission, AttemptOutcome
from mageflow.types import DispatchRun
from tests.flows.admitting import admit
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker, Run


class Body:
    """A task function that fails until it is repaired."""

    def __init__(self) -> None:
        self.is_mended = False
        self.began = 0

    async def __call__(self, message: dict[str, Any]) -> Any:
        self.began += 1
        if not self.is_mended:
            raise ValueError("not yet")
        return {"mended": True}


async def echo(message: dict[str, Any]) -> Any:
    return message


def replay(hatchet: FakeHatchet, task: str, which: int = 0) -> Run:
    """Replay a run as Hatchet does: the same run, its next attempt."""
    run = [run for run in hatchet.runs.values() if run.request.task_name == task][which]
    run.state, run.output, run.error = "queued", None, ""
    run.replayed_after = run.attempt
    hatchet.queue.append(run)
    return run


async def arrive(flows: Flows, run: Run, attempt: int, step: str = "") -> Admission:
    identity = RunIdentity(run.id, step or f"step-{run.id}", "worker", attempt, run.request.dedupe_key)
    return await admit(flows, run.request.signature_key, identity)


async def run_by_user(flows: Flows, hatchet: FakeHatchet, signature: TaskSignature) -> None:
    await hatchet.dispatch([DispatchRun(signature.task_name, "{}", signature.key, flows.new_run_key(signature))])


async def test_a_replayed_signature_runs_again(flows: Flows, hatchet: FakeHatchet) -> None:
    """Its status follows; the success callback runs now, and the error callback does not run again."""
    body = Body()
    signature = await flows.creation.sign("body", success_callbacks=["good"], error_callbacks=["bad"])
    await run_by_user(flows, hatchet, signature)
    working = FakeWorker(hatchet, flows, {"body": body, "good": echo, "bad": echo})
    await working.drain()
    assert (await flows.load(signature.key)).status is Status.FAILED
    replay(hatchet, "body")
    await working.drain()
    body.is_mended = True
    replay(hatchet, "body")
    await working.drain()
    assert (await flows.load(signature.key)).status is Status.DONE
    assert body.began == 3
    assert hatchet.by_task() == {"body": 1, "bad": 1, "good": 1}


async def test_a_chain_continues_from_its_replayed_step(flows: Flows, hatchet: FakeHatchet) -> None:
    """It is active again and ends a second time; the remaining callbacks run once each."""
    body = Body()
    chain = await flows.creation.chain(["one", "body", "two"], success="good", error="bad")
    await flows.start(chain, {"m": 1})
    working = FakeWorker(hatchet, flows, {"one": echo, "body": body, "two": echo, "good": echo, "bad": echo})
    await working.drain()
    assert (await flows.load(chain.key)).status is Status.FAILED
    body.is_mended = True
    replay(hatchet, "body")
    await working.drain()
    assert await flows.wait(chain.key) == {"mageflow_results": {"mended": True}}
    assert hatchet.by_task() == {"one": 1, "body": 1, "two": 1, "good": 1, "bad": 1}
    history = [(entry.status, entry.why) for entry in (await flows.load(chain.key)).history]
    assert history[2:] == [("failed", ""), ("active", "replayed in Hatchet: 1"), ("done", "")]


async def test_a_replayed_step_that_fails_again_fails_its_chain_again(flows: Flows, hatchet: FakeHatchet) -> None:
    """It can be replayed once more; its error callbacks have run already."""
    body = Body()
    chain = await flows.creation.chain(["body", "two"], error="bad")
    await flows.start(chain)
    working = FakeWorker(hatchet, flows, {"body": body, "two": echo, "bad": echo})
    await working.drain()
    for _ in range(2):
        replay(hatchet, "body")
        await working.drain()
        assert (await flows.load(chain.key)).status is Status.FAILED
    body.is_mended = True
    replay(hatchet, "body")
    await working.drain()
    assert (await flows.load(chain.key)).status is Status.DONE
    assert hatchet.by_task() == {"body": 1, "two": 1, "bad": 1}


async def test_a_replayed_step_counts_its_retries_anew(flows: Flows, hatchet: FakeHatchet) -> None:
    """As Hatchet does: failures before the replay do not count."""
    hatchet.retries["body"] = 1
    chain = await flows.creation.chain(["body", "two"])
    await flows.start(chain)
    await FakeWorker(hatchet, flows, {"body": Body()}).drain()
    assert (await flows.load(chain.key)).status is Status.FAILED
    admission = await arrive(flows, replay(hatchet, "body"), 3)
    assert (admission.verdict, admission.failed_attempts) == ("run", 0)


async def test_a_replayed_step_of_a_nested_chain_reopens_its_parents(flows: Flows, hatchet: FakeHatchet) -> None:
    """Its success reopens each flow above it in turn."""
    body = Body()
    inner = await flows.creation.chain(["one", "body"])
    middle = await flows.creation.chain([inner, "two"])
    outer = await flows.creation.chain([middle, "three"], success="good", error="bad")
    await flows.start(outer)
    names = ("one", "two", "three", "good", "bad")
    working = FakeWorker(hatchet, flows, {"body": body, **dict.fromkeys(names, echo)})
    await working.drain()
    assert (await flows.load(outer.key)).status is Status.FAILED
    body.is_mended = True
    replay(hatchet, "body")
    await working.drain()
    assert [str((await flows.load(each.key)).status) for each in (inner, middle, outer)] == ["done"] * 3
    assert hatchet.by_task() == {"one": 1, "body": 1, "two": 1, "three": 1, "good": 1, "bad": 1}


async def test_an_item_is_replayed_while_its_swarm_is_active(flows: Flows, hatchet: FakeHatchet) -> None:
    """It counts as running and no longer as failed, and its result takes its place."""
    body = Body()
    swarm = await flows.creation.swarm(["one", "body", "one"], config=SwarmConfig(max_concurrency=2))
    await flows.start(swarm)
    working = FakeWorker(hatchet, flows, {"one": echo, "body": body})
    await working.drain()
    assert (await flows.load(swarm.key)).failed == 1
    body.is_mended = True
    replay(hatchet, "body")
    run = hatchet.queue[0]
    assert (await arrive(flows, run, 2)).verdict == "run"
    loaded = await flows.load(swarm.key)
    assert (loaded.running, loaded.succeeded, loaded.failed) == (1, 2, 0)
    run.attempt = 1
    await working.drain()
    await swarm.close()
    assert await flows.wait(swarm.key) == [{}, {"mended": True}, {}]


async def test_a_swarm_of_failures_succeeds_when_an_item_is_replayed(flows: Flows, hatchet: FakeHatchet) -> None:
    """It failed because no item succeeded, and is done once one has."""
    body = Body()
    swarm = await flows.creation.swarm(["body"] * 3, success_callbacks=["good"], error_callbacks=["bad"], closed=True)
    await flows.start(swarm)
    working = FakeWorker(hatchet, flows, {"body": body, "good": echo, "bad": echo})
    await working.drain()
    assert (await flows.load(swarm.key)).status is Status.FAILED
    body.is_mended = True
    replay(hatchet, "body", 1)
    await working.drain()
    assert await flows.wait(swarm.key) == [None, {"mended": True}, None]
    assert hatchet.by_task() == {"body": 3, "good": 1, "bad": 1}


async def test_a_stopped_swarm_continues_when_the_failure_is_replayed(flows: Flows, hatchet: FakeHatchet) -> None:
    """Items that were not started are started; items cancelled at the stop stay cancelled."""
    body = Body()
    config = SwarmConfig(max_concurrency=2, stop_after_n_failures=1, refill_linger_ms=0)
    swarm = await flows.creation.swarm(["body", "one", "one", "one"], config=config, closed=True)
    await flows.start(swarm)
    working = FakeWorker(hatchet, flows, {"one": echo, "body": body})
    await working.drain()
    stopped = await flows.load(swarm.key)
    assert stopped.status is Status.FAILED
    body.is_mended = True
    replay(hatchet, "body")
    await working.drain()
    ended = await flows.load(swarm.key)
    assert (ended.status, ended.running) == (Status.DONE, 0)
    assert await flows.wait(swarm.key) == [{"mended": True}, None, {}, {}]


async def test_an_item_of_a_done_swarm_is_not_replayed(flows: Flows, hatchet: FakeHatchet) -> None:
    """The swarm has given its results to its callback: the item is turned away, with the reason."""
    body = Body()
    swarm = await flows.creation.swarm(["one", "body"], success_callbacks=["good"], closed=True)
    await flows.start(swarm)
    working = FakeWorker(hatchet, flows, {"one": echo, "body": body, "good": echo})
    await working.drain()
    body.is_mended = True
    replay(hatchet, "body")
    await working.drain()
    assert working.skipped == {"done": 1}
    assert body.began == 1
    assert await flows.wait(swarm.key) == [{}, None]


async def test_a_replayed_success_returns_its_stored_result(flows: Flows, hatchet: FakeHatchet) -> None:
    """The task function of a step that succeeded never runs again."""
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    working = FakeWorker(hatchet, flows, {"one": echo, "two": echo})
    await working.drain()
    run = replay(hatchet, "one")
    await working.drain()
    assert (run.state, json.loads(run.output or "")) == ("completed", {})
    assert working.started.total() == 2


async def test_a_failed_callback_is_replayed(flows: Flows, hatchet: FakeHatchet) -> None:
    """Its flow has ended and stays so; the callback runs again."""
    body = Body()
    chain = await flows.creation.chain(["one", "one"], success="body")
    await flows.start(chain)
    working = FakeWorker(hatchet, flows, {"one": echo, "body": body})
    await working.drain()
    body.is_mended = True
    replay(hatchet, "body")
    await working.drain()
    assert (await flows.load(f"{chain.key}#.s0")).status is Status.DONE
    assert (await flows.load(chain.key)).status is Status.DONE


async def test_a_replay_while_suspended_waits_for_resume(flows: Flows, hatchet: FakeHatchet) -> None:
    """The failure has no consequences any more; the step is sent again at resume."""
    body = Body()
    chain = await flows.creation.chain(["body", "two"], error="bad")

    async def suspends(message: dict[str, Any]) -> Any:
        await chain.suspend()
        return await body(message)

    await flows.start(chain)
    working = FakeWorker(hatchet, flows, {"body": suspends, "two": echo, "bad": echo})
    await working.drain()
    body.is_mended = True
    replay(hatchet, "body")
    await working.drain()
    assert working.skipped == {"suspended": 1}
    working.bodies = {"body": body, "two": echo}
    await chain.resume()
    await working.drain()
    assert (await flows.load(chain.key)).status is Status.DONE
    assert hatchet.by_task() == {"body": 2, "two": 1}


async def test_a_cancelled_run_that_never_began_can_be_replayed(flows: Flows, hatchet: FakeHatchet) -> None:
    """It was cancelled in the queue, and is then replayed."""
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    await flows.drain()
    run = hatchet.queue.popleft()
    run.state, run.attempt = "cancelled", 1
    settled = await flows._store.settle(
        f"{chain.key}#0", RunIdentity(run.id), AttemptOutcome("cancelled", reported_by_engine=True)
    )
    assert settled.verdict == "settled"
    assert (await flows.load(chain.key)).status is Status.CANCELLED
    replay(hatchet, "one")
    await FakeWorker(hatchet, flows, {"one": echo, "two": echo}).drain()
    assert (await flows.load(chain.key)).status is Status.DONE


@pytest.mark.parametrize("how", ["same attempt", "another run", "another task of the run", "its worker died"])
async def test_only_a_later_attempt_of_the_run_itself_is_a_replay(flows: Flows, hatchet: FakeHatchet, how: str) -> None:
    """A late delivery, a duplicate, the failure hook of the same run: none reopens what has ended."""
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    run = hatchet.queue.popleft()
    assert (await arrive(flows, run, 1)).verdict == "run"
    error = FailureRecord(type="ValueError", at=datetime.now(UTC))
    identity = RunIdentity(run.id, f"step-{run.id}", "worker", 1, run.request.dedupe_key)
    await flows.settle(run.request.signature_key, identity, AttemptOutcome("failed", error=error))
    if how == "another run":
        await hatchet.dispatch([run.request])
        run = hatchet.queue.popleft()
    step = "hook" if how == "another task of the run" else ""
    assert (await arrive(flows, run, 1 if how == "same attempt" else 2, step)).status == "failed"
    assert not hatchet.queue
    assert (await flows.load(chain.key)).status is Status.FAILED


async def test_an_interrupted_flow_is_not_replayed(flows: Flows, hatchet: FakeHatchet) -> None:
    """An interruption is final."""
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    run = hatchet.queue.popleft()
    await arrive(flows, run, 1)
    await chain.interrupt()
    admission = await arrive(flows, run, 2)
    assert (admission.verdict, admission.status) == ("skip", "interrupted")
