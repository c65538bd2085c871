"""Signatures and flows that run at a time, or at a place: schedules of Hatchet for tasks, reconcilers for flows."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hatchet_sdk import Context, StickyStrategy
from pydantic import BaseModel, ValidationError

from mageflow import AcceptParams, Settings
from mageflow.errors import ConfigurationError, IllegalTransitionError
from tests.integration.conftest import until

GIVEN: dict[str, Any] = {"additional_metadata": {"tenant": "acme"}, "priority": 3}


class Message(BaseModel):
    x: int = 0
    y: int = 0


class Seen:
    """Tasks that note their messages and what their runs were given."""

    def __init__(self, client: Any) -> None:
        self.runs: list[tuple[str, int, int, str, int]] = []
        self.begun: dict[str, datetime] = {}
        self.one, self.two, self.then = [self._task(client, name) for name in ("one", "two", "then")]
        self.workflow = client.workflow(name="both", input_validator=Message)
        for name in ("first", "second"):
            self.workflow.task(name=name)(client.with_ctx(self._body(name)))

    def _task(self, client: Any, name: str) -> Any:
        return client.task(name=name)(client.with_ctx(self._body(name)))

    def _body(self, name: str) -> Any:
        async def body(msg: Message, ctx: Context) -> dict[str, Any]:
            self.begun.setdefault(name, datetime.now(UTC))
            self.runs.append((name, msg.x, msg.y, ctx.additional_metadata.get("tenant", ""), ctx.priority))
            return {"from": name}

        return body

    def __iter__(self) -> Any:
        return iter((self.one, self.two, self.then, self.workflow))


@pytest.fixture
def observed_client(make_observed: Any, mageflow_redis: Any) -> Any:
    settings = Settings(metrics_port=0, reconcile_interval_seconds=0.1)
    return make_observed(mageflow_redis.url, param_config=AcceptParams.NO_CTX, settings=settings)


@pytest.fixture
def client(observed_client: Any) -> Any:
    return observed_client.client


@pytest.fixture
def seen(client: Any, mageflow_worker: Any) -> Seen:
    seen = Seen(client)
    mageflow_worker.in_process(client, "schedules", workflows=list(seen))
    return seen


def soon(seconds: float = 1.5) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_a_signature_runs_at_its_time_with_bound_values_and_callbacks(observed_client: Any, seen: Seen) -> None:
    """The callbacks get the metadata and the priority of the run, and the queue wait begins at the time."""
    client = observed_client.client
    signature = await client.sign(seen.one, y=2, success_callbacks=[seen.then])
    at = soon()
    version = await signature.aio_schedule(at, Message(x=1), **GIVEN)
    assert version.scheduled_workflows

    await until(lambda: len(seen.runs) == 2, 20)
    assert seen.runs[0] == ("one", 1, 2, "acme", 3)
    assert seen.runs[1][0] == "then"
    assert seen.runs[1][3:] == ("acme", 3)
    assert seen.begun["one"] >= at - timedelta(milliseconds=50)
    assert (await client.load_signature(signature.key)).attempts >= 1
    enqueued = {"task": "one", "source": "signature", "result": "ok"}
    assert observed_client.samples.value("mageflow_tasks_enqueued_total", **enqueued) == 1


async def test_a_whole_workflow_and_a_flow_can_be_scheduled(client: Any, seen: Seen) -> None:
    """One way for all of them: a workflow by Hatchet, a chain by a worker."""
    workflow = await client.sign(seen.workflow, success_callbacks=[seen.then])
    await workflow.aio_schedule(soon(), {"x": 3}, **GIVEN)
    chain = await client.chain([seen.one, seen.two], y=5)
    at = soon()
    assert await chain.aio_schedule(at, Message(x=4), **GIVEN) is chain
    assert (await client.load_signature(chain.key)).starts_at == at.replace(
        microsecond=round(at.microsecond / 1000) % 1000 * 1000
    )

    await until(lambda: len(seen.runs) == 5, 20)
    assert sorted(seen.runs) == [
        ("first", 3, 0, "acme", 3),
        ("one", 4, 5, "acme", 3),
        ("second", 3, 0, "acme", 3),
        ("then", 0, 0, "acme", 3),
        ("two", 0, 5, "acme", 3),
    ]
    assert seen.begun["one"] >= at
    with pytest.raises(IllegalTransitionError):
        await chain.aio_schedule(soon())


async def test_the_synchronous_method_and_its_errors(client: Any, seen: Seen) -> None:
    signature = await client.sign(seen.one)
    chain = await client.chain([seen.one, seen.two])
    at = soon(0.2)
    await asyncio.to_thread(chain.schedule, at.replace(tzinfo=None), {"x": 6})  # without a zone it is UTC
    await asyncio.to_thread(signature.schedule, at, {"x": 7})
    await until(lambda: len(seen.runs) == 3, 20)

    with pytest.raises(ConfigurationError, match=r"await signature\.aio_schedule"):
        signature.schedule(at)
    with pytest.raises(ConfigurationError, match="run_at must be a datetime, not int"):
        await signature.aio_schedule(5)
    with pytest.raises(ConfigurationError, match="did you mean 'priority'"):
        await signature.aio_schedule(at, priorty=3)
    with pytest.raises(ConfigurationError, match="child_key means nothing for a chain or swarm"):
        await (await client.chain([seen.one, seen.two])).aio_schedule(at, child_key="a")
    with pytest.raises(ValidationError):
        await signature.aio_schedule(at, {"x": "no number"})


async def test_a_sticky_run_of_a_signature_is_on_the_worker_of_its_parent(client: Any, mageflow_worker: Any) -> None:
    """``sticky=True`` of the SDK, with another worker free beside it."""
    parents: list[str] = []
    children: list[str] = []
    child_workflow = client.workflow(name="sticky-child", sticky=StickyStrategy.HARD, input_validator=Message)

    @child_workflow.task(name="here")
    @client.with_ctx
    async def here(msg: Message, ctx: Context) -> dict[str, Any]:
        children.append(ctx.worker_id)
        return {}

    @client.task(name="sticky-parent", execution_timeout=timedelta(seconds=60))
    @client.with_ctx
    async def parent(msg: Message, ctx: Context) -> dict[str, Any]:
        parents.append(ctx.worker_id)
        signature = await client.sign("sticky-child")
        for number in range(6):
            # Two workers of one process share the client, so no result is waited for.
            await signature.aio_run({"x": number}, sticky=True, wait_for_result=False)
        return {}

    for name in ("sticky-a", "sticky-b"):
        mageflow_worker.in_process(client, name, workflows=[parent, child_workflow])
    await parent.aio_run(Message(), wait_for_result=False)
    await until(lambda: len(children) == 6, 60)
    assert set(children) == set(parents)
