"""What can be declared as a task, and its input type without an ``input_validator``."""

import dataclasses
import functools
import typing
from collections.abc import AsyncGenerator, Generator
from datetime import timedelta
from typing import Annotated, Any

import pytest
import typing_extensions
from hatchet_sdk import Context, Depends, EmptyModel, Hatchet
from hatchet_sdk.runnables.types import BatchMemberId
from hatchet_sdk.runnables.workflow import MCPProvider
from pydantic import BaseModel

from mageflow import AcceptParams, Mageflow, TaskSignature
from mageflow.errors import ConfigurationError, DecorationError


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
    async def method(self, msg: Message) -> dict[str, Any]:
        return {"x": msg.x}

    async def __call__(self, msg: Message) -> dict[str, Any]:
        return {}

    @staticmethod
    async def static(msg: Message) -> dict[str, Any]:
        return {"x": msg.x}

    @classmethod
    async def of_class(cls, msg: Message) -> dict[str, Any]:
        return {"x": msg.x}


async def lines(msg: Message) -> AsyncGenerator[str]:
    yield "a line"


def rows(msg: Message) -> Generator[int]:
    yield msg.x


async def number(number: int) -> dict[str, Any]:
    return {}


async def texts(texts: list[str]) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (functools.partial(annotated), "this is a partial: write async def"),
        (Service(), "this is a Service: write async def"),
        (vars(Service)["static"], "client.task(...)(Class.method)"),
        (vars(Service)["of_class"], "client.task(...)(Class.method)"),
        (Service.method, "this is a method: declare it on an object, client.task(...)(service.method)"),
        (lines, "a generator has no result: return it, or send parts with ctx.aio_put_stream(...)"),
        (rows, "a generator has no result: return it, or send parts with ctx.aio_put_stream(...)"),
        (number, "a message is an object, and 'number' takes int: write a model with this field"),
        (texts, "a message is an object, and 'texts' takes list[str]: write a model with this field"),
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


@pytest.mark.parametrize("mark", [lines, rows])
def test_a_generator_below_a_decorator_is_refused(mageflow_client: Mageflow, mark: Any) -> None:
    """The mark is on a function that is none, so the decorator has to look."""
    with pytest.raises(DecorationError, match="a generator has no result"):
        mageflow_client.stagger_execution(timedelta(seconds=1))(mark)


@pytest.mark.parametrize(
    ("validator", "says"),
    [
        ("Message", "input_validator is a type, not text: write input_validator=Message"),
        (Message(x=1), "input_validator is a type, not an object of it: write input_validator=Message"),
        (int, "a message is an object, and input_validator is int: write a model"),
        (list[int], "a message is an object, and input_validator is list[int]: write a model"),
    ],
)
@pytest.mark.parametrize("kind", ["task", "durable_task", "batch_task", "workflow"])
def test_what_no_message_fits_is_refused_as_input_type(
    mageflow_client: Mageflow, validator: Any, says: str, kind: str
) -> None:
    """Hatchet takes it, and then every run of the task fails."""
    options = {"batch_max_size": 2} if kind == "batch_task" else {}
    with pytest.raises(DecorationError) as caught:
        getattr(mageflow_client, kind)(name="t", input_validator=validator, **options)
    assert says in str(caught.value)


@pytest.mark.parametrize("kind", ["task", "durable_task", "workflow"])
def test_an_option_that_no_sdk_has_names_the_nearest(mageflow_client: Mageflow, kind: str) -> None:
    """A TypeError, as of the SDK."""
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'sticki'; did you mean 'sticky'\?"):
        getattr(mageflow_client, kind)(name="t", sticki=True)


async def test_a_worker_takes_a_list_of_tasks(mageflow_client: Mageflow) -> None:
    """A task alone is refused by the SDK as not iterable, and a function with a hint about workflows."""
    task = mageflow_client.task(name="t")(annotated)
    with pytest.raises(ConfigurationError, match=r"workflows is a list: write workflows=\[\.\.\.\]"):
        mageflow_client.worker("w", workflows=task)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="annotated is a function and not a task: declare it with"):
        mageflow_client.worker("w", workflows=[annotated])  # type: ignore[list-item]


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


class Required(BaseModel):
    n: int


async def plain_model(input: Required, ctx: Context) -> dict[str, Any]:
    return {}


async def plain_dict(input: dict[str, Any], ctx: Context) -> dict[str, Any]:
    return {}


async def plain_durable(input: Required, ctx: Any) -> dict[str, Any]:
    return {}


def dependency(input: Any, ctx: Context) -> int:
    return 1


async def plain_dependency(input: Required, ctx: Context, found: Annotated[int, Depends(dependency)]) -> None: ...


async def plain_items(items: dict[BatchMemberId, Required], ctx: Context) -> dict[BatchMemberId, dict[str, Any]]:
    return {}


PLAIN = [plain_model, plain_dict, plain_durable, plain_dependency]


def options_of(kind: str) -> dict[str, Any]:
    return {"name": "t", "description": "t", **({"batch_max_size": 2} if kind == "batch_task" else {})}


@pytest.mark.parametrize(
    ("kind", "func"),
    [*((kind, func) for kind in ("task", "durable_task") for func in PLAIN), ("batch_task", plain_items)],
)
def test_a_function_for_the_plain_client_is_declared_as_hatchet_does(
    mageflow_client: Mageflow, mageflow_hatchet: Hatchet, kind: str, func: Any
) -> None:
    """Same input type, same registration with the engine, same answer of ``mcp_tool``."""
    ours, theirs = (getattr(client, kind)(**options_of(kind))(func) for client in (mageflow_client, mageflow_hatchet))
    assert ours.input_validator_type is theirs.input_validator_type is EmptyModel
    assert ours.to_proto() == theirs.to_proto()
    for task in (ours, theirs):
        with pytest.raises(ValueError, match="has no input validator"):
            task.mcp_tool(MCPProvider.CLAUDE)


@pytest.mark.parametrize("mark", ["with_ctx", "with_signature", "stagger_execution", "exclusive"])
def test_a_decorated_function_names_its_input_type(mageflow_client: Mageflow, mark: str) -> None:
    """A decorator of mageflow says that the function is written for this client."""
    client = mageflow_client
    if mark == "with_signature":

        async def func(msg: Required, ctx: Context, signature: TaskSignature) -> None: ...
    else:

        async def func(msg: Required, ctx: Context) -> None: ...  # type: ignore[misc]

    decorate = {
        "with_ctx": client.with_ctx,
        "with_signature": client.with_signature,
        "stagger_execution": client.stagger_execution(timedelta(seconds=1)),
        "exclusive": client.exclusive("door"),
    }[mark]
    assert client.task(name="t")(decorate(func)).input_validator_type is Required


@pytest.mark.parametrize("params", [AcceptParams.ALL, AcceptParams.CTX_ONLY])
def test_a_client_with_another_param_config_infers(mageflow_hatchet: Hatchet, params: AcceptParams) -> None:
    """Its functions are written for it."""
    client = Mageflow(mageflow_hatchet, param_config=params)

    async def func(msg: Required, ctx: Context) -> None: ...

    async def context_only(ctx: Context) -> None: ...

    taken = client.task(name="t")(func if params is AcceptParams.ALL else context_only)
    assert taken.input_validator_type is (Required if params is AcceptParams.ALL else EmptyModel)


def test_a_workflow_takes_the_one_type_that_its_tasks_name(mageflow_client: Mageflow) -> None:
    """By the rule of stand-alone tasks. Two types are refused, with the line to write; a given type stays."""
    workflow = mageflow_client.workflow(name="w")
    workflow.task()(plain_model)
    assert workflow.input_validator_type is EmptyModel

    async def first(msg: Required) -> None: ...

    async def second(msg: Required) -> None: ...

    async def other(msg: Message) -> None: ...

    workflow.task()(first)
    workflow.durable_task()(second)
    assert workflow.input_validator_type is Required
    with pytest.raises(DecorationError, match=r"takes it as Required, this one as Message: write client.workflow"):
        workflow.task()(other)
    workflow.on_failure_task()(other)

    given = mageflow_client.workflow(name="given", input_validator=EmptyModel)
    given.task()(first)
    assert given.input_validator_type is EmptyModel


async def bare(msg: Message) -> None: ...


@pytest.mark.parametrize(
    ("decorator", "line"),
    [
        ("task", "write @client.task()"),
        ("durable_task", "write @client.durable_task()"),
        ("batch_task", "write @client.batch_task(batch_max_size=10)"),
    ],
)
def test_a_decorator_without_parentheses_is_refused_with_the_line(
    mageflow_client: Mageflow, decorator: str, line: str
) -> None:
    """The SDK fails with a TypeError about positional arguments, or makes a task that never runs."""
    with pytest.raises(DecorationError) as caught:
        getattr(mageflow_client, decorator)(bare)
    assert str(caught.value) == f"@{decorator} on bare: it takes keywords only: {line}"
    workflow = mageflow_client.workflow(name="w")
    with pytest.raises(DecorationError) as caught:
        getattr(workflow, decorator)(bare)
    assert line.replace("client", "workflow") in str(caught.value)
    with pytest.raises(DecorationError, match=r"write @client.task\(name='name'\)"):
        mageflow_client.task("name")  # type: ignore[call-overload]


@pytest.mark.parametrize("decorator", ["with_ctx", "with_signature"])
def test_a_decorator_with_parentheses_is_refused_with_the_line(mageflow_client: Mageflow, decorator: str) -> None:
    """These two take the function itself."""
    with pytest.raises(DecorationError, match=f"write @client.{decorator} without parentheses"):
        getattr(mageflow_client, decorator)()


async def test_a_lock_that_is_awaited_is_refused_with_the_line(mageflow_client: Mageflow) -> None:
    """Python's own error says nothing of blocks."""
    with pytest.raises(ConfigurationError, match=r"write async with resource.acquire\(...\) as lease, not await"):
        await mageflow_client.resource("door").acquire()
