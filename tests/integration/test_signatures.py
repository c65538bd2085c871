"""Signatures end to end: signed in one process, admitted, run and settled by a worker."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from hatchet_sdk import Context
from pydantic import BaseModel

from mageflow import TaskSignature
from mageflow.errors import FlowDefinitionError, SignatureNotFoundError
from mageflow.testing import capture_logs
from tests.integration.conftest import until


class Options(BaseModel):
    deep: int = 0
    other: int = 0


class Message(BaseModel):
    x: int = 0
    y: int = 0
    options: Options = Options()


@pytest.fixture
def signed(make_observed, mageflow_redis):
    """A client with a real Valkey."""
    return make_observed(mageflow_redis.url)


async def test_a_signed_task_runs_with_what_is_bound_and_knows_itself(signed, mageflow_worker):
    """Bound values are merged with the message, the task receives its signature, and the state can be read."""
    client = signed.client

    @client.task(name="signed")
    @client.with_signature
    @client.with_ctx
    async def task(msg: Message, ctx: Context, signature: TaskSignature) -> dict[str, Any]:
        return {
            "msg": msg.model_dump(),
            "name": signature.task_name,
            "ids": signature.task_identifiers,
            "status": signature.status,
            "run": ctx.workflow_run_id,
        }

    @client.task(name="signed-sync")
    @client.with_signature
    def sync_task(msg: Message, signature: TaskSignature) -> dict[str, Any]:
        return {"key": signature.key, "x": msg.x}

    @client.task(name="plain")
    @client.with_signature
    async def plain(msg: Message, signature: TaskSignature) -> dict[str, Any]:
        return {"stored": signature.is_stored, "ids": signature.task_identifiers}

    mageflow_worker.in_process(client, "signed", workflows=[task, sync_task, plain])
    signature = await client.sign(task, task_identifiers={"order": 17}, x=1, y=2, options={"deep": 5})
    assert signature.status == "pending"

    result = await signature.aio_run(Message(x=10, options=Options(other=7)))
    assert result["msg"] == {"x": 10, "y": 2, "options": {"deep": 5, "other": 7}}
    assert (result["name"], result["ids"], result["status"]) == ("signed", {"order": 17}, "active")

    stored = await client.load_signature(signature.key)
    assert isinstance(stored, TaskSignature)
    assert (stored.status, stored.attempts, stored.last_run.workflow_run_id) == ("done", 1, result["run"])
    assert stored.created_at.tzinfo is not None

    in_thread = await client.sign(sync_task, x=3)
    assert await in_thread.aio_run() == {"key": in_thread.key, "x": 3}
    assert (await in_thread.aio_run({"x": 4}))["x"] == 4  # each run a user makes is a run of its own
    unsigned = await plain.aio_run(Message())
    assert unsigned["stored"] is False
    assert set(unsigned["ids"]) == {"workflow_run_id", "task_run_id", "worker_id", "attempt_number"}

    samples = signed.samples
    assert samples.value("mageflow_signature_writes_total", kind="task", operation="create", result="ok") == 2
    assert samples.value("mageflow_signature_loads_total", kind="task", result="hit") == 4
    assert samples.value("mageflow_tasks_enqueued_total", task="signed", source="signature", result="ok") == 1
    assert samples.value("mageflow_signature_load_duration_seconds_count", kind="task") == 4
    names = {span.name for span in signed.spans}
    assert {"send signed", "process signed", "load signature", "execute signed"} <= names


@pytest.mark.parametrize("kind", ["task", "chain"])
async def test_a_signed_run_has_one_signature_id_in_every_signal(signed, mageflow_worker, kind: str):
    """Spans of its send, its load and its attempt, and its log events: the id within the key, for callbacks too."""
    client = signed.client

    @client.task(name="signed")
    async def task(msg: Message) -> dict[str, Any]:
        return {"x": msg.x}

    @client.task(name="callback")
    async def callback(msg: dict[str, Any]) -> dict[str, Any]:
        return {}

    mageflow_worker.in_process(client, "one-id", workflows=[task, callback])
    with capture_logs() as logs:
        if kind == "task":
            signature = await client.sign(task, success_callbacks=[callback])
        else:
            signature = await client.chain([task, task], success=callback)
        await signature.aio_run(Message(x=1))
        await until(lambda: signed.spans.named("process callback"))

    signature_id = signature.key.rpartition(":")[2]
    assert len(signature_id) == 32
    attribute = "mageflow.signature.id"
    for name in ("send signed", "load signature", "process signed", "send callback", "process callback"):
        spans = signed.spans.named(name)
        assert {span.attributes[attribute] for span in spans} == {signature_id}, name
    assert {span.attributes[attribute] for span in signed.spans if attribute in span.attributes} == {signature_id}
    for event in ("mageflow.task.started", "mageflow.task.finished"):
        tasks = {record["task"]: record["signature_id"] for record in logs.named(event)}
        assert tasks == {"signed": signature_id, "callback": signature_id}, event
    assert {record["signature_id"] for record in logs if "signature_id" in record} == {signature_id}


async def test_failures_and_retries_are_recorded_with_their_reason(signed, mageflow_worker):
    """The last error, its attempt and the history can be read; a removed signature cannot run."""
    client = signed.client

    @client.task(name="flaky", retries=1)
    @client.with_ctx
    async def flaky(msg: Message, ctx: Context) -> dict[str, Any]:
        if ctx.attempt_number == 1 or msg.x:
            raise ValueError(f"attempt {ctx.attempt_number}")
        return {}

    mageflow_worker.in_process(client, "flaky", workflows=[flaky])
    recovers, fails = await client.sign(flaky), await client.sign(flaky, x=1)
    await recovers.aio_run()
    with pytest.raises(Exception, match="attempt 2"):
        await fails.aio_run()
    good, bad = await client.load_signature(recovers.key), await client.load_signature(fails.key)
    assert (good.status, good.attempts) == ("done", 2)
    assert (bad.status, bad.attempts) == ("failed", 2)
    assert (bad.last_error.type, bad.last_error.message, bad.last_error.attempt) == ("ValueError", "attempt 2", 2)
    assert [entry.status for entry in bad.history][-1] == "failed"

    gone = await client.sign(flaky)
    assert await client.remove(gone)
    with pytest.raises(SignatureNotFoundError):
        await client.load_signature(gone.key)
    with pytest.raises(Exception, match="SignatureNotFoundError"):
        await gone.aio_run()
    assert signed.samples.value("mageflow_signature_loads_total", kind="task", result="missing") >= 1
    outcomes = signed.samples.by("outcome", "mageflow_task_runs_total", task="flaky")
    assert outcomes == {**outcomes, "retried": 2, "failed": 2, "succeeded": 1}


async def test_children_inherit_no_signature_and_metadata_stays_the_callers(
    signed, make_observed, mageflow_redis, mageflow_worker
):
    """A run spawned inside a signed run is a plain run; the task sees its own metadata unchanged."""
    client = signed.client

    @client.task(name="child")
    @client.with_signature
    async def child(msg: Message, signature: TaskSignature, ctx: Context) -> dict[str, Any]:
        return {"stored": signature.is_stored, "mine": ctx.additional_metadata.get("mine")}

    @client.task(name="parent")
    @client.with_ctx
    async def parent(msg: Message, ctx: Context) -> dict[str, Any]:
        inner = await child.aio_run(Message())
        return {"child": dict(inner), "mine": ctx.additional_metadata["mine"]}

    mageflow_worker.in_process(client, "family", slots=5, workflows=[parent, child])
    # The SDK's result listener belongs to one event loop, and the worker awaits its child on it: another client here.
    signature = await make_observed(mageflow_redis.url).client.sign("parent")
    mine = {"mine": "yes"}
    result = await signature.aio_run(additional_metadata=mine)
    assert result == {"child": {"stored": False, "mine": "yes"}, "mine": "yes"}
    assert mine == {"mine": "yes"}


async def test_what_cannot_be_signed_is_refused_with_the_way_out(signed):
    """Batches, wrong fields, and objects that are no task."""
    client = signed.client

    @client.batch_task(name="batch", batch_max_size=2)
    async def batch(items: dict[str, Message]) -> dict[str, Any]:
        return {}

    @client.task(name="fields")
    async def fields(msg: Message) -> None: ...

    with pytest.raises(FlowDefinitionError, match="sign the tasks that feed it"):
        await client.sign(batch)
    with pytest.raises(FlowDefinitionError, match="colour"):
        await client.sign(fields, colour="red")
    with pytest.raises(FlowDefinitionError):
        await client.sign(object())


async def test_a_chain_a_swarm_and_their_callbacks_run_to_the_end(signed, mageflow_worker):
    """The shortest proof that flows work on real workers; tests/flows has the rest."""
    client = signed.client
    seen: dict[str, Any] = {}
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    @client.task(name="add")
    async def add(msg: dict[str, Any]) -> dict[str, Any]:
        return {"n": msg.get("n", 0) + (msg.get("mageflow_results") or {}).get("n", 0) + 1}

    @client.task(name="note")
    async def note(msg: dict[str, Any]) -> dict[str, Any]:
        seen.update(msg)
        loop.call_soon_threadsafe(done.set)
        return {}

    mageflow_worker.in_process(client, "flows", slots=10, workflows=[add, note])
    chain = await client.chain([add, add, add], name="three", success=note)
    assert await chain.aio_run({"n": 5}) == {"n": 8}
    await asyncio.wait_for(done.wait(), 60)
    assert seen["mageflow_results"] == {"n": 8}
    swarm = await client.swarm([await client.sign(add, n=n) for n in range(5)], name="five", closed=True)
    assert await swarm.aio_run() == [{"n": n + 1} for n in range(5)]
    trace_ids = {
        span.context.trace_id for span in signed.spans if span.attributes.get("messaging.destination.name") == "add"
        and span.attributes.get("mageflow.flow.kind") == "chain"
    }  # fmt: skip
    assert len(trace_ids) == 1


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (SilentError, "<no text: str() raised RuntimeError>"),
        (lambda: ValueError("\ud800"), "\\ud800"),
        (lambda: ValueError("x" * 3_000_000), "characters left out"),
    ],
)
async def test_a_failure_is_recorded_whatever_the_text_of_its_error(signed, mageflow_worker, make, says):
    """The signature fails with the class of the error and as much of its text as possible."""
    client = signed.client

    @client.task(name="wordless", execution_timeout=timedelta(seconds=5))
    async def task(msg: Message) -> dict[str, Any]:
        raise make()

    mageflow_worker.in_process(client, "wordless", workflows=[task])
    signature = await client.sign(task)
    await signature.aio_run_no_wait(Message())
    async with asyncio.timeout(60):
        while (found := await client.load_signature(signature.key)).status != "failed":
            await asyncio.sleep(0.05)
    assert found.last_error.type == type(make()).__name__
    assert says in found.last_error.message
    assert len(found.last_error.message) < 40_000


async def test_a_task_goes_by_the_name_it_was_declared_with(signed, mageflow_worker):
    """Hatchet stores task names in lower case; signals, signatures and enqueues use the declared name."""
    client = signed.client

    @client.task(name="SendMail")
    @client.with_signature
    async def task(msg: Message, signature: TaskSignature) -> dict[str, Any]:
        return {"name": signature.task_name}

    mageflow_worker.in_process(client, "names", workflows=[task])
    assert await task.aio_run(Message()) == {"name": "SendMail"}
    assert await (await client.sign(task)).aio_run(Message()) == {"name": "SendMail"}
    assert signed.samples.total("mageflow_task_runs_total", task="SendMail", outcome="succeeded") == 2
    assert signed.samples.total("mageflow_tasks_enqueued_total", task="SendMail") == 2


@pytest.mark.parametrize("is_async", [True, False], ids=["on-loop", "in-thread"])
@pytest.mark.parametrize("ends_by", ["cancel", "timeout"])
async def test_a_result_hatchet_throws_away_moves_no_flow_on(signed, mageflow_worker, is_async, ends_by):
    """A task watches ``ctx.is_cancelled`` and returns: the run is cancelled or timed out, and so is the chain."""
    client = signed.client
    ran: list[str] = []
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def on_loop(msg: Message, ctx: Context) -> dict[str, Any]:
        loop.call_soon_threadsafe(started.set)
        while not ctx.is_cancelled:
            await asyncio.sleep(0.01)
        return {"x": msg.x}

    def in_thread(msg: Message, ctx: Context) -> dict[str, Any]:
        loop.call_soon_threadsafe(started.set)
        while not ctx.is_cancelled:
            time.sleep(0.01)
        return {"x": msg.x}

    timeout = timedelta(seconds=3 if ends_by == "timeout" else 60)
    step = client.task(name="watchful", execution_timeout=timeout)(on_loop if is_async else in_thread)

    @client.task(name="following")
    async def following(msg: Message) -> dict[str, Any]:
        ran.append("following")
        return {}

    mageflow_worker.in_process(client, "watchful", workflows=[step, following])
    chain = await client.chain([step, following])
    await chain.aio_run_no_wait(Message())
    await asyncio.wait_for(started.wait(), 60)
    if ends_by == "cancel":
        runs = await client.runs.aio_list(only_tasks=True)
        (running,) = [row for row in runs.rows if row.workflow_name == "watchful" and row.status.value == "RUNNING"]
        await client.runs.aio_cancel(running.metadata.id)
    async with asyncio.timeout(60):
        while (found := await client.load_signature(chain.key)).status in ("pending", "active"):
            await asyncio.sleep(0.05)
    assert found.status == ("cancelled" if ends_by == "cancel" else "failed")
    assert ran == []
    assert signed.samples.total("mageflow_task_runs_total", task="watchful", outcome="succeeded") == 0
