"""What can be declared as a task, and its input type without an ``input_validator``."""

import dataclasses
import functools
import typing
from typing import Annotated, Any

import pytest
import typing_extensions
from hatchet_sdk import Context
from pydantic import BaseModel

from mageflow import Mageflow, TaskSignature
from mageflow.errors import DecorationError


class Message(BaseModel):
    x: int = 0


@dataclasses.dataclass
class Record:
    x: int


class Fields(typing_extensions.TypedDict):
    x: int


class OldFields(typing.TypedDict):
    x: int


async def annotated(msg: Annotated[Message, "annotated"]) -> dict[str, Any]:
    return {}


async def optional(msg: Message | None) -> dict[str, Any]:
    return {}


async def context_first(ctx: Context, msg: Message) -> dict[str, Any]:
    return {}


async def signature_first(signature: TaskSignature, msg: Record) -> dict[str, Any]:
    return {}


async def fields(msg: Fields) -> dict[str, Any]:
    return {"kind": type(msg).__name__, "x": msg["x"]}


async def old_fields(msg: OldFields) -> dict[str, Any]:
    return {"kind": type(msg).__name__, "x": msg["x"]}


@pytest.mark.parametrize(
    ("func", "expected"),
    [(annotated, Message), (optional, Message), (context_first, Message), (signature_first, Record), (fields, Fields)],
)
def test_the_input_type_is_the_messages_wherever_it_stands(
    mageflow_client: Mageflow, func: Any, expected: type[Any]
) -> None:
    """The annotation of the message counts, not that of the first parameter."""
    task = mageflow_client.task(name="t")(mageflow_client.with_signature(func) if func is signature_first else func)
    assert task.input_validator_type is expected


@pytest.mark.parametrize("func", [fields, old_fields])
async def test_a_typed_dict_arrives_as_a_dict(mageflow_client: Mageflow, func: Any) -> None:
    """Both kinds of TypedDict, also the one that pydantic cannot validate."""
    task = mageflow_client.task(name="t")(func)
    message = task.input_validator.validate_json('{"x": 3}')
    assert message == {"x": 3}


class Service:
    async def __call__(self, msg: Message) -> dict[str, Any]:
        return {}

    @staticmethod
    async def static(msg: Message) -> dict[str, Any]:
        return {"x": msg.x}

    @classmethod
    async def of_class(cls, msg: Message) -> dict[str, Any]:
        return {"x": msg.x}


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (functools.partial(annotated), "this is a partial: write async def"),
        (Service(), "this is a Service: write async def"),
        (vars(Service)["static"], "client.task(...)(Class.method)"),
        (vars(Service)["of_class"], "client.task(...)(Class.method)"),
    ],
)
@pytest.mark.parametrize("kind", ["task", "durable_task", "batch_task"])
def test_what_is_no_function_is_refused_with_the_way_out(
    mageflow_client: Mageflow, thing: Any, says: str, kind: str
) -> None:
    """Hatchet fails on all of them, on some only at run time. Here the declaration fails, with the line to write."""
    options = {"batch_max_size": 2} if kind == "batch_task" else {}
    with pytest.raises(DecorationError) as caught:
        getattr(mageflow_client, kind)(name="t", **options)(thing)
    assert says in str(caught.value)


def test_a_task_is_not_declared_twice_over(mageflow_client: Mageflow) -> None:
    """The decorator above another ``@client.task`` gets a task, not a function."""
    task = mageflow_client.task(name="t")(annotated)
    with pytest.raises(DecorationError, match="this is a Standalone"):
        mageflow_client.task(name="again")(task)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [Service.static, Service.of_class])
async def test_methods_of_a_finished_class_are_functions(mageflow_client: Mageflow, method: Any) -> None:
    """Static, class and bound methods are declared like functions."""
    task = mageflow_client.task(name="t")(method)
    assert await task.aio_mock_run(Message(x=3)) == {"x": 3}
