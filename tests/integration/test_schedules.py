"""Signatures and flows that run at a time, or at a place: schedules of Hatchet for tasks, reconcilers for flows."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hatchet_sdk import Context, StickyStrategy
from hatchet_sdk.clients.admin import AdminClient
from pydantic import BaseModel, ValidationError

from mageflow import AcceptParams, Settings
from mageflow.errors import ConfigurationError, DispatchError, IllegalTransitionError, SignatureNotFoundError
from tests.integration.conftest import until

pytestmark = pytest.mark.slow

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


def soon(seconds: float = 3.0) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_a_signature_runs_at_its_time_with_bound_values_and_callbacks(observed_client: Any, seen: Seen) -> None:
    """The callbacks get the metadata and the priority of the run, and the queue wait begins at the time."""
    client = observed_client.client
    signature = await client.sign(seen.one, y=2, success_callbacks=[seen.then])
    at = soon()
    version = await signature.aio_schedule(at, Message(x=1), **GIVEN)
    assert version.scheduled_workflows

    await until(lambda: len(seen.runs) == 2)
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

    await until(lambda: len(seen.runs) == 5)
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
    at = soon(2.0)
    await asyncio.to_thread(chain.schedule, at.replace(tzinfo=None), {"x": 6})  # without a zone it is UTC
    await asyncio.to_thread(signature.schedule, at, {"x": 7})
    await until(lambda: len(seen.runs) == 3)

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


async def test_starts_at_a_time_are_taken_back(client: Any, seen: Seen) -> None:
    """Those of one signature alone: Hatchet has those of another, and plain ones of the task, still."""
    signature, other = await client.sign(seen.one), await client.sign(seen.one, y=1)
    chain = await client.chain([seen.one, seen.two])
    times = [soon(3), soon(6000), soon(9000)]
    for at in reversed(times):
        await signature.aio_schedule(at, {"x": 1}, **GIVEN)
    await other.aio_schedule(times[0], {"x": 2})
    await seen.one.aio_schedule(times[0], Message(x=3))
    await chain.aio_schedule(times[0], {"x": 4}, **GIVEN)

    taken = await signature.aio_unschedule()
    assert all(abs(at - when) <= timedelta(milliseconds=1) for at, when in zip(taken, times, strict=True))
    [of_chain] = await chain.aio_unschedule()
    assert abs(of_chain - times[0]) <= timedelta(milliseconds=1)
    for each in (signature, chain):
        assert await each.aio_unschedule() == []
        stored = await client.load_signature(each.key)
        assert (stored.status, stored.starts_at) == ("pending", None)
    assert (await client.load_signature(chain.key)).history[-1].why == "unscheduled: taken back"
    assert [row.trigger_at for row in (await client.scheduled.aio_list()).rows if row.workflow_run_id is None] != []

    await until(lambda: len(seen.runs) == 2, 30)
    await asyncio.sleep(1)
    assert sorted(run[1] for run in seen.runs) == [2, 3]
    assert (await chain.aio_run({"x": 5})) == {"from": "two"}
    assert sorted(run[1] for run in seen.runs) == [0, 2, 3, 5]
    assert [run[3:] for run in seen.runs[2:]] == [("", 1)] * 2  # the options went with the time
    assert await chain.aio_unschedule() == []

    assert await asyncio.to_thread(signature.unschedule) == []
    with pytest.raises(ConfigurationError, match=r"await signature\.aio_unschedule"):
        signature.unschedule()
    await chain.remove()
    with pytest.raises(SignatureNotFoundError):
        await chain.aio_unschedule()


@pytest.mark.parametrize("how", ["remove", "interrupt"])
async def test_what_ends_a_signature_takes_its_starts_back(client: Any, seen: Seen, monkeypatch: Any, how: str) -> None:
    """None of its runs is left in Hatchet to fail later; those of another signature stay, and repeating is harmless."""
    signature, other, plain = [await client.sign(seen.one) for _ in range(3)]
    for at in (soon(3), soon(6000)):
        await signature.aio_schedule(at, {"x": 1}, **GIVEN)
    await other.aio_schedule(soon(6000), {"x": 2})
    await getattr(client, how)(signature)
    waiting = [row.additional_metadata.get("mageflow_signature") for row in (await client.scheduled.aio_list()).rows]
    assert [key for key in waiting if key in (signature.key, other.key)] == [other.key]
    await asyncio.sleep(4)
    assert seen.runs == []

    if how == "remove":
        assert await client.remove(signature) is False
    else:
        assert await client.interrupt(signature) == "interrupted"
        assert await signature.aio_unschedule() == []
    with monkeypatch.context() as patched:
        patched.setattr(client.scheduled.api_config, "_base_path", "http://127.0.0.1:9")
        with pytest.raises(DispatchError):
            await getattr(client, how)(other)
        await getattr(client, how)(plain)  # nothing of it is scheduled: Hatchet is not asked
    if how == "interrupt":
        await client.interrupt(other)
    assert len(await other.aio_unschedule()) == (how == "remove")


async def test_more_scheduled_runs_than_one_page_are_taken_back(client: Any, seen: Seen, monkeypatch: Any) -> None:
    """Page after page; the real size of a page is 500."""
    monkeypatch.setattr("mageflow.hatchet.scheduled_runs._PAGE", 3)
    signature = await client.sign(seen.one)
    for _ in range(7):
        await signature.aio_schedule(soon(5000))
    assert len(await signature.aio_unschedule()) == 7
    assert await signature.aio_unschedule() == []


async def test_a_hatchet_that_does_not_answer_is_a_typed_error(client: Any, seen: Seen, monkeypatch: Any) -> None:
    """The runs stay scheduled, so the call may be repeated."""
    signature = await client.sign(seen.one)
    await signature.aio_schedule(soon(5000))
    with monkeypatch.context() as patched:
        patched.setattr(client.scheduled.api_config, "_base_path", "http://127.0.0.1:9")
        with pytest.raises(DispatchError):
            await signature.aio_unschedule()
    assert len(await signature.aio_unschedule()) == 1


async def test_a_signature_without_a_message_is_scheduled_with_an_empty_object(
    client: Any, seen: Seen, monkeypatch: Any
) -> None:
    """Hatchet refuses a scheduled run whose input is no JSON, such as an empty text."""
    inputs: list[str | None] = []
    send = AdminClient.schedule_workflow

    def note(self: AdminClient, name: str, schedules: Any, input: str | None = None, options: Any = None) -> Any:
        inputs.append(input)
        return send(self, name, schedules, input, options)

    monkeypatch.setattr(AdminClient, "schedule_workflow", note)
    await (await client.sign(seen.one)).aio_schedule(soon(5000))
    await (await client.sign(seen.workflow)).aio_schedule(soon(5000), {})
    assert inputs == ["{}", "{}"]
