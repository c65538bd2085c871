"""Runs that are gone in Hatchet are sent again: those it lost, and those that found no worker in time."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.interceptors import Attempt, Interceptor, RedisCall, TaskInfo, current_attempt
from mageflow.signatures import FailureRecord, RunIdentity, Status, SwarmConfig, TaskSignature
from mageflow.store import AttemptOutcome, RedisPort, Store
from mageflow.telemetry import Telemetry
from mageflow.testing.capture import capture_logs
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.types import DispatchRun
from tests.flows.admitting import admit
from tests.flows.conftest import QUICK, echo, stop, until_ended
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker, Run
from tests.store.counting import RoundTrips


async def sweep_until(flows: Flows, condition: Callable[[], Any], worker: FakeWorker | None = None) -> None:
    """Sweep, and let a worker work, until a condition holds."""
    reconciler = flows.reconciler()
    async with asyncio.timeout(60):
        while not (found := condition()) or (asyncio.iscoroutine(found) and not await found):
            await reconciler.sweep()
            if worker is not None:
                await worker.drain()
            await asyncio.sleep(0.01)


def identity_of(run: Run, worker: str = "gone", attempt: int = 1) -> RunIdentity:
    return RunIdentity(run.id, f"step-{run.id}", worker, attempt, run.request.dedupe_key)


async def begin(hatchet: FakeHatchet, flows: Flows) -> RunIdentity:
    """Start the task function of the queued run; it does not end, and no heartbeat comes."""
    run = hatchet.queue.popleft()
    run.state, run.attempt = "running", 1
    identity = identity_of(run)
    admission = await admit(flows, run.request.signature_key, identity, input_json=run.request.input_json)
    assert admission.verdict == "run"
    return identity


def forget(hatchet: FakeHatchet) -> None:
    """Hatchet is restarted and has lost everything."""
    hatchet.runs.clear()
    hatchet.queue.clear()


async def test_a_body_that_was_lost_with_its_run_is_run_again(quick: Flows, hatchet: FakeHatchet) -> None:
    """The step is sent again with its whole input, and the flow ends as if nothing had happened."""
    chain = await quick.creation.chain(["one", "two"], error=["callback"])
    await quick.start(chain, {"order": 17})
    await begin(hatchet, quick)
    forget(hatchet)
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    assert await until_ended(quick, chain.key, working) is Status.DONE
    assert hatchet.inputs("one") == [{"order": 17}]
    assert hatchet.inputs("callback") == []


async def test_the_history_notes_what_was_sent_again(quick: Flows, hatchet: FakeHatchet) -> None:
    """At an unchanged status, with the reason and the run; repetitions are one entry."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    await begin(hatchet, quick)
    for _ in range(2):
        forget(hatchet)
        await sweep_until(quick, lambda: hatchet.queue)
        gone = (await begin(hatchet, quick)).workflow_run_id
    forget(hatchet)
    await sweep_until(quick, lambda: hatchet.queue)
    history = (await quick.load(chain.key)).history
    assert [entry.status for entry in history] == ["pending", "active", "active"]
    assert history[-1].why == f"sent again: step 0, Hatchet does not know its run {gone} (3 times)"


async def test_a_body_that_is_lost_too_often_has_failed(quick: Flows, hatchet: FakeHatchet) -> None:
    """It is sent again three times, as often as Hatchet reassigns the run of a dead worker."""
    chain = await quick.creation.chain(["one", "two"], error=["callback"])
    await quick.start(chain)
    for _ in range(4):
        await begin(hatchet, quick)
        forget(hatchet)
        await sweep_until(quick, lambda: hatchet.queue)
    assert (await quick.load(chain.key)).status is Status.FAILED
    await FakeWorker(hatchet, quick, {"callback": echo}).drain()
    (received,) = hatchet.inputs("callback")
    assert (received["mageflow_error"]["type"], received["mageflow_error"]["task"]) == ("WorkerLost", "one")


async def test_a_late_success_of_a_lost_run_counts(quick: Flows, hatchet: FakeHatchet) -> None:
    """It is the result of the step; the run that was sent in its place is cancelled before its task function."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    late = await begin(hatchet, quick)
    forget(hatchet)
    await sweep_until(quick, lambda: hatchet.queue)
    await quick.drain()
    settled = await quick.settle(f"{chain.key}#0", late, AttemptOutcome("succeeded", result_json='{"late": true}'))
    assert settled.verdict == "settled"
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    await working.drain()
    assert hatchet.by_task() == {"one": 1, "two": 1}
    assert [run.state for run in hatchet.runs.values() if run.request.task_name == "one"] == ["cancelled"]
    assert working.started.total() == 1
    assert await quick.wait(chain.key) == {"mageflow_results": {"late": True}}


async def test_the_first_of_two_bodies_to_succeed_counts(quick: Flows, hatchet: FakeHatchet) -> None:
    """The lost one and the one sent in its place both run: one result, one next step."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    late = await begin(hatchet, quick)
    forget(hatchet)
    await sweep_until(quick, lambda: hatchet.queue)
    second = await begin(hatchet, quick)
    assert (
        await quick.settle(f"{chain.key}#0", late, AttemptOutcome("succeeded", result_json="1"))
    ).verdict == "settled"
    assert (
        await quick.settle(f"{chain.key}#0", second, AttemptOutcome("succeeded", result_json="2"))
    ).verdict == "stale"
    await FakeWorker(hatchet, quick, {"two": echo}).drain()
    assert await quick.wait(chain.key) == {"mageflow_results": 1}


class StandsStill(Interceptor):
    """Stops the process for some time, between the answer of Redis to the first admission and its reader.

    Args:
        meanwhile: What another process does in this time.
    """

    def __init__(self, meanwhile: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._meanwhile = [meanwhile]

    @contextmanager
    def redis(self, call: RedisCall) -> Generator[None]:
        yield
        if call.operation == "admit" and self._meanwhile:
            other = threading.Thread(target=asyncio.run, args=(self._meanwhile.pop()(),))
            other.start()
            other.join()
            time.sleep(0.5)


@pytest.mark.parametrize("is_over", [True, False])
async def test_a_worker_that_stood_still_does_not_run_what_another_has_done(
    quick: Flows, hatchet: FakeHatchet, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch, is_over: bool
) -> None:
    """Redis had admitted its attempt, and Hatchet gave the run to another worker before the answer was read."""
    monkeypatch.setattr("mageflow.flows.repetition._LATE_SECONDS", 0.4)
    await quick.start(await quick.creation.chain(["one", "two"]))
    await begin(hatchet, quick)  # Redis knows the script
    await quick.start(await quick.creation.chain(["one", "two"]))
    run = hatchet.queue.popleft()
    key, keys = run.request.signature_key, quick._store.keys

    async def take_over() -> None:
        port = RedisPort(valkey.url)
        flows, identity = Flows(Store(port, keys, QUICK), hatchet, hatchet, QUICK), identity_of(run, "other", attempt=2)
        assert (await admit(flows, key, identity)).verdict == "run"
        if is_over:
            await flows.settle(key, identity, AttemptOutcome("succeeded", result_json='"first"'))
        await stop(flows)
        await port.aclose()

    port = RedisPort(valkey.url, StandsStill(take_over))
    still = Flows(Store(port, keys, QUICK), hatchet, hatchet, QUICK)
    admission = await admit(still, key, identity_of(run, "still"))
    await stop(still)
    await port.aclose()
    found = (admission.verdict, admission.result_json, admission.status)
    assert found == (("replay", '"first"', "done") if is_over else ("skip", None, "superseded"))


async def test_a_late_failure_of_a_lost_run_changes_nothing(quick: Flows, hatchet: FakeHatchet) -> None:
    """Another run has taken its place, and that one decides."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    late = await begin(hatchet, quick)
    forget(hatchet)
    await sweep_until(quick, lambda: hatchet.queue)
    error = FailureRecord(type="ValueError", at=datetime.now(UTC))
    assert (await quick.settle(f"{chain.key}#0", late, AttemptOutcome("failed", error=error))).verdict == "stale"
    await FakeWorker(hatchet, quick, {"one": echo, "two": echo}).drain()
    assert (await quick.load(chain.key)).status is Status.DONE


async def test_a_lost_run_with_heartbeats_is_not_sent_again(
    store: Store, hatchet: FakeHatchet, round_trips: RoundTrips
) -> None:
    """Hatchet lost the run, and the heartbeats of its task function prevent a second one."""
    settings = Settings(reconcile_grace_seconds=0.03, reconcile_check_seconds=1.0, reconcile_interval_seconds=0.01)
    quick = Flows(Store(store.port, store.keys, settings), hatchet, hatchet, settings)
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    task = TaskInfo("one", "one", execution_timeout_seconds=60, retries=0)
    attempt = Attempt(task, "run-0", "step-0", "here", 1, 1, {}, lambda: False)
    token = current_attempt.set(attempt)
    here = await begin(hatchet, quick)
    current_attempt.reset(token)
    await quick.drain()
    forget(hatchet)
    reconciling = asyncio.create_task(quick.reconciler().run())
    round_trips.reset()
    async with asyncio.timeout(60):
        while round_trips.by_operation["alive"] < 8:  # 4 s: without them the run is lost after 3 s
            await asyncio.sleep(0.05)
    assert not hatchet.queue
    await quick.stop_heartbeat(attempt)
    async with asyncio.timeout(60):
        while not hatchet.queue:
            await asyncio.sleep(0.01)
    reconciling.cancel()
    await asyncio.gather(reconciling, return_exceptions=True)
    assert (await quick.settle(f"{chain.key}#0", here, AttemptOutcome("succeeded"))).verdict == "settled"
    await stop(quick)


async def test_a_users_run_that_was_lost_is_run_again_with_its_input(quick: Flows, hatchet: FakeHatchet) -> None:
    """The input of the run is kept until it has ended, so the run can be sent again and its callbacks run."""
    signature = await quick.creation.sign("one", success_callbacks=["done"])
    await run_by_user(quick, hatchet, signature, '{"x": 42}')
    await begin(hatchet, quick)
    forget(hatchet)
    working = FakeWorker(hatchet, quick, {"one": echo, "done": echo})
    assert await until_ended(quick, signature.key, working) is Status.DONE
    await working.drain()
    assert hatchet.inputs("one") == [{"x": 42}]
    assert hatchet.inputs("done") == [{"mageflow_results": {"x": 42}}]
    kept = await quick._store.port.command("HKEYS", f"{signature.key}:results")
    assert [each for each in kept if each.startswith(">")] == []


async def run_by_user(flows: Flows, hatchet: FakeHatchet, signature: TaskSignature, message: str = "{}") -> None:
    """Run a signature as the client does for a user."""
    await hatchet.dispatch([DispatchRun(signature.task_name, message, signature.key, flows.new_run_key(signature))])


async def test_a_callback_that_was_lost_is_run_again(quick: Flows, hatchet: FakeHatchet) -> None:
    """The flow has ended; its callback is lost while it runs, and is sent again."""
    chain = await quick.creation.chain(["one", "two"], success=["done"])
    await quick.start(chain)
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo, "done": echo})
    for _ in range(2):
        await working.one()
    await begin(hatchet, quick)
    forget(hatchet)
    await sweep_until(quick, lambda: hatchet.queue)
    await working.drain()
    assert (await quick.load(f"{chain.key}#.s0")).status is Status.DONE


def unscheduled(hatchet: FakeHatchet) -> Run:
    """No worker was free for the first queued run, and Hatchet cancelled it."""
    run = hatchet.queue.popleft()
    run.state, run.is_unscheduled = "cancelled", True
    return run


@pytest.mark.parametrize("kind", ["step", "item", "callback"])
async def test_a_run_without_a_worker_is_sent_again(quick: Flows, hatchet: FakeHatchet, kind: str) -> None:
    """Too few workers delay a flow and do not lose it, however often the schedule timeout passes."""
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo, "done": echo})
    if kind == "item":
        flow: Any = await quick.creation.swarm(["one", "two"], success_callbacks=["done"], closed=True)
    else:
        flow = await quick.creation.chain(["one", "two"], success=["done"])
    await quick.start(flow)
    if kind == "callback":
        await working.one()
        await working.one()
    for _ in range(5):
        await quick.drain()
        unscheduled(hatchet)
        await sweep_until(quick, lambda: hatchet.queue)
    assert await until_ended(quick, f"{flow.key}#.s0", working) is Status.DONE
    assert (await quick.load(flow.key)).status is Status.DONE
    assert set(working.started.values()) == {1}


async def test_a_run_without_a_worker_is_sent_again_at_growing_intervals(store: Store, hatchet: FakeHatchet) -> None:
    """The grace time at first, then twice as long each time, up to the check time."""
    settings = Settings(reconcile_grace_seconds=1.0, reconcile_check_seconds=4.0)
    flows = Flows(Store(store.port, store.keys, settings), hatchet, hatchet, settings)
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    outbox, waits = f"{chain.key}:outbox", []
    for _ in range(5):
        run = hatchet.queue.popleft()
        await flows.drain()
        decision = await flows._store.settle(
            f"{chain.key}#0", RunIdentity(run.id), AttemptOutcome("unscheduled", reported_by_engine=True)
        )
        assert decision.verdict == "resent"
        assert decision.outbox == ()
        entry = json.loads(await store.port.command("HGET", outbox, "0"))
        waits.append(round((entry["claimed_until_ms"] - entry["decided_ms"]) / 1000))
        await store.port.command("HSET", outbox, "0", json.dumps({**entry, "decided_ms": 0}))
        assert (await flows._store.inspect(chain.key, lease_seconds=1)).outbox == ()
        await store.port.command("HSET", outbox, "0", json.dumps({**entry, "decided_ms": 0, "claimed_until_ms": 0}))
        await flows._outbox.deliver(await flows._store.inspect(chain.key, lease_seconds=1))
    assert waits == [1, 2, 4, 4, 4]
    await stop(flows)


async def test_a_run_that_never_finds_a_worker_fails(store: Store, hatchet: FakeHatchet) -> None:
    """After the active TTL without progress: a typed error, and the error callback is sent."""
    settings = QUICK.model_copy(update={"chain_ttl_active_seconds": 1})
    flows = Flows(Store(store.port, store.keys, settings), hatchet, hatchet, settings)
    chain = await flows.creation.chain(["one", "two"], error=["callback"])
    await flows.start(chain)

    async def ended() -> bool:
        if hatchet.queue and hatchet.queue[0].request.task_name == "one":
            unscheduled(hatchet)
        return (await flows.load(chain.key)).has_ended

    await sweep_until(flows, ended)
    failed = await flows.load(chain.key)
    assert failed.status is Status.FAILED
    assert failed.last_error is not None
    assert failed.last_error.type == "TaskUnscheduled"
    assert [each["mageflow_error"]["task"] for each in hatchet.inputs("callback")] == ["one"]
    assert len(hatchet.inputs("one")) > 2
    await stop(flows)


async def test_a_run_that_a_person_cancels_in_the_queue_cancels_its_flow(quick: Flows, hatchet: FakeHatchet) -> None:
    """Only a schedule timeout is sent again; a cancellation is final."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    await quick.drain()
    hatchet.queue.popleft().state = "cancelled"
    assert await until_ended(quick, chain.key) is Status.CANCELLED


async def test_a_users_own_run_keeps_hatchets_rule(quick: Flows, hatchet: FakeHatchet) -> None:
    """A run of a signature whose next attempt found no worker in time is cancelled and not sent again."""
    signature = await quick.creation.sign("one", error_callbacks=["callback"])
    await run_by_user(quick, hatchet, signature)
    identity = await begin(hatchet, quick)
    run = hatchet.runs[identity.workflow_run_id]
    run.state, run.is_unscheduled = "cancelled", True
    assert await until_ended(quick, signature.key) is Status.CANCELLED
    assert hatchet.by_task() == {"one": 1, "callback": 1}
    assert hatchet.inputs("callback")[0]["mageflow_error"]["type"] == "TaskUnscheduled"


async def test_a_suspended_flow_holds_lost_runs(quick: Flows, hatchet: FakeHatchet) -> None:
    """Lost while suspended: nothing is sent before resume, and then once."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    await begin(hatchet, quick)
    await chain.suspend()
    forget(hatchet)
    held = f"{chain.key}:held"
    await sweep_until(quick, lambda: quick._store.port.command("LLEN", held))
    assert not hatchet.queue
    await chain.resume()
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    await working.drain()
    assert (await quick.load(chain.key)).status is Status.DONE
    assert hatchet.by_task() == {"one": 1, "two": 1}


async def test_interrupt_reaches_a_run_between_two_sends(quick: Flows, hatchet: FakeHatchet) -> None:
    """The run is not in Hatchet at that moment; it ends, and is not sent later."""
    swarm = await quick.creation.swarm(["one"] * 2, config=SwarmConfig(max_concurrency=2), closed=True)
    await quick.start(swarm)
    await quick.drain()
    runs = [unscheduled(hatchet).id for _ in range(2)]
    for index, run_id in enumerate(runs):
        identity = RunIdentity(run_id)
        await quick._store.settle(
            f"{swarm.key}#{index}", identity, AttemptOutcome("unscheduled", reported_by_engine=True)
        )
    await swarm.interrupt()
    await asyncio.sleep(0.1)
    await quick.reconciler().sweep()
    assert not hatchet.queue
    assert (await quick.load(swarm.key)).status is Status.INTERRUPTED


async def test_the_end_of_an_earlier_run_does_not_end_the_next(quick: Flows, hatchet: FakeHatchet) -> None:
    """A run turned away by a suspension is cancelled; that says nothing about the run resume sent."""
    chain = await quick.creation.chain(["one", "two"])
    await quick.start(chain)
    await quick.drain()
    first = hatchet.queue[0]
    await chain.suspend()
    await FakeWorker(hatchet, quick, {"one": echo}).drain()
    assert first.state == "cancelled"
    hatchet.is_away = True
    await chain.resume()
    for word in ("cancelled", "lost", "unscheduled"):
        late = await quick._store.settle(
            f"{chain.key}#0", RunIdentity(first.id), AttemptOutcome(word, reported_by_engine=True)
        )
        assert late.verdict == "stale"
    hatchet.is_away = False
    working = FakeWorker(hatchet, quick, {"one": echo, "two": echo})
    assert await until_ended(quick, chain.key, working) is Status.DONE


async def test_sending_again_is_counted_and_logged(store: Store, hatchet: FakeHatchet) -> None:
    """A counter by reason, and a warning with the member, the lost run and the number of times."""
    registry = CollectorRegistry()
    telemetry = Telemetry(QUICK, registry=registry)
    flows = Flows(Store(store.port, store.keys, QUICK), hatchet, hatchet, QUICK, telemetry.interceptor)
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    name = "mageflow_flow_resends_total"
    with capture_logs() as logs:
        await flows.drain()
        gone = unscheduled(hatchet).id
        await sweep_until(flows, lambda: hatchet.queue)
        await begin(hatchet, flows)
        forget(hatchet)
        await sweep_until(flows, lambda: hatchet.queue)
    assert registry.get_sample_value(name, {"reason": "unscheduled"}) == 1
    assert registry.get_sample_value(name, {"reason": "lost"}) == 1
    first, second = logs.named("mageflow.flow.run_resent")
    assert (first["reason"], first["target"], first["lost_run_id"]) == ("unscheduled", f"{chain.key}#0", gone)
    assert (second["reason"], second["times"], second["level"]) == ("lost", 2, "warning")
    await stop(flows)
