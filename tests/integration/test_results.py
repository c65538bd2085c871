"""Results that are no objects, errors as messages, callbacks that cannot work: real workers, a real Valkey."""

from dataclasses import dataclass
from typing import Any

import pytest
from hatchet_sdk import Context
from pydantic import BaseModel, ConfigDict

from mageflow import ReturnValue, TaskError
from mageflow.errors import FlowDefinitionError, FlowFailedError
from tests.integration.conftest import Observed, until


class Message(BaseModel):
    value: Any = None
    before: ReturnValue[Any] = None


class Model(BaseModel):
    x: int = 0


@dataclass
class Record:
    x: int


@pytest.fixture
def signed(make_observed: Any, mageflow_redis: Any) -> Observed:
    """A client with a real Valkey."""
    return make_observed(mageflow_redis.url)


async def test_a_number_a_text_and_a_list_are_results(signed: Observed, mageflow_worker: Any) -> None:
    """Of a signature, of a step for the next one, of a chain and of a swarm; falsy ones and annotated ones too."""
    client: Any = signed.client
    seen: list[Any] = []

    @client.task(name="result-same")
    async def same(msg: Message):  # type: ignore[no-untyped-def]
        return msg.value

    @client.task(name="result-before")
    def before(msg: Message) -> Any:
        seen.append(msg.before)
        return msg.before

    @client.task(name="result-int")
    async def number(msg: Message) -> int:
        return msg.value

    @client.task(name="result-list")
    async def numbers(msg: Message) -> list[int]:
        return [msg.value]

    mageflow_worker.in_process(client, "results", workflows=[same, before, number, numbers], slots=10)
    signature = await client.sign(same)
    for value in (5, 0, "text", "", [1, {"a": 2}], [], 2.5, True):
        assert await signature.aio_run(Message(value=value)) == value
    assert await (await client.sign("result-int")).aio_run({"value": 3}) == 3
    assert await (await client.sign(numbers)).aio_run({"value": 3}) == [3]
    reference = await (await client.sign(number)).aio_run_no_wait({"value": 4})
    assert await reference.aio_result() == 4

    chain = await client.chain([number, before], success=before)
    assert await chain.aio_run({"value": 7}) == 7
    swarm = await client.swarm([number, numbers, same], closed=True)
    assert await swarm.aio_run({"value": 8}) == [8, [8], 8]
    await until(lambda: seen == [7, 7])
    with pytest.raises(Exception, match="must return either a dictionary"):
        await number.aio_run(Message(value=1))


async def test_a_model_without_a_return_annotation_arrives(signed: Observed, mageflow_worker: Any) -> None:
    """Hatchet alone sends an empty object."""
    client: Any = signed.client

    @client.task(name="result-model")
    async def model(msg: Message):  # type: ignore[no-untyped-def]
        return Model(x=3)

    @client.task(name="result-record")
    def record(msg: Message):  # type: ignore[no-untyped-def]
        return Record(x=4)

    mageflow_worker.in_process(client, "unannotated", workflows=[model, record])
    signature = await client.sign("result-model")
    assert (await signature.aio_run()).model_dump() == {"x": 3}
    assert (await model.aio_run(Message())).model_dump() == {"x": 3}
    assert (await record.aio_run(Message())).model_dump() == {"x": 4}
    swarm = await client.swarm([model, record], closed=True)
    assert await swarm.aio_run() == [{"x": 3}, {"x": 4}]


async def test_an_error_callback_may_take_the_error_alone(signed: Observed, mageflow_worker: Any) -> None:
    """``async def on_error(error: TaskError)`` works as read: for a task, a chain, and through a nested chain."""
    client: Any = signed.client
    errors: list[TaskError] = []

    @client.task(name="error-fails")
    async def fails(msg: Message) -> dict[str, Any]:
        raise ValueError(f"no {msg.value}")

    @client.task(name="error-alone")
    async def on_error(error: TaskError) -> dict[str, Any]:
        errors.append(error)
        return {}

    @client.task(name="error-context")
    @client.with_ctx
    def on_error_too(error: TaskError, ctx: Context) -> dict[str, Any]:
        errors.append(error)
        return {"run": ctx.workflow_run_id}

    @client.task(name="error-after")
    async def after(msg: Message) -> dict[str, Any]:
        return {}

    mageflow_worker.in_process(client, "errors", workflows=[fails, on_error, on_error_too, after], slots=10)
    signature = await client.sign(fails, error_callbacks=[on_error, on_error_too])
    with pytest.raises(Exception, match="no task"):
        await signature.aio_run(Message(value="task"))
    await until(lambda: len(errors) == 2)
    chain = await client.chain([fails, fails], error=await client.chain([on_error, after]))
    with pytest.raises(FlowFailedError):
        await chain.aio_run(Message(value="chain"))
    await until(lambda: len(errors) == 3)
    assert {(each.type, each.task, each.attempt) for each in errors} == {("ValueError", "error-fails", 1)}
    assert [each.message for each in errors] == ["no task", "no task", "no chain"]
    assert errors[2].signature == chain.key
    assert errors[2].original_message["value"] == "chain"
    assert errors[2].failed_input["value"] == "chain"
    swarm = await client.swarm([await client.sign(fails, value="item"), after], error_callbacks=[on_error], closed=True)
    await swarm.aio_run()
    [item] = await swarm.failed_items()
    assert (item.index, item.task, item.error.message) == (0, "error-fails", "no item")
    assert item.input["value"] == "item"


async def test_callbacks_that_cannot_work_are_refused_when_the_flow_is_made(signed: Observed) -> None:
    """With the line to write."""
    client: Any = signed.client

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        x: int = 0

    @client.task(name="refused-plain")
    async def plain(msg: Message) -> dict[str, Any]:
        return {}

    @client.task(name="refused-error")
    async def on_error(error: TaskError) -> dict[str, Any]:
        return {}

    @client.task(name="refused-strict")
    async def strict(msg: Strict) -> dict[str, Any]:
        return {}

    takes_error = "takes a TaskError, and here it gets a result"
    with pytest.raises(FlowDefinitionError, match=takes_error):
        await client.sign(plain, success_callbacks=[on_error])
    with pytest.raises(FlowDefinitionError, match=takes_error):
        await client.chain([plain, on_error])
    with pytest.raises(FlowDefinitionError, match=takes_error):
        await client.swarm([plain], success_callbacks=[on_error])
    with pytest.raises(FlowDefinitionError, match=r"none for the result: write data: ReturnValue\[...\] in it"):
        await client.chain([plain, strict])
    with pytest.raises(FlowDefinitionError, match="none for the error: write error: TaskError in it"):
        await client.chain([plain, plain], error=strict)
    await client.chain([strict, plain], error=on_error)


async def test_a_bound_value_of_the_wrong_type_is_refused(signed: Observed) -> None:
    """When it is bound, with the field; a partial object is not wrong."""
    client: Any = signed.client

    class Inner(BaseModel):
        x: int
        y: int

    class Typed(BaseModel):
        number: int = 0
        inner: Inner | None = None

    @client.task(name="typed")
    async def typed(msg: Typed) -> dict[str, Any]:
        return {}

    with pytest.raises(FlowDefinitionError, match=r"bound to 'number' of the input of 'typed' does not fit: .*integer"):
        await client.sign(typed, number="many")
    with pytest.raises(FlowDefinitionError, match=r"bound to 'inner\.x'"):
        await client.sign(typed, inner={"x": "many"})
    assert (await client.sign(typed, inner={"x": 1}, number="3")).kwargs == {"inner": {"x": 1}, "number": "3"}
