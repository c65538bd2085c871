"""A run whose metadata names the signature of another run is a plain run, on real workers and a real Valkey."""

import asyncio
from typing import Any

import pytest
from hatchet_sdk import Context, FailedTaskRunExceptionGroup, Hatchet, NonRetryableException
from pydantic import BaseModel

from mageflow import Status
from mageflow.metadata import KEY_DEDUPE, KEY_ENQUEUED_AT, KEY_FLOW, KEY_SIGNATURE
from mageflow.testing import capture_logs
from tests.integration.conftest import Observed


class Message(BaseModel):
    n: int = 0


@pytest.fixture
def signed(make_observed: Any, mageflow_redis: Any) -> Observed:
    """A client with a real Valkey."""
    return make_observed(mageflow_redis.url)


async def test_a_user_passes_metadata_on_and_loses_nothing(signed: Observed, mageflow_worker: Any) -> None:
    """The child that a bare client starts with the parent's metadata runs its own function, and the chain ends."""
    client = signed.client

    @client.task(name="copied-child")
    async def child(msg: Message) -> dict[str, Any]:
        return {"child": msg.n}

    @client.task(name="copied-parent")
    @client.with_ctx
    async def parent(msg: Message, ctx: Context) -> dict[str, Any]:
        bare = Hatchet().stubs.task(name="copied-child", input_validator=Message)
        run = bare.aio_run(Message(n=7), additional_metadata=dict(ctx.additional_metadata))
        return {"got": await asyncio.wait_for(run, 60)}

    mageflow_worker.in_process(client, "copied", workflows=[child, parent])
    with capture_logs() as logs:
        signature = await client.sign(parent, n=2)
        assert await signature.aio_run() == {"got": {"child": 7}}
        chain = await client.chain([parent, parent], name="copied")
        assert await chain.aio_run() == {"got": {"child": 7}}
        told = logs.named("mageflow.signature.foreign")
    assert [each["level"] for each in told] == ["warning"] * 3
    assert (await client.load_signature(chain.key)).status is Status.DONE
    assert signed.samples.by("result", "mageflow_signature_loads_total", kind="chain")["foreign"] == 2
    spans = [each for each in signed.spans.named("load signature") if each.attributes]
    assert [each.attributes["mageflow.signature.result"] for each in spans].count("foreign") == 3


async def test_a_forged_run_does_not_become_the_step(signed: Observed, mageflow_worker: Any) -> None:
    """A run of another task executes its own function and leaves the step to the run that belongs to it."""
    client = signed.client
    ran: list[str] = []

    @client.task(name="forged-step")
    async def step(msg: Message) -> dict[str, Any]:
        ran.append("step")
        return {"step": msg.n}

    @client.task(name="forged-other")
    async def other(msg: Message) -> dict[str, Any]:
        ran.append("other")
        return {"other": msg.n}

    chain = await client.chain([step, step], name="victim")
    await chain.suspend()
    await chain.aio_run_no_wait(Message(n=3))
    mageflow_worker.in_process(client, "forged", workflows=[step, other])
    forged = {KEY_SIGNATURE: f"{chain.key}#0", KEY_FLOW: f"chain:{chain.key.rpartition(':')[2]}:0"}
    bare = Hatchet().stubs.task(name="forged-other", input_validator=Message, output_validator=dict[str, Any])
    assert await asyncio.wait_for(bare.aio_run(Message(n=9), additional_metadata=forged), 60) == {"other": 9}
    assert ran == ["other"]
    await chain.resume()
    assert await asyncio.wait_for(chain.aio_run(), 60) == {"step": 0}  # the message is for the first step
    assert ran == ["other", "step", "step"]


async def test_a_run_of_the_same_task_with_copied_metadata_is_a_plain_run(
    signed: Observed, mageflow_worker: Any, mageflow_redis: Any
) -> None:
    """A task that calls itself through a bare client, three deep; also when its own signature has expired meanwhile."""
    client = signed.client

    @client.task(name="calls-itself")
    @client.with_ctx
    async def calls_itself(msg: Message, ctx: Context) -> dict[str, Any]:
        if msg.n == 0:
            return {"leaf": True}
        if msg.n == 10:
            mageflow_redis.flush()
            msg.n = 1
        bare = Hatchet().stubs.task(name="calls-itself", input_validator=Message)
        run = bare.aio_run(Message(n=msg.n - 1), additional_metadata=dict(ctx.additional_metadata))
        return {"got": await asyncio.wait_for(run, 60)}

    mageflow_worker.in_process(client, "recursive", workflows=[calls_itself])
    deep = {"got": {"got": {"leaf": True}}}
    with capture_logs() as logs:
        signature = await client.sign(calls_itself, n=2)
        assert await signature.aio_run() == deep
        chain = await client.chain([signature, signature], name="recursive")
        assert await chain.aio_run() == deep
        assert (await client.load_signature(chain.key)).status is Status.DONE
        assert len(logs.named("mageflow.signature.foreign")) == 6
        expiring = await client.sign(calls_itself, n=10)
        assert await expiring.aio_run() == {"got": {"leaf": True}}
        assert len(logs.named("mageflow.signature.foreign")) == 7
    assert signed.samples.by("result", "mageflow_signature_loads_total", kind="task")["foreign"] == 3
    assert signed.samples.by("result", "mageflow_signature_loads_total", kind="chain")["foreign"] == 4


async def test_a_signature_that_a_task_runs_is_no_copy(signed: Observed, mageflow_worker: Any) -> None:
    """Its run is a child of the task, and it is signed."""
    client = signed.client

    @client.task(name="inner")
    async def inner(msg: Message) -> dict[str, Any]:
        return {"inner": msg.n}

    @client.task(name="outer")
    async def outer(msg: Message) -> dict[str, Any]:
        signature = await client.sign(inner, n=5)
        result = await signature.aio_run()
        return {"result": result, "status": (await client.load_signature(signature.key)).status}

    mageflow_worker.in_process(client, "nested", workflows=[inner, outer])
    bare = Hatchet().stubs.task(name="outer", input_validator=Message, output_validator=dict[str, Any])
    assert await asyncio.wait_for(bare.aio_run(Message()), 60) == {"result": {"inner": 5}, "status": "done"}
    assert signed.samples.by("result", "mageflow_signature_loads_total", kind="task")["foreign"] == 0


async def test_a_copy_that_is_sent_later_without_a_parent_is_a_plain_run(
    signed: Observed, mageflow_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program reads the metadata of an ended run and starts the task once more: its body runs, the flow stays."""
    monkeypatch.setattr("mageflow.flows.admissions._SENT_AGAIN_SECONDS", 2.0)
    client = signed.client
    seen: list[dict[str, Any]] = []

    @client.task(name="started-again")
    @client.with_ctx
    async def started_again(msg: Message, ctx: Context) -> dict[str, Any]:
        seen.append(dict(ctx.additional_metadata))
        return {"n": msg.n}

    mageflow_worker.in_process(client, "again", workflows=[started_again])
    bare = Hatchet().stubs.task(name="started-again", input_validator=Message, output_validator=dict[str, Any])
    signature = await client.sign(started_again, n=1)
    chain = await client.chain([signature, signature], name="again")
    with capture_logs() as logs:
        assert await signature.aio_run() == {"n": 1}
        assert await chain.aio_run() == {"n": 1}
        assert logs.named("mageflow.signature.foreign") == []
        copies = seen[:3]
        await asyncio.sleep(3)
        for metadata in copies:
            assert await asyncio.wait_for(bare.aio_run(Message(n=9), additional_metadata=metadata), 60) == {"n": 9}
        assert len(logs.named("mageflow.signature.foreign")) == 3
    assert len(seen) == 6
    assert (await client.load_signature(chain.key)).status is Status.DONE
    assert await client.load_signature(f"{chain.key}#0")


async def test_a_copy_that_may_be_a_second_delivery_fails_and_says_why(signed: Observed, mageflow_worker: Any) -> None:
    """Within two minutes Hatchet may have made it of the same call: it runs nothing, and its sender gets the reason."""
    client = signed.client
    seen: list[dict[str, Any]] = []

    @client.task(name="copied-at-once", retries=3)
    @client.with_ctx
    async def copied_at_once(msg: Message, ctx: Context) -> dict[str, Any]:
        seen.append(dict(ctx.additional_metadata))
        if msg.n == 3:
            raise NonRetryableException("for the error callback")
        return {"n": msg.n}

    mageflow_worker.in_process(client, "at-once", workflows=[copied_at_once])
    bare = Hatchet().stubs.task(name="copied-at-once", input_validator=Message, output_validator=dict[str, Any])
    signature = await client.sign(copied_at_once, n=1)
    assert await signature.aio_run() == {"n": 1}
    chain = await client.chain([signature, copied_at_once], name="at-once")
    assert await chain.aio_run() == {"n": 0}
    failing = await client.sign(copied_at_once, n=3)
    with pytest.raises(FailedTaskRunExceptionGroup):
        await failing.aio_run()
    assert len(seen) == 4
    for metadata in seen[:]:
        with pytest.raises(FailedTaskRunExceptionGroup) as caught:
            await asyncio.wait_for(bare.aio_run(Message(n=9), additional_metadata=metadata), 60)
        [error] = caught.value.exceptions
        assert "DuplicateRunError: the task function has not run" in str(error)
        assert metadata[KEY_SIGNATURE] in str(error)
        assert "Leave out the keys that begin with mageflow_" in str(error)
    assert len(seen) == 4, "and it is not tried again"
    assert (await client.load_signature(chain.key)).status is Status.DONE
    assert (await client.load_signature(failing.key)).status is Status.FAILED
    failures = signed.samples.by("outcome", "mageflow_task_runs_total", task="copied-at-once")
    assert failures == {**failures, "succeeded": 3, "failed": 5, "skipped": 0}


async def test_an_early_copy_of_a_run_of_a_workflow_fails_and_says_why(signed: Observed, mageflow_worker: Any) -> None:
    """As one of a task: also while the run that it is a copy of goes on. Its hook for failures runs nothing either."""
    client = signed.client
    ran: list[str] = []
    seen: list[dict[str, Any]] = []
    release = asyncio.Event()
    flow = client.workflow(name="copied-workflow", input_validator=Message)

    @flow.task(name="first")
    @client.with_ctx
    async def first(msg: Message, ctx: Context) -> dict[str, Any]:
        ran.append("first")
        seen.append(dict(ctx.additional_metadata))
        return {"n": msg.n}

    @flow.task(name="beside")
    async def beside(msg: Message) -> dict[str, Any]:
        ran.append("beside")
        while not release.is_set():
            await asyncio.sleep(0.02)
        return {"n": msg.n}

    @flow.task(name="last", parents=[first, beside])
    async def last(msg: Message) -> dict[str, Any]:
        ran.append("last")
        return {"n": msg.n}

    @flow.on_failure_task(name="failed")
    async def failed(msg: Message) -> dict[str, Any]:
        ran.append("failed")
        return {}

    mageflow_worker.in_process(client, "copied-workflow", workflows=[flow])
    bare = Hatchet().stubs.workflow(name="copied-workflow", input_validator=Message)
    signature = await client.sign(flow, n=1)
    owner = asyncio.create_task(signature.aio_run())
    async with asyncio.timeout(60):
        while sorted(ran) != ["beside", "first"]:
            await asyncio.sleep(0.02)
    for moment in ("while it runs", "after its end"):
        with pytest.raises(FailedTaskRunExceptionGroup) as caught:
            await asyncio.wait_for(bare.aio_run(Message(n=9), additional_metadata=seen[0]), 60)
        assert caught.value.exceptions, moment
        for error in caught.value.exceptions:
            assert "DuplicateRunError: the task function has not run" in str(error), moment
            assert signature.key in str(error)
        release.set()
        result = await asyncio.wait_for(asyncio.shield(owner), 60)
        assert [result[name] for name in ("first", "beside", "last")] == [{"n": 1}] * 3
    await asyncio.sleep(1)
    assert sorted(ran) == ["beside", "first", "last"]
    assert (await client.load_signature(signature.key)).status is Status.DONE


async def _ended(client: Any, run_id: str) -> str:
    async with asyncio.timeout(60):
        while (status := await client.runs.aio_get_status(run_id)).name in ("QUEUED", "RUNNING"):
            await asyncio.sleep(0.1)
    return status.name


@pytest.mark.parametrize("sent", ["by a slow clock", "while Hatchet stood still"])
async def test_a_second_delivery_runs_nothing_however_old_its_metadata_seems(
    signed: Observed, mageflow_worker: Any, sent: str
) -> None:
    """A relay sends again what may not have arrived. Its clock may be minutes slow, and Hatchet may take both late."""
    client = signed.client
    seen: list[dict[str, Any]] = []

    @client.task(name="delivered-twice")
    @client.with_ctx
    async def delivered_twice(msg: Message, ctx: Context) -> dict[str, Any]:
        seen.append(dict(ctx.additional_metadata))
        return {"n": msg.n}

    mageflow_worker.in_process(client, "twice", workflows=[delivered_twice])
    bare = Hatchet().stubs.task(name="delivered-twice", input_validator=Message, output_validator=dict[str, Any])
    signature = await client.sign(delivered_twice, n=1)
    assert await signature.aio_run() == {"n": 1}
    old = f"{float(seen[0][KEY_ENQUEUED_AT]) - 300:.6f}"
    again = seen[0] | {KEY_ENQUEUED_AT: old}
    if sent == "while Hatchet stood still":
        again[KEY_DEDUPE] = "another-run"
        first = await bare.aio_run(Message(n=2), additional_metadata=again, wait_for_result=False)
        assert await _ended(client, first.workflow_run_id) == "COMPLETED"
        assert len(seen) == 2
    ran = len(seen)
    second = await bare.aio_run(Message(n=3), additional_metadata=again, wait_for_result=False)
    ended = "FAILED" if sent == "while Hatchet stood still" else "CANCELLED"  # the same sending may be a copy, too
    assert await _ended(client, second.workflow_run_id) == ended
    assert len(seen) == ran


@pytest.mark.parametrize("key", ["another:{/0}:task:abc0", "mageflow:{other_/0}:chain:abc0#1", "no key"])
async def test_a_key_that_is_not_of_this_client_leaves_a_plain_run(
    signed: Observed, mageflow_worker: Any, key: str
) -> None:
    """Another prefix, another namespace, another shape: the function runs, and the log says so."""
    client = signed.client

    @client.task(name="other-key")
    async def other_key(msg: Message) -> dict[str, Any]:
        return {"n": msg.n}

    mageflow_worker.in_process(client, "other-key", workflows=[other_key])
    bare = Hatchet().stubs.task(name="other-key", input_validator=Message, output_validator=dict[str, Any])
    with capture_logs() as logs:
        run = bare.aio_run(Message(n=9), additional_metadata={KEY_SIGNATURE: key})
        assert await asyncio.wait_for(run, 60) == {"n": 9}
    [foreign] = logs.named("mageflow.signature.foreign")
    assert foreign["level"] == "warning"
    assert signed.samples.by("result", "mageflow_signature_loads_total", kind="task")["foreign"] == 1
