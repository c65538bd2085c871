"""Final ends: messages that Hatchet never takes, error texts that it cannot store, a body that exits."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mageflow import Settings
from mageflow.errors import FlowFailedError
from mageflow.signatures import ReturnValue, TaskError
from tests.integration.conftest import make_observed, until  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow

QUICK = Settings(
    metrics_port=0, reconcile_grace_seconds=1.0, reconcile_check_seconds=1.0, reconcile_interval_seconds=0.2
)


class Failure(BaseModel):
    why: TaskError


@pytest.fixture
def observed(make_observed: Any, mageflow_redis: Any) -> Any:  # noqa: F811
    """A client with a real Valkey and short intervals of the reconciler."""
    yield make_observed(mageflow_redis.url, settings=QUICK)
    assert mageflow_redis.keys_without_ttl() == []


async def test_a_text_that_hatchet_cannot_store_reaches_the_callback(observed: Any, mageflow_worker: Any) -> None:
    """A NUL and a lone surrogate become escapes, in the callback and in Hatchet, where the run has failed."""
    client = observed.client
    received: list[TaskError] = []

    @client.task(name="fails")
    async def fails(msg: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("converter said: \0 and \ud800")

    @client.task(name="callback")
    async def callback(msg: Failure) -> dict[str, Any]:
        received.append(msg.why)
        return {}

    mageflow_worker.in_process(client, "texts", workflows=[fails, callback])
    chain = await client.chain([fails, fails], error=callback)
    await chain.aio_run_no_wait()
    await until(lambda: bool(received))
    assert received[0].message == "converter said: \\x00 and \\ud800"
    run_id = (await client.load_signature(chain.steps[0])).last_run.workflow_run_id
    async with asyncio.timeout(50):  # the execution timeout is 60 s
        while (await client.runs.aio_get_status(run_id)).name != "FAILED":
            await asyncio.sleep(0.05)
    [task] = (await client.runs.aio_get_details(run_id)).task_runs.values()
    assert task.error.startswith("RuntimeError: converter said: \\x00 and \\ud800\n")


async def test_a_message_larger_than_hatchet_takes_ends_its_flow_at_once(observed: Any, mageflow_worker: Any) -> None:
    """The next step's input holds two results of 3 MB; the flow fails with the size, and its callback runs."""
    client = observed.client

    class Big(BaseModel):
        text: ReturnValue[dict[str, Any]]
        bound: str = ""

    @client.task(name="large")
    async def large(msg: dict[str, Any]) -> dict[str, Any]:
        return {"text": "x" * 3_000_000}

    @client.task(name="after")
    async def after(msg: Big) -> dict[str, Any]:
        return {}

    mageflow_worker.in_process(client, "large", workflows=[large, after])
    chain = await client.chain([large, await client.sign(after, bound="y" * 3_000_000)])
    begun = time.monotonic()
    with pytest.raises(FlowFailedError, match=r"MessageTooLargeError: .*keep large data elsewhere"):
        await chain.aio_run()
    took = time.monotonic() - begun
    print(f"\nended after {took:.1f} s")
    assert took < 45


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"])
@pytest.mark.parametrize("place", ["thread", "loop"])
async def test_a_body_that_raises_what_is_no_exception_ends_its_chain(
    observed: Any, mageflow_worker: Any, mageflow_redis: Any, monkeypatch: pytest.MonkeyPatch, place: str, kind: str
) -> None:
    """In a thread or on the loop: the chain has failed with the class, or is cancelled, and its error callback runs.

    It runs on another worker: that of the body ends or goes on, as with the SDK alone.
    """
    client = observed.client
    received: list[TaskError] = []

    @client.task(name="callback")
    async def callback(msg: Failure) -> dict[str, Any]:
        received.append(msg.why)
        return {}

    mageflow_worker.in_process(client, "callbacks", workflows=[callback])
    monkeypatch.setenv("PROBE_REDIS", mageflow_redis.url)
    worker = mageflow_worker(Path(__file__).with_name("exiting_worker.py"))
    task = f"{place}-{kind}"
    chain = await client.chain([task, task], error=callback)
    begun = time.monotonic()
    await chain.aio_run_no_wait()
    async with asyncio.timeout(90):
        while not (found := await client.load_signature(chain.key)).has_ended:
            await asyncio.sleep(0.05)
    print(f"\n{task}: {found.status} after {time.monotonic() - begun:.1f} s")
    expected = ("cancelled", "TaskCancelled") if kind == "CancelledError" else ("failed", kind)
    assert (str(found.status), found.last_error.type) == expected
    await until(lambda: bool(received))
    assert received[0].type == expected[1]
    worker.kill()  # it may wait for its thread for some seconds
