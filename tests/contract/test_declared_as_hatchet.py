"""Random functions are declared as the plain Hatchet client declares them.

A function that the plain client runs as it stands has no input type of its own here either. A function with a decorator
of mageflow is declared as the plain client declares it with ``input_validator=`` of its message.

``DECLARATION_EXAMPLES=5000`` runs more of them.
"""

import asyncio
import dataclasses
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Optional

import pytest
import typing_extensions
from hatchet_sdk import Context, Depends, DurableContext, EmptyModel, Hatchet
from hatchet_sdk.runnables.types import BatchMemberId
from hatchet_sdk.runnables.workflow import MCPProvider
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from mageflow import Mageflow

EXAMPLES = int(os.environ.get("DECLARATION_EXAMPLES", "100"))
RANDOM = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Message(BaseModel):
    x: int = 0
    name: str = Field(default="", alias="theName")


class Answer(BaseModel):
    y: int = 0


@dataclasses.dataclass
class Record:
    x: int = 0


class Fields(typing_extensions.TypedDict):
    x: int


def dependency(message: Any, ctx: Context) -> int:
    return 7


SCOPE: dict[str, Any] = {
    "Message": Message,
    "Answer": Answer,
    "Record": Record,
    "Fields": Fields,
    "EmptyModel": EmptyModel,
    "Context": Context,
    "DurableContext": DurableContext,
    "Annotated": Annotated,
    "Optional": Optional,
    "Any": Any,
    "Injected": Annotated[int, Depends(dependency)],
    "BatchMemberId": BatchMemberId,
}
TYPED = {"Message": Message, "Record": Record, "Fields": Fields, "dict": dict, "dict[str, Any]": dict[str, Any]}
INPUTS = ["", *TYPED, "EmptyModel", "Any", "int", "Annotated[Message, 'x']", "Optional[Message]", "Message | None"]
CONTEXTS = ["", "Context", "DurableContext", "Any", "Optional[Context]", "Annotated[Context, 'x']", "'Context'"]
RESULTS = ["", "None", "dict[str, Any]", "Answer", "Record", "int", "list[int]", "Optional[Answer]"]
MORE = ["n=3", "n: int = 3", "*, n=3", "*rest", "**more", "*, found: Injected", "found: Injected = None"]
KINDS = ["task", "durable_task", "batch_task", "workflow.task", "workflow.durable_task"]
MARKS = ["with_ctx", "stagger_execution", "exclusive"]


@dataclasses.dataclass(frozen=True)
class Case:
    """One function and one declaration."""

    kind: str
    source: str
    annotation: str
    options: tuple[tuple[str, Any], ...]
    has_validator: bool

    @property
    def is_batch(self) -> bool:
        return self.kind == "batch_task"

    def function(self) -> Callable[..., Any]:
        scope: dict[str, Any] = {"__name__": __name__, **SCOPE}
        exec(self.source, scope)  # noqa: S102 - a function as a user writes it, with its annotations
        found: Callable[..., Any] = scope["drawn"]
        return found

    def declared(self, client: Hatchet, func: Callable[..., Any], validator: Any = None) -> tuple[Any, Any]:
        """The runnable, and the task in it."""
        options = {**dict(self.options), **({"batch_max_size": 2} if self.is_batch else {})}
        given = {} if validator is None else {"input_validator": validator}
        owner, _, method = self.kind.rpartition(".")
        if not owner:
            made = getattr(client, method)(**options, **given)(func)
            return made, made._task
        workflow = client.workflow(name="Flow", description="d", **given)
        options = {name: value for name, value in options.items() if name in {"name", "retries", "execution_timeout"}}
        return workflow, getattr(workflow, method)(**options)(func)


@st.composite
def cases(draw: st.DrawFn, *, is_marked: bool = False) -> Case:
    """A function of the input and the context, and how it is declared."""
    kind = draw(st.sampled_from(KINDS))
    annotation = draw(st.sampled_from(list(TYPED) if is_marked else INPUTS))
    context = draw(st.sampled_from(CONTEXTS))
    name = draw(st.sampled_from(["input", "msg", "_i", "data", "order"]))
    shown = f"dict[BatchMemberId, {annotation or 'Any'}]" if kind == "batch_task" else annotation
    first = f"{name}: {shown}" if shown else name
    called = draw(st.sampled_from(["ctx", "context", "_ctx", "c"]))
    second = called + (f": {context}" if context else "")
    # Beside a default, only its name or its annotation says that a parameter is the context.
    may_have_default = called != "c" or context not in {"", "Any"}
    if may_have_default and draw(st.booleans()):
        second += " = None"
        if draw(st.booleans()) and not is_marked:
            first += " = None"
    parameters = [first, second]
    if draw(st.booleans()):
        parameters.append("/")
    more = None if kind == "batch_task" or is_marked else draw(st.none() | st.sampled_from(MORE))
    if more is not None:
        if " = None" in second and more == "found: Injected":
            more = "*, found: Injected"
        parameters.append(more)
    result = draw(st.sampled_from(RESULTS))
    asynchronous = "async " if kind.endswith("durable_task") or draw(st.booleans()) else ""
    arrow = f" -> {result}" if result else ""
    source = f"{asynchronous}def drawn({', '.join(parameters)}){arrow}:\n    'What it does.'\n    return {{'x': 1}}\n"
    options = {
        "description": "d",
        **draw(st.sampled_from([{}, {"name": "Some-Name"}])),
        **draw(st.sampled_from([{}, {"execution_timeout": timedelta(seconds=7)}])),
        **({} if kind == "batch_task" else draw(st.sampled_from([{}, {"retries": 3}, {"on_events": ["a:b"]}]))),
    }
    return Case(kind, source, annotation, tuple(options.items()), draw(st.booleans()))


def shown(declared: tuple[Any, Any]) -> dict[str, Any]:
    """All that others see of a declaration."""
    runnable, task = declared
    return {
        "proto": runnable.to_proto(),
        "input": runnable.input_validator_type,
        "schema": runnable.input_validator.json_schema(),
        "output": getattr(runnable, "output_validator_type", None),
        "task": task.name,
        "workflow": runnable.name,
        "action": runnable._create_action_name(task),
        "mcp": mcp_answer(runnable),
    }


def mcp_answer(runnable: Any) -> str:
    """What ``mcp_tool`` raises: a missing input type, or the missing package of the provider when it is there."""
    with pytest.raises((ValueError, ImportError)) as caught:
        runnable.mcp_tool(MCPProvider.CLAUDE)
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.fixture
def clients(mageflow_hatchet: Hatchet) -> tuple[Mageflow, Hatchet]:
    """One of ours, and a plain one."""
    return Mageflow(mageflow_hatchet), mageflow_hatchet


@RANDOM
@given(case=cases())
def test_a_plain_function_is_declared_as_hatchet_declares_it(clients: tuple[Mageflow, Hatchet], case: Case) -> None:
    """With a given ``input_validator`` and without one: same registration, types, names and answer of ``mcp_tool``."""
    validator = Message if case.has_validator else None
    ours, theirs = (shown(case.declared(client, case.function(), validator)) for client in clients)

    assert ours == theirs, case.source
    assert ours["input"] is (validator or EmptyModel)


@RANDOM
@given(case=cases(is_marked=True), mark=st.sampled_from(MARKS))
def test_a_marked_function_is_declared_as_hatchet_does_with_its_input_type(
    clients: tuple[Mageflow, Hatchet], case: Case, mark: str
) -> None:
    """A decorator of mageflow names the input type, and changes nothing else of the declaration."""
    client, plain = clients
    decorate: dict[str, Callable[[Any], Any]] = {
        "with_ctx": client.with_ctx,
        "stagger_execution": client.stagger_execution(timedelta(seconds=1)),
        "exclusive": client.exclusive("door"),
    }
    kind = "with_ctx" if case.is_batch else mark  # a batch takes no other
    ours = shown(case.declared(client, decorate[kind](case.function())))
    theirs = shown(case.declared(plain, case.function(), TYPED[case.annotation]))

    assert ours == theirs, case.source
    assert ours["input"] == TYPED[case.annotation]


@RANDOM
@given(case=cases())
def test_a_plain_function_gets_what_hatchet_passes(clients: tuple[Mageflow, Hatchet], case: Case) -> None:
    """The body of the function that is registered gets input and context in the same places, and answers the same."""
    if case.kind.startswith("workflow") or case.is_batch or " = None" in case.source.split("Injected")[-1]:
        return
    seen: list[Any] = []
    for client in clients:
        runnable, _ = case.declared(client, case.function(), Message)
        if case.kind == "task" and not case.source.startswith("async"):
            seen.append(attempt(lambda task=runnable: task.mock_run(Message(x=4), dependencies={"found": 9})))
        else:
            seen.append(
                attempt(lambda task=runnable: asyncio.run(task.aio_mock_run(Message(x=4), dependencies={"found": 9})))
            )
    assert seen[0] == seen[1], case.source


def attempt(run: Callable[[], Any]) -> Any:
    """The answer, or the class of the error."""
    try:
        return run()
    except Exception as error:  # noqa: BLE001 - both clients must end alike
        return type(error)
