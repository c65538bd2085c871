"""The names of mageflow 0.3 mean what they meant: real workers, a real Valkey."""

from typing import Any

import pytest
from pydantic import BaseModel

import mageflow
import mageflow.errors
from mageflow import Mageflow, ReturnValue, Status, SwarmConfig, TaskError
from tests.integration.conftest import Observed, until


class Message(BaseModel):
    number: int = 0
    before: ReturnValue[Any] = None  # type: ignore[assignment]


async def test_flows_of_03_run_as_they_were_written(
    make_observed: Any, mageflow_redis: Any, mageflow_worker: Any
) -> None:
    """``achain`` takes the error callback before the success callback; swarms start without a call for it."""
    observed: Observed = make_observed(mageflow_redis.url)
    client: Mageflow = observed.client
    ended: list[tuple[str, Any]] = []

    @client.task(name="old-double")
    async def double(msg: Message) -> dict[str, int]:
        if msg.number < 0:
            raise ValueError("on purpose")
        before: Any = msg.before
        return {"number": (before["number"] if before else msg.number) * 2}

    @client.task(name="old-success")
    async def on_success(msg: Message) -> None:
        ended.append(("success", msg.before))

    @client.task(name="old-error")
    async def on_error(error: TaskError) -> None:
        ended.append(("error", error.message))

    mageflow_worker.in_process(client, "old", workflows=[double, on_success, on_error], slots=10)
    chain = await client.achain([double, double], "old-chain", on_error, on_success)
    await chain.aio_run({"number": 1})
    await until(lambda: ended == [("success", {"number": 4})])

    failing = await client.achain([double, double], "old-chain", on_error, on_success)
    with pytest.raises(mageflow.errors.FlowFailedError):
        await failing.aio_run({"number": -1})
    await until(lambda: len(ended) == 2)
    assert ended.pop() == ("error", "on purpose")
    ended.clear()

    swarm = await client.aswarm(
        [double], task_name="old-swarm", success_callbacks=[on_success], config=SwarmConfig(), kwargs={"number": 3}
    )
    assert (swarm.name, swarm.is_closed, swarm.status) == ("old-swarm", False, Status.PENDING)
    assert len(await swarm.aio_run_in_swarm(double, Message(number=4))) == 1
    assert (await client.load_signature(swarm.key)).status is Status.ACTIVE
    await swarm.close_swarm()
    await until(lambda: ended == [("success", [{"number": 6}, {"number": 8}])])

    closed = await client.aswarm([double], is_swarm_closed=True, kwargs={"number": 5})
    assert closed.is_closed
    await closed.close_swarm()
    await until_done(client, closed.key)


async def until_done(client: Mageflow, key: str) -> None:
    """Wait for a flow that another call started."""
    signature: Any = await client.load_signature(key)
    assert await signature.aio_run() == [{"number": 10}]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("achain", "client.achain"),
        ("asign", "client.asign"),
        ("pause", "client.suspend"),
        ("start_mageflow", "Mageflow"),
    ],
)
def test_functions_of_03_say_what_to_write(name: str, line: str) -> None:
    """``from mageflow import achain`` fails with the line to write, not with "cannot import name"."""
    with pytest.raises(ImportError, match=line):
        getattr(mageflow, name)
    with pytest.raises(ImportError, match=line):
        exec(f"from mageflow import {name}")  # noqa: S102 - the statement under test
