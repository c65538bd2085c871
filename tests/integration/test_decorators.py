"""Decorated tasks on a real worker get their arguments, with every order, kind of function and client."""

import asyncio
import itertools
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from hatchet_sdk import Context, Depends
from hatchet_sdk.runnables.types import BatchMemberId
from pydantic import BaseModel

from mageflow import AcceptParams, TaskSignature
from mageflow.errors import DecorationError
from mageflow.testing.ports import free_port
from tests.integration import postponed
from tests.integration.conftest import scrape


class Message(BaseModel):
    x: int = 0


@dataclass
class Record:
    x: int


async def double(message: Message, ctx: Context) -> int:
    return message.x * 2


Doubled = Annotated[int, Depends(double)]


async def test_every_order_of_decorators_on_sync_and_async_functions(observed, mageflow_worker):
    """Twelve tasks: all six orders of the three decorators, over a coroutine and a thread-pool function."""
    client = observed.client
    decorators = [client.with_ctx, client.with_signature, client.stagger_execution(timedelta(milliseconds=20))]

    async def on_loop(msg: Message, ctx: Context, signature: TaskSignature) -> dict[str, Any]:
        return {"x": msg.x, "run": ctx.workflow_run_id, "task": signature.task_name}

    def in_thread(msg: Message, ctx: Context, signature: TaskSignature) -> dict[str, Any]:
        return {"x": msg.x, "run": ctx.workflow_run_id, "task": signature.task_name}

    tasks = []
    for number, (func, order) in enumerate(itertools.product([on_loop, in_thread], itertools.permutations(decorators))):
        decorated = func
        for decorator in order:
            decorated = decorator(decorated)
        tasks.append(client.task(name=f"order-{number}")(decorated))
    mageflow_worker.in_process(client, "orders", workflows=tasks)

    for number, task in enumerate(tasks):
        reference = await task.aio_run(Message(x=number), wait_for_result=False)
        assert await reference.aio_result() == {
            "x": number,
            "run": reference.workflow_run_id,
            "task": f"order-{number}",
        }
    assert observed.samples.total("mageflow_staggers_total", outcome="completed") == 12
    assert observed.samples.total("mageflow_task_runs_total", outcome="succeeded") == 12


async def test_messages_contexts_and_dependencies_of_every_kind(observed, make_observed, mageflow_worker):
    """Models, dataclasses, dicts, dependencies, durable, workflow and hook tasks, and all three AcceptParams."""
    client = observed.client
    seen: dict[str, Any] = {}

    @client.task(name="model")
    async def model(msg: Message) -> Message:
        return Message(x=msg.x + 1)

    @client.task(name="dataclass")
    def dataclass_task(msg: Record) -> Record:
        return Record(x=msg.x + 1)

    @client.task(name="dict", input_validator=dict[str, Any])
    async def dict_task(msg: dict[str, Any]) -> dict[str, Any]:
        return {**msg, "y": 2}

    @client.task(name="depends")
    async def depends(msg: Message, doubled: Doubled) -> dict[str, Any]:
        return {"doubled": doubled}

    @client.task(name="depends-sync")
    @client.with_ctx
    def depends_sync(msg: Message, doubled: Doubled, ctx: Context) -> dict[str, Any]:
        return {"doubled": doubled, "attempt": ctx.attempt_number}

    @client.task(name="as-for-hatchet", input_validator=Message)
    async def as_for_hatchet(input: Message, ctx: Context) -> dict[str, Any]:
        return {"x": input.x, "name": ctx.task_name}

    workflow = client.workflow(name="pipeline", input_validator=Message)

    @workflow.task()
    async def first(msg: Message) -> dict[str, Any]:
        return {"x": msg.x}

    @workflow.task(parents=[first])
    @client.with_ctx
    def second(msg: Message, ctx: Context) -> dict[str, Any]:
        raise ValueError(str(ctx.task_output(first)["x"]))

    @workflow.on_failure_task()
    @client.with_signature
    async def failed(msg: Message, signature: TaskSignature) -> dict[str, Any]:
        seen["failed"] = signature.task_name
        return {}

    everything = make_observed(param_config=AcceptParams.ALL).client
    context_only = make_observed(param_config=AcceptParams.CTX_ONLY).client

    @everything.task(name="all")
    async def all_params(msg: Message, ctx: Context) -> dict[str, Any]:
        return {"x": msg.x, "ctx": ctx.task_name}

    @context_only.task(name="ctx-only")
    @context_only.with_signature
    async def ctx_only(ctx: Context, signature: TaskSignature) -> dict[str, Any]:
        return {"ctx": ctx.task_name, "sig": signature.task_name}

    mageflow_worker.in_process(
        client,
        "kinds",
        workflows=[
            model, dataclass_task, dict_task, depends, depends_sync, as_for_hatchet, workflow, all_params, ctx_only,
        ],
    )  # fmt: skip

    assert await model.aio_run(Message(x=1)) == Message(x=2)
    assert await dataclass_task.aio_run(Record(x=1)) == Record(x=2)
    assert await dict_task.aio_run({"x": 1}) == {"x": 1, "y": 2}
    assert await depends.aio_run(Message(x=4)) == {"doubled": 8}
    assert await depends_sync.aio_run(Message(x=4)) == {"doubled": 8, "attempt": 1}
    assert await as_for_hatchet.aio_run(Message(x=4)) == {"x": 4, "name": "as-for-hatchet"}
    assert await all_params.aio_run(Message(x=4)) == {"x": 4, "ctx": "all"}
    assert await ctx_only.aio_run() == {"ctx": "ctx-only", "sig": "ctx-only"}
    with pytest.raises(Exception, match="ValueError: 7"):
        await workflow.aio_run(Message(x=7))
    assert seen == {"failed": "pipeline:failed-on-failure"}  # the SDK names hooks so
    assert observed.samples.value("mageflow_task_runs_total", task="pipeline:second", outcome="failed") == 1
    assert observed.samples.value("mageflow_task_runs_total", task="pipeline:first", outcome="succeeded") == 1


async def test_batches_are_one_attempt_each_in_coroutines_and_threads(observed, mageflow_worker):
    """A batch function gets its items and its context. It is recorded as one attempt, with its size."""
    client = observed.client

    @client.batch_task(name="batch-async", batch_max_size=3, batch_max_interval=timedelta(seconds=60))
    async def batch_async(items: dict[BatchMemberId, Message]) -> dict[BatchMemberId, Message]:
        return {key: Message(x=each.x * 2) for key, each in items.items()}

    @client.batch_task(name="batch-sync", batch_max_size=2, batch_max_interval=timedelta(seconds=60))
    @client.with_ctx
    def batch_sync(items: dict[BatchMemberId, Message], ctx: Context) -> dict[BatchMemberId, Message]:
        if any(each.x < 0 for each in items.values()):
            raise ValueError(ctx.worker_id)
        return {key: Message(x=each.x * 3) for key, each in items.items()}

    mageflow_worker.in_process(client, "batches", workflows=[batch_async, batch_sync])
    results = await asyncio.gather(*(batch_async.aio_run(Message(x=x)) for x in range(3)))
    assert results == [Message(x=0), Message(x=2), Message(x=4)]
    assert await asyncio.gather(*(batch_sync.aio_run(Message(x=x)) for x in (1, 2))) == [Message(x=3), Message(x=6)]
    failed = await asyncio.gather(*(batch_sync.aio_run(Message(x=-1)) for _ in range(2)), return_exceptions=True)
    assert all("ValueError" in str(each) for each in failed)
    samples = observed.samples
    assert samples.value("mageflow_task_runs_total", task="batch-async", outcome="succeeded") == 3
    assert samples.value("mageflow_task_runs_total", task="batch-sync", outcome="succeeded") == 2
    assert samples.value("mageflow_task_runs_total", task="batch-sync", outcome="failed") == 2
    assert observed.spans.one("process batch-async").attributes["messaging.batch.message_count"] == 3


async def test_a_function_gets_its_own_keywords_only(observed, mageflow_worker):
    """``**extras`` of a function, on the loop and in a thread, has the dependencies and nothing of mageflow."""
    client = observed.client

    @client.task(name="extras-async")
    async def extras_async(msg: Message, doubled: Doubled, **extras: Any) -> dict[str, Any]:
        return {"doubled": doubled, "extras": sorted(extras)}

    @client.task(name="extras-sync")
    def extras_sync(msg: Message, doubled: Doubled, **extras: Any) -> dict[str, Any]:
        return {"doubled": doubled, "extras": sorted(extras)}

    mageflow_worker.in_process(client, "extras", workflows=[extras_async, extras_sync])
    assert await extras_async.aio_run(Message(x=2)) == {"doubled": 4, "extras": []}
    assert await extras_sync.aio_run(Message(x=2)) == {"doubled": 4, "extras": []}
    assert observed.samples.total("mageflow_task_runs_total", outcome="succeeded") == 2


async def test_mock_run_needs_no_engine_and_says_nothing(observed):
    """Unit tests of tasks work as with the SDK: sync, async, staggered, signed, with given dependencies."""
    client = observed.client

    @client.task(name="mock-async")
    @client.stagger_execution(timedelta(hours=1))
    @client.with_signature
    async def mock_async(msg: Message, signature: TaskSignature, doubled: Doubled) -> dict[str, Any]:
        return {"x": msg.x, "task": signature.task_name, "doubled": doubled}

    @client.task(name="mock-sync")
    @client.with_ctx
    def mock_sync(msg: Message, ctx: Context) -> dict[str, Any]:
        return {"x": msg.x, "attempt": ctx.attempt_number}

    assert await mock_async.aio_mock_run(Message(x=1), dependencies={"doubled": 5}) == {
        "x": 1,
        "task": "mock-async",
        "doubled": 5,
    }

    @client.batch_task(name="mock-batch", batch_max_size=2)
    async def mock_batch(items: dict[BatchMemberId, Message]) -> dict[BatchMemberId, Message]:
        return items

    assert mock_sync.mock_run(Message(x=1), retry_count=2) == {"x": 1, "attempt": 3}
    assert await mock_batch.aio_mock_run(Message(x=1)) == Message(x=1)  # the SDK passes one message, not a batch
    assert mock_async.is_async_function
    assert not mock_sync.is_async_function
    assert not [name for name in observed.samples.names() if name.startswith("mageflow_task_runs")]
    assert len(observed.spans) == 0


def test_what_cannot_be_is_said_at_declaration(observed):
    """Batches have no signature and no stagger; a context or signature without a parameter is refused."""
    client = observed.client

    async def batch(items: dict[str, Message], signature: TaskSignature) -> dict[str, Any]:
        return {}

    with pytest.raises(DecorationError, match=r"write @client\.with_signature on the task that starts"):
        client.batch_task(name="b", batch_max_size=2)(client.with_signature(batch))
    with pytest.raises(DecorationError, match=r"write @client\.stagger_execution on the task that starts"):
        client.batch_task(name="b", batch_max_size=2)(client.stagger_execution(timedelta(seconds=1))(batch))
    with pytest.raises(DecorationError, match="the context needs a parameter: write async def"):

        @client.task(name="no-room")
        @client.with_ctx
        async def no_room(msg: Message) -> None: ...


async def test_durable_tasks_are_wrapped_too(mageflow_worker, mageflow_engine, tmp_path):
    """A durable task gets its context, is staggered once, and its children are counted as enqueued."""
    port = free_port()
    mageflow_worker(
        Path(__file__).with_name("durable_worker.py"),
        environment={"MAGEFLOW_METRICS_PORT": str(port), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    durable = mageflow_engine.client().stubs.task(name="durable", input_validator=dict, output_validator=dict)
    result = await durable.aio_run({"x": 3})
    assert result["x"] == 30
    samples = scrape(port)
    assert samples.value("mageflow_task_runs_total", task="durable", outcome="succeeded") == 1
    assert samples.value("mageflow_tasks_enqueued_total", task="leaf", source="direct", result="ok") == 1
    assert samples.value("mageflow_staggers_total", task="durable", outcome="completed") == 1


async def test_postponed_annotations_change_nothing(observed, mageflow_worker):
    """Under ``from __future__ import annotations`` messages are inferred, contexts found and dependencies injected."""
    client = observed.client
    tasks = [
        client.task(name="postponed")(postponed.on_loop),
        client.task(name="postponed-sync")(client.with_ctx(postponed.in_thread)),
    ]
    mageflow_worker.in_process(client, "postponed", workflows=tasks)
    for task in tasks:
        assert await task.aio_run(postponed.Message(x=2)) == {"x": 2, "doubled": 4, "attempt": 1}
