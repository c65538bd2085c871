"""Flows on real workers of the SDK, on the local engine, over a real Valkey."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from mageflow import Settings
from mageflow.errors import FlowFailedError
from mageflow.signatures import ReturnValue, Status, SwarmConfig, TaskError
from mageflow.testing.capture import capture_logs
from tests.integration.conftest import make_observed, until  # noqa: F401 - a fixture
from tests.store.counting import RoundTrips


class Number(BaseModel):
    n: ReturnValue[int] = 0
    by: int = 1


class CallbackInput(BaseModel):
    why: TaskError
    n: int = 0


class Total(BaseModel):
    results: ReturnValue[list[dict[str, Any] | None]] = []


QUICK = {"metrics_port": 0, "reconcile_grace_seconds": 1.0, "reconcile_check_seconds": 1.0,
         "reconcile_interval_seconds": 0.2}  # fmt: skip


@pytest.fixture
def counted() -> RoundTrips:
    """Round trips of the client under test."""
    return RoundTrips()


@pytest.fixture
def observed(make_observed: Any, mageflow_redis: Any, counted: RoundTrips) -> Any:  # noqa: F811
    """A client with a real Valkey and short intervals of the reconciler."""
    yield make_observed(mageflow_redis.url, settings=Settings(**QUICK), interceptors=[counted])
    assert mageflow_redis.keys_without_ttl() == []


@pytest.fixture
def patient(make_observed: Any, mageflow_redis: Any, counted: RoundTrips) -> Any:  # noqa: F811
    """A client whose reconciler acts after seconds: nothing is sent a second time on a busy machine, and counted."""
    yield make_observed(mageflow_redis.url, settings=Settings(metrics_port=0), interceptors=[counted])
    assert mageflow_redis.keys_without_ttl() == []


async def ended(client: Any, key: str, seconds: float = 90.0) -> Any:
    """Wait until a flow or signature has ended."""
    deadline = time.monotonic() + seconds
    while not (found := await client.load_signature(key)).has_ended:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


async def test_a_chain_passes_results_between_sync_and_async_tasks(observed: Any, mageflow_worker: Any) -> None:
    """Results arrive in the marked field, in coroutines and in threads."""
    client = observed.client

    @client.task(name="plus")
    async def plus(msg: Number) -> dict[str, Any]:
        return {"n": msg.n + msg.by}

    @client.task(name="value")
    def value(msg: Number) -> dict[str, Any]:
        return {"n": msg.n * 10}

    class Wrapped(BaseModel):
        before: ReturnValue[Number]

    @client.task(name="unwrap")
    async def unwrap(msg: Wrapped) -> dict[str, Any]:
        return {"last": msg.before.n}

    @client.task(name="again")
    def again(msg: Wrapped) -> dict[str, Any]:
        return {"n": msg.before.n * 10}

    mageflow_worker.in_process(client, "chain", workflows=[plus, value, unwrap, again])
    chain = await client.chain([await client.sign(plus, by=5), again, unwrap])
    assert await chain.aio_run(Number(n=1)) == {"last": 60}


async def test_a_chain_of_three_costs_seven_round_trips(
    patient: Any, counted: RoundTrips, mageflow_worker: Any
) -> None:
    """On a real worker: one to start, one to admit and one to settle each step; prints the table."""
    client = patient.client

    @client.task(name="step")
    async def step(msg: dict[str, Any]) -> dict[str, Any]:
        return {}

    mageflow_worker.in_process(client, "chain", workflows=[step])
    await (await client.chain([step] * 3)).aio_run()
    chain = await client.chain([step] * 3)
    counted.reset()
    await chain.aio_run_no_wait()
    await asyncio.sleep(0)
    spans = patient.spans
    deadline = time.monotonic() + 60
    while len(spans.named("chain:step")) < 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    costs = {name: counted.by_operation[name] for name in ("start", "admit", "settle", "ack", "load")}
    print(f"\na chain of 3 on a real worker: {costs}")
    assert costs == {"start": 1, "admit": 3, "settle": 3, "ack": 0, "load": 0}


async def test_a_failing_step_runs_its_callback_once_after_the_last_attempt(
    observed: Any, mageflow_worker: Any
) -> None:
    """Type, message, task, attempt and failed input arrive in a typed field."""
    client = observed.client
    received: list[CallbackInput] = []

    @client.task(name="fails", retries=1)
    async def fails(msg: Number) -> dict[str, Any]:
        raise ValueError("no good")

    @client.task(name="callback")
    async def callback(msg: CallbackInput) -> dict[str, Any]:
        received.append(msg)
        return {}

    mageflow_worker.in_process(client, "chain", workflows=[fails, callback])
    chain = await client.chain([fails, fails], error=callback)
    with pytest.raises(FlowFailedError, match="ValueError: no good"):
        await chain.aio_run(Number(n=7))
    await until(lambda: bool(received))
    (only,) = received
    assert (only.why.type, only.why.message, only.why.task, only.why.attempt) == ("ValueError", "no good", "fails", 2)
    assert only.why.original_message["n"] == 7
    assert only.n == 7


async def test_a_timeout_and_a_cancellation_run_the_callback_too(observed: Any, mageflow_worker: Any) -> None:
    """Both end the flow, with their own names."""
    client = observed.client
    received: Counter[str] = Counter()

    @client.task(name="slow", execution_timeout=timedelta(seconds=3))
    async def slow(msg: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(30)
        return {}

    @client.task(name="long", execution_timeout=timedelta(seconds=60))
    async def long(msg: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(30)
        return {}

    @client.task(name="callback")
    async def callback(msg: CallbackInput) -> dict[str, Any]:
        received[msg.why.outcome] += 1
        return {}

    mageflow_worker.in_process(client, "chain", workflows=[slow, long, callback])
    timed_out, cancelled = (
        await client.chain([slow, slow], error=callback),
        await client.chain([long, long], error=callback),
    )
    await timed_out.aio_run_no_wait()
    await cancelled.aio_run_no_wait()
    step = await client.load_signature(cancelled.steps[0])
    while step.last_run is None or step.status != "active":
        await asyncio.sleep(0.02)
        step = await client.load_signature(cancelled.steps[0])
    await client.runs.aio_cancel(step.last_run.workflow_run_id)
    assert (await ended(client, timed_out.key)).status is Status.FAILED
    assert (await ended(client, cancelled.key)).status is Status.CANCELLED
    await until(lambda: received.total() >= 2)
    assert received == {"timed_out": 1, "cancelled": 1}


async def test_a_swarm_keeps_its_limit_and_its_order(observed: Any, mageflow_worker: Any) -> None:
    """Never more than max_concurrency runs; results in task order, null where an item failed."""
    client = observed.client
    running, most, totals = 0, 0, []

    @client.task(name="item")
    async def item(msg: Number) -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        if msg.n == 3:
            raise ValueError("three")
        return {"n": msg.n}

    @client.task(name="total")
    async def total(msg: Total) -> dict[str, Any]:
        totals.append(msg.results)
        return {}

    mageflow_worker.in_process(client, "swarm", slots=20, workflows=[item, total])
    swarm = await client.swarm(
        [await client.sign(item, n=index) for index in range(30)],
        config=SwarmConfig(max_concurrency=5),
        success_callbacks=[total],
        closed=True,
    )
    results = await swarm.aio_run()
    assert results == [None if index == 3 else {"n": index} for index in range(30)]
    assert most <= 5
    await until(lambda: bool(totals))
    assert totals == [results]


async def test_interrupt_really_cancels_the_run(observed: Any, mageflow_worker: Any) -> None:
    """The task is cancelled, Hatchet shows the run as cancelled, and the history says who did it and why."""
    client = observed.client
    cancelled = asyncio.Event()
    loop = asyncio.get_running_loop()

    @client.task(name="long", execution_timeout=timedelta(seconds=60))
    async def long(msg: dict[str, Any]) -> dict[str, Any]:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            loop.call_soon_threadsafe(cancelled.set)
            raise
        return {}

    mageflow_worker.in_process(client, "chain", workflows=[long])
    chain = await client.chain([long, long])
    await chain.aio_run_no_wait()
    while (await client.load_signature(chain.steps[0])).status != "active":
        await asyncio.sleep(0.02)
    assert await client.interrupt(chain, by="ops", why="wrong file") is Status.INTERRUPTED
    await asyncio.wait_for(cancelled.wait(), 60)
    entry = (await client.load_signature(chain.key)).history[-1]
    assert (entry.status, entry.by, entry.why) == ("interrupted", "ops", "wrong file")


@pytest.mark.slow
async def test_a_timeout_that_seems_to_come_early_is_not_a_cancellation(observed: Any, mageflow_worker: Any) -> None:
    """Hatchet's clock starts at the assignment, and a blocked loop starts the worker's clock late."""
    client = observed.client
    blocked = threading.Event()
    attempts: list[int] = []
    received: list[CallbackInput] = []

    @client.task(name="blocks")
    async def blocks(msg: dict[str, Any]) -> dict[str, Any]:
        blocked.set()
        time.sleep(2.2)  # noqa: ASYNC251 - the very point
        return {}

    @client.task(name="late", retries=1, execution_timeout=timedelta(seconds=3))
    @client.with_ctx
    async def late(msg: dict[str, Any], ctx: Any) -> dict[str, Any]:
        attempts.append(ctx.attempt_number)
        await asyncio.sleep(30)
        return {}

    @client.task(name="callback")
    async def callback(msg: CallbackInput) -> dict[str, Any]:
        received.append(msg)
        return {}

    mageflow_worker.in_process(client, "chain", workflows=[blocks, late, callback])
    chain = await client.chain([late, late], error=callback)
    await blocks.aio_run({}, wait_for_result=False)
    assert await asyncio.to_thread(blocked.wait, 60)
    await chain.aio_run_no_wait()
    assert (await ended(client, chain.key)).status is Status.FAILED
    await ended(client, f"{chain.key}#.e0")
    assert attempts == [1, 2]
    assert [(each.why.type, each.why.attempt) for each in received] == [("TaskTimedOut", 2)]


async def test_suspend_holds_and_resume_continues(observed: Any, mageflow_worker: Any) -> None:
    """The run that arrives is shown as skipped; after resume the chain ends, and no step runs twice."""
    client = observed.client
    bodies: Counter[str] = Counter()

    @client.task(name="first")
    async def first(msg: dict[str, Any]) -> dict[str, Any]:
        bodies["first"] += 1
        return {}

    @client.task(name="second")
    async def second(msg: dict[str, Any]) -> dict[str, Any]:
        bodies["second"] += 1
        return {"done": True}

    chain = await client.chain([first, second])
    await client.suspend(chain.steps[1])
    mageflow_worker.in_process(client, "chain", workflows=[first, second])
    await chain.aio_run_no_wait()
    while (await client.load_signature(chain.key)).step < 1:
        await asyncio.sleep(0.02)
    await client.suspend(chain)
    await client.resume(chain.steps[1])
    assert bodies == {"first": 1}
    await client.resume(chain)
    assert (await ended(client, chain.key)).status is Status.DONE
    assert bodies == {"first": 1, "second": 1}


@pytest.mark.slow
async def test_a_chain_of_a_hundred_is_one_trace(observed: Any, mageflow_worker: Any) -> None:
    """Every span has its parent in the export, every step links to the one before, and the logs have the same id."""
    client = observed.client

    @client.task(name="link")
    async def link(msg: dict[str, Any]) -> dict[str, Any]:
        return {}

    mageflow_worker.in_process(client, "chain", workflows=[link])
    chain = await client.chain([link] * 100, name="hundred")
    with capture_logs() as logs:
        await chain.aio_run()
        observed.spans.wait_for("hundred", timeout_seconds=60)
        observed.spans.wait_for("process link", 100, timeout_seconds=60)
    (start,) = observed.spans.named("start hundred")
    trace = start.context.trace_id
    mine = [each for each in observed.spans if each.context.trace_id == trace]
    ids = {each.context.span_id for each in mine}
    assert [each.name for each in mine if each.parent and each.parent.span_id not in ids] == []
    steps = sorted(observed.spans.named("process link"), key=lambda each: each.attributes["mageflow.flow.step"])
    assert len(steps) == 100
    assert {each.context.trace_id for each in steps} == {trace}
    assert {each.parent.span_id for each in steps} == {start.context.span_id}
    for before, after in itertools.pairwise(steps):
        assert before.context.span_id in {each.context.span_id for each in after.links}
    finished = [each for each in logs.named("mageflow.task.finished") if each.get("flow_id")]
    assert len(finished) == 100
    assert {each["trace_id"] for each in finished} == {f"{trace:032x}"}
    assert {each["flow_id"] for each in finished} == {chain.key.rpartition(":")[2]}
    assert {each["span_id"] for each in finished} == {f"{each.context.span_id:016x}" for each in steps}


@pytest.mark.slow
async def test_a_swarm_of_a_thousand_links_every_item(patient: Any, counted: RoundTrips, mageflow_worker: Any) -> None:
    """Above the fan-out limit each item has a trace of its own with a link to the start; prints the costs."""
    client = patient.client

    @client.task(name="item")
    async def item(msg: dict[str, Any]) -> dict[str, Any]:
        return {}

    mageflow_worker.in_process(client, "swarm", slots=40, workflows=[item])
    await (await client.swarm([item], closed=True)).aio_run()
    swarm = await client.swarm([item] * 1000, name="thousand", closed=True)
    counted.reset()
    started = time.monotonic()
    await swarm.aio_run_no_wait()
    patient.spans.wait_for("thousand", timeout_seconds=150)
    took = time.monotonic() - started
    costs = {name: counted.by_operation[name] for name in ("start", "admit", "settle", "ack", "swarm")}
    calls = len(patient.spans.named("fill thousand"))
    print(f"\n1,000 items: {took:.1f} s, round trips {costs}, {sum(costs.values()) / 1000:.3f} per item, {calls} calls")
    assert sum(costs.values()) <= 2050  # 2,003 on a quiet machine; an answer after 3 s is asked for again
    assert calls <= 100
    patient.spans.wait_for("process item", 1001, timeout_seconds=60)
    (start,) = patient.spans.named("start thousand")
    items = [each for each in patient.spans.named("process item") if each.attributes.get("mageflow.flow.steps") == 1000]
    assert len(items) == 1000
    assert all(start.context.span_id in {each.context.span_id for each in item.links} for item in items)
    assert all(each.parent is None for each in items)
    assert len({each.context.trace_id for each in items}) == 1000
