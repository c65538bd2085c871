"""Whole workflows as signatures, steps, items and callbacks: real workers, a real Valkey."""

import asyncio
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hatchet_sdk import Context, Hatchet
from hatchet_sdk.clients.rest.models.v1_task_status import V1TaskStatus
from hatchet_sdk.exceptions import FailedTaskRunExceptionGroup
from pydantic import BaseModel

from mageflow import Mageflow, ReturnValue, Settings, Status, SwarmConfig, TaskError
from mageflow.engine import LocalEngine
from mageflow.errors import FlowDefinitionError, FlowFailedError
from mageflow.testing.workers import WorkerProcess
from tests.integration.conftest import LOST_AFTER_SECONDS, Observed, until

QUICK = Settings(metrics_port=0, reconcile_grace_seconds=1, reconcile_check_seconds=2, reconcile_interval_seconds=0.2)

SCRIPT = Path(__file__).with_name("workflow_worker.py")


class Order(BaseModel):
    number: int = 0
    before: ReturnValue[Any] = None


class Shop:
    """A workflow of three tasks, and tasks around it, that note what they get."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self.ran: Counter[str] = Counter()
        self.seen: list[Any] = []
        self.errors: list[TaskError] = []
        self.fails: set[str] = set()
        self.paused = asyncio.Event()
        self.pauses: set[str] = set()
        self.reached: set[str] = set()
        self.workflow = client.workflow(name=f"{prefix}-order", input_validator=Order)

        async def body(name: str, msg: Order) -> None:
            self.ran[name] += 1
            self.reached.add(name)
            while name in self.pauses:
                await asyncio.sleep(0.02)
            if name in self.fails:
                raise ValueError(f"{name} of {msg.number}")

        @self.workflow.task(name="price", retries=0)
        async def price(msg: Order) -> dict[str, Any]:
            await body("price", msg)
            return {"price": msg.number * 2, "before": msg.before}

        @self.workflow.task(name="pack")
        async def pack(msg: Order) -> dict[str, Any]:
            await body("pack", msg)
            return {"packed": msg.number}

        @self.workflow.task(name="ship", parents=[price, pack])
        @client.with_ctx
        async def ship(msg: Order, ctx: Context) -> dict[str, Any]:
            await body("ship", msg)
            return {"paid": ctx.task_output(price)["price"]}

        @client.task(name=f"{prefix}-note")
        async def note(msg: Order) -> Any:
            self.seen.append(msg.before)
            return {"noted": msg.before}

        @client.task(name=f"{prefix}-report")
        async def report(error: TaskError) -> dict[str, Any]:
            self.errors.append(error)
            return {}

        self.note, self.report = note, report

    @property
    def workflows(self) -> list[Any]:
        return [self.workflow, self.note, self.report]


def outputs(number: int, before: Any = None) -> dict[str, Any]:
    return {
        "price": {"price": number * 2, "before": before},
        "pack": {"packed": number},
        "ship": {"paid": number * 2},
    }


@pytest.fixture
def signed(make_observed: Any, mageflow_redis: Any) -> Observed:
    """A client with a real Valkey."""
    return make_observed(mageflow_redis.url, settings=QUICK)


@pytest.fixture
def shop(signed: Observed, request: Any, mageflow_worker: Any) -> Generator[Shop]:
    """The workflow with a running worker."""
    shop = Shop(signed.client, f"wf{abs(hash(request.node.name)) % 10**6}")
    mageflow_worker.in_process(signed.client, "workflows", workflows=shop.workflows, slots=20)
    yield shop
    shop.pauses = set()


async def ended(client: Any, key: str, seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while not (signature := await client.load_signature(key)).has_ended:
            await asyncio.sleep(0.05)
    return signature


async def test_a_signed_workflow_gives_what_hatchet_gives(shop: Shop) -> None:
    """The same as the workflow alone; the success callback gets it once."""
    plain = await shop.workflow.aio_run(Order(number=7))
    assert plain == outputs(7)
    signature = await shop.client.sign(shop.workflow, number=7, success_callbacks=[shop.note])
    assert await signature.aio_run() == plain
    await until(lambda: shop.seen == [plain], 60)
    assert (await ended(shop.client, signature.key)).status is Status.DONE
    assert shop.ran == {"price": 2, "pack": 2, "ship": 2}
    await asyncio.sleep(0.5)
    assert shop.seen == [plain]


async def test_a_workflow_is_a_step_of_a_chain_and_an_item_of_a_swarm(shop: Shop, signed: Observed) -> None:
    """It gets the result before, and what follows gets its outputs."""
    chain = await shop.client.chain([shop.note, shop.workflow, shop.note], name="wf-chain", success=shop.note)
    async with asyncio.timeout(60):
        assert await chain.aio_run(Order(number=3)) == {"noted": outputs(0, {"noted": None})}
    await until(lambda: len(shop.seen) == 3, 60)
    assert shop.seen[:2] == [None, outputs(0, {"noted": None})]
    swarm = await shop.client.swarm(
        [await shop.client.sign(shop.workflow, number=number) for number in range(6)],
        config=SwarmConfig(max_concurrency=3),
        closed=True,
    )
    async with asyncio.timeout(60):
        assert await swarm.aio_run() == [outputs(number) for number in range(6)]
    assert shop.ran == {"price": 7, "pack": 7, "ship": 7}
    assert (
        signed.samples.value("mageflow_flows_finished_total", flow="chain", flow_name="wf-chain", outcome="succeeded")
        == 1
    )


async def test_a_workflow_that_fails_is_reported_once(shop: Shop) -> None:
    """With the task that failed, its error and the workflow's input; tasks behind it do not run."""
    shop.fails = {"pack"}
    signature = await shop.client.sign(shop.workflow, number=5, error_callbacks=[shop.report])
    with pytest.raises(Exception, match="pack of 5"):
        await signature.aio_run()
    await until(lambda: len(shop.errors) == 1, 60)
    error = shop.errors[0]
    assert (error.type, error.message, error.task, error.outcome) == ("ValueError", "pack of 5", "pack", "failed")
    assert error.original_message["number"] == 5
    assert (await ended(shop.client, signature.key)).status is Status.FAILED
    chain = await shop.client.chain([shop.note, shop.workflow], error=shop.report)
    with pytest.raises(FlowFailedError, match="pack of 0"):
        await asyncio.wait_for(chain.aio_run(), 60)
    await until(lambda: len(shop.errors) == 2, 60)
    assert shop.errors[1].failed_input["before"] == {"noted": None}
    swarm = await shop.client.swarm([shop.workflow, shop.note], closed=True)
    results = await asyncio.wait_for(swarm.aio_run(), 60)
    assert results == [None, {"noted": None}]
    [item] = await swarm.failed_items()
    assert (item.index, item.task, item.error.task) == (0, shop.workflow.name, "pack")
    await asyncio.sleep(0.5)
    assert len(shop.errors) == 2
    assert shop.ran["ship"] == 0


async def test_a_workflow_is_a_success_callback_and_an_error_callback(shop: Shop, mageflow_worker: Any) -> None:
    """The result and the error arrive in every task of it."""
    client = shop.client
    seen: list[Any] = []
    remedy = client.workflow(name=f"{shop.workflow.name}-remedy", input_validator=TaskError)

    @remedy.task(name="first")
    async def first(error: TaskError) -> dict[str, Any]:
        seen.append(error.message)
        return {}

    @remedy.task(name="second", parents=[first])
    async def second(error: TaskError) -> dict[str, Any]:
        seen.append(error.original_message["number"])
        return {}

    mageflow_worker.in_process(client, "remedy", workflows=[remedy], slots=5)
    signature = await client.sign(shop.note, success_callbacks=[await client.sign(shop.workflow, number=4)])
    await signature.aio_run(Order(before=1))
    await until(lambda: shop.ran == {"price": 1, "pack": 1, "ship": 1}, 60)
    shop.fails = {"price"}
    failing = await client.sign(shop.workflow, number=6, error_callbacks=[remedy])
    with pytest.raises(Exception, match="price of 6"):
        await failing.aio_run()
    await until(lambda: seen == ["price of 6", 6], 60)


async def test_retries_and_tasks_for_the_end_belong_to_the_workflow(signed: Observed, mageflow_worker: Any) -> None:
    """A failed attempt that is retried is no failure. A workflow of one task with a hook has outputs by name."""
    client: Any = signed.client
    seen: list[Any] = []
    flaky = client.workflow(name="wf-flaky", input_validator=Order)

    @flaky.task(name="flaky", retries=2)
    @client.with_ctx
    async def once(msg: Order, ctx: Context) -> dict[str, Any]:
        if ctx.attempt_number < 3:
            raise ValueError("again")
        return {"attempt": ctx.attempt_number}

    @flaky.on_success_task(name="good")
    async def good(msg: Order) -> dict[str, Any]:
        seen.append("good")
        return {"good": True}

    bad = client.workflow(name="wf-bad", input_validator=Order)

    @bad.task(name="bad")
    async def fails(msg: Order) -> dict[str, Any]:
        raise ValueError("no good")

    @bad.on_failure_task(name="sorry")
    async def sorry(msg: Order) -> dict[str, Any]:
        seen.append("sorry")
        return {}

    @client.task(name="wf-hook-report")
    async def report(error: TaskError) -> dict[str, Any]:
        seen.append(error.message)
        return {}

    mageflow_worker.in_process(client, "hooks", workflows=[flaky, bad, report], slots=10)
    plain = await flaky.aio_run(Order())
    chain = await client.chain([flaky, await client.sign(bad)], error=report)
    with pytest.raises(FlowFailedError, match="no good"):
        await asyncio.wait_for(chain.aio_run(), 60)
    first = await client.load_signature(chain.steps[0])
    assert first.status is Status.DONE
    swarm = await client.swarm([flaky], closed=True)
    assert await asyncio.wait_for(swarm.aio_run(), 60) == [plain]
    assert plain["flaky"] == {"attempt": 3}
    await until(lambda: Counter(seen) == {"good": 3, "sorry": 1, "no good": 1}, 60)
    runs = signed.samples
    assert runs.value("mageflow_task_runs_total", task="wf-flaky:flaky", outcome="retried") == 6
    assert runs.value("mageflow_task_runs_total", task="wf-bad:bad", outcome="failed") == 1


async def test_a_workflow_that_has_begun_goes_to_its_end_while_its_flow_is_suspended(shop: Shop) -> None:
    """Its other tasks run, its result is kept, and what follows waits. One that has not begun is held."""
    shop.pauses = {"price"}
    chain = await shop.client.chain([shop.workflow, shop.workflow, shop.note])
    await chain.aio_run_no_wait(Order(number=2))
    await until(lambda: "price" in shop.reached, 60)
    await chain.suspend(why="stock count")
    shop.pauses = set()
    await until(lambda: shop.ran["ship"] == 1, 60)
    async with asyncio.timeout(60):
        while (await shop.client.load_signature(chain.steps[0])).status is not Status.DONE:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    assert shop.ran == {"price": 1, "pack": 1, "ship": 1}
    await chain.resume()
    assert (await ended(shop.client, chain.key)).status is Status.DONE
    assert shop.ran == {"price": 2, "pack": 2, "ship": 2}
    single = await shop.client.sign(shop.workflow)
    await single.suspend()
    reference = await single.aio_run_no_wait(Order(number=9))
    await asyncio.wait_for(reference.aio_result(), 60)
    assert shop.ran["price"] == 2
    await single.resume()
    assert (await ended(shop.client, single.key)).status is Status.DONE
    assert shop.ran == {"price": 3, "pack": 3, "ship": 3}


async def test_a_second_run_of_the_same_dispatch_is_turned_away(shop: Shop) -> None:
    """None of its tasks runs, and it says which run has its metadata: a call that the SDK repeats has the same."""
    shop.pauses = {"price"}
    chain = await shop.client.chain([shop.workflow, shop.note])
    await chain.aio_run_no_wait(Order(number=2))
    await until(lambda: "price" in shop.reached, 60)
    step = await shop.client.load_signature(chain.steps[0])
    details = await shop.client.runs.aio_get(step.last_run.workflow_run_id)
    metadata = dict(details.run.additional_metadata)
    bare = Hatchet().stubs.workflow(name=shop.workflow.name, input_validator=Order)
    second = await bare.aio_run(Order(number=2), additional_metadata=metadata, wait_for_result=False)
    with pytest.raises(FailedTaskRunExceptionGroup, match="DuplicateRunError"):
        await asyncio.wait_for(second.aio_result(), 60)
    shop.pauses = set()
    assert (await ended(shop.client, chain.key)).status is Status.DONE
    assert shop.ran == {"price": 1, "pack": 1, "ship": 1}


async def test_an_interrupted_workflow_is_cancelled(shop: Shop) -> None:
    """Its error callback gets the interruption, once."""
    shop.pauses = {"price"}
    signature = await shop.client.sign(shop.workflow, error_callbacks=[shop.report])
    await signature.aio_run_no_wait(Order(number=2))
    await until(lambda: "price" in shop.reached, 60)
    await signature.interrupt(why="enough")
    await until(lambda: len(shop.errors) == 1, 60)
    assert (shop.errors[0].type, shop.errors[0].message) == ("TaskInterrupted", "enough")
    shop.pauses = set()
    await asyncio.sleep(3)
    assert (await shop.client.load_signature(signature.key)).status is Status.INTERRUPTED
    assert (len(shop.errors), shop.ran["ship"]) == (1, 0)


async def test_a_failed_workflow_that_a_user_replays_goes_on_with_its_flow(shop: Shop) -> None:
    """As a failed step does."""
    shop.fails = {"ship"}
    chain = await shop.client.chain([shop.workflow, shop.note])
    with pytest.raises(FlowFailedError, match="ship of 0"):
        await asyncio.wait_for(chain.aio_run(), 60)
    shop.fails = set()
    step = await shop.client.load_signature(chain.steps[0])
    await shop.client.runs.aio_replay(step.last_run.workflow_run_id)
    async with asyncio.timeout(60):
        while (await shop.client.load_signature(chain.key)).status is not Status.DONE:
            await asyncio.sleep(0.05)
    assert shop.seen == [outputs(0)]
    assert shop.ran["ship"] == 2


async def test_workflows_that_cannot_be_signed_are_refused(signed: Observed) -> None:
    """Without tasks, and with a batch task."""
    client: Any = signed.client
    empty = client.workflow(name="wf-empty")
    batched = client.workflow(name="wf-batched")

    @batched.task(name="one")
    async def one(msg: Order) -> None: ...

    @batched.batch_task(name="many", batch_max_size=2)
    async def many(items: dict[str, Order]) -> dict[str, Any]:
        return {}

    with pytest.raises(FlowDefinitionError, match="has no task"):
        await client.sign(empty)
    with pytest.raises(FlowDefinitionError, match="sign the tasks that feed it"):
        await client.sign(batched)


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
async def test_a_stand_alone_task_can_be_a_task_of_a_signed_workflow(
    signed: Observed, mageflow_worker: Any, alone: bool
) -> None:
    """``workflow.add_task``: its runs belong to the signature of the workflow, and those of the task to its own."""
    client, ran, seen = signed.client, Counter[str](), []
    name = f"added-{alone}".lower()

    @client.task(name=f"{name}-shared")
    async def shared(msg: Order) -> dict[str, Any]:
        ran["shared"] += 1
        return {"shared": msg.number}

    @client.task(name=f"{name}-note")
    async def note(msg: Order) -> Any:
        seen.append(msg.before)
        return {}

    workflow = client.workflow(name=name, input_validator=Order)
    if not alone:

        @workflow.task(name="own")
        async def own(msg: Order) -> dict[str, Any]:
            ran["own"] += 1
            return {"own": msg.number}

    workflow.add_task(shared)
    mageflow_worker.in_process(client, name, workflows=[shared, note, workflow])
    of_workflow = await client.sign(workflow, success_callbacks=[note], number=4)
    of_task = await client.sign(shared, success_callbacks=[note], number=5)
    result = await of_workflow.aio_run()
    assert await of_task.aio_run() == {"shared": 5}
    for each in (of_workflow, of_task):
        assert (await ended(client, each.key)).status is Status.DONE
    outputs_of_both = (
        {f"{name}-shared": {"shared": 4}} if alone else {"own": {"own": 4}, f"{name}-shared": {"shared": 4}}
    )
    assert result == outputs_of_both
    await until(lambda: len(seen) == 2, 60)
    given = {"shared": 4} if alone else outputs_of_both
    assert [each for each in seen if each != {"shared": 5}] == [given]
    assert ran == ({"shared": 2} if alone else {"shared": 2, "own": 1})


@pytest.mark.timeout(400)
async def test_a_killed_worker_loses_no_workflow(tmp_path: Path, mageflow_redis: Any) -> None:
    """SIGKILL at several moments: every chain ends, with the outputs.

    A task whose success Hatchet knows at a death never runs again, in its workflow or in another run of it. One that
    died with its worker does: then it may have ended before, and its success was not reported.
    """
    ledger = tmp_path / "ledger"
    environment = {"WORKFLOW_REDIS": mageflow_redis.url, "PYTHONPATH": str(SCRIPT.parents[2])}
    with LocalEngine(worker_lost_after=LOST_AFTER_SECONDS) as engine:
        client: Any = Mageflow(engine.client(), mageflow_redis.url, settings=QUICK)
        chains = [await client.chain(["killed-order", "killed-note"], name="killed") for _ in range(12)]
        final: list[tuple[set[str], Counter[str]]] = []
        worker = WorkerProcess(engine, SCRIPT, str(ledger), output=tmp_path / "0.log", environment=environment)
        await worker.aio_start()
        for number, chain in enumerate(chains):
            await chain.aio_run_no_wait({"number": number})
        for life, pause in enumerate((0.15, 0.45, 0.75), 1):
            await asyncio.sleep(pause)
            if life == 3:  # Hatchet knows a success at one of the deaths at least
                async with asyncio.timeout(120):
                    while not await succeeded_tasks(client, chains):
                        await asyncio.sleep(0.05)
            worker.kill()
            reported = await succeeded_tasks(client, chains)
            final.append((reported, Counter(ledger.read_text().splitlines()) if ledger.exists() else Counter()))
            worker = WorkerProcess(
                engine, SCRIPT, str(ledger), output=tmp_path / f"{life}.log", environment=environment
            )
            await worker.aio_start()
        try:
            async with asyncio.timeout(150):
                results = [await chain.aio_run() for chain in chains]
        finally:
            await worker.aio_stop()
        await client.aclose()
    assert results == [{"price": {"price": n * 2}, "ship": {"paid": n * 2}} for n in range(12)]
    ends = Counter(ledger.read_text().splitlines())
    assert ends.keys() == {
        f"{task} {what}" for n in range(12) for task, what in (("price", n), ("ship", n), ("last", n * 2))
    }
    assert any(reported for reported, _ in final)
    for reported, before in final:
        assert {line: ends[line] for line in reported} == {line: before[line] for line in reported}
    assert max(ends.values()) <= 1 + len(final)


async def succeeded_tasks(client: Any, chains: list[Any]) -> set[str]:
    """The tasks that Hatchet knows as succeeded, as lines of the ledger."""
    found: set[str] = set()
    for number, chain in enumerate(chains):
        for index, key in enumerate(chain.steps):
            run = (await client.load_signature(key)).last_run
            details = await client.runs.aio_get(run.workflow_run_id) if run else None
            for task in details.tasks if details else ():
                name = "last" if index else task.display_name.split("-")[0]
                if task.status is V1TaskStatus.COMPLETED:
                    found.add(f"{name} {number * 2 if index else number}")
    return found
