"""The declaration decides which arguments a function gets, by annotations, names and positions."""

from collections.abc import Callable
from typing import Annotated, Any, Optional

import pytest
from hatchet_sdk import Context, Depends, DurableContext
from pydantic import BaseModel

from mageflow import AcceptParams, TaskSignature
from mageflow.errors import DecorationError
from mageflow.hatchet import declare, input_types
from mageflow.invocation import Marks, bind


class Message(BaseModel):
    x: int = 0


def dependency(message: Message, ctx: Context) -> str:
    return "dependency"


Injected = Annotated[str, Depends(dependency)]


PLAIN = Marks()


def call(
    func: Callable[..., Any], params: AcceptParams = AcceptParams.NO_CTX, marks: Marks = PLAIN, **deps: Any
) -> Any:
    binding = bind(
        func,
        params=params,
        marks=marks,
        is_context=declare._is_context,
        is_dependency=declare._is_dependency,
        is_message=input_types.is_message,
    )
    positional, keywords = binding.arguments("MESSAGE", "CTX", "SIGNATURE", deps)
    return func(*positional, **keywords)


def test_a_function_of_one_parameter_gets_the_message() -> None:
    """With NO_CTX a function gets the message only."""
    assert call(lambda msg: msg) == "MESSAGE"


def test_a_function_written_for_hatchet_gets_the_context_unasked() -> None:
    """A function for the plain client works unchanged: with an annotation, a name, or a second parameter."""

    def annotated(message: Message, context: Context) -> Any:
        return message, context

    def durable(message: Message, c: DurableContext) -> Any:
        return message, c

    assert call(annotated) == call(durable) == ("MESSAGE", "CTX")
    assert call(lambda input, ctx: (input, ctx)) == ("MESSAGE", "CTX")
    assert call(lambda _a, _b: (_a, _b)) == ("MESSAGE", "CTX")
    assert call(lambda *args: args) == ("MESSAGE", "CTX")


def test_a_context_is_found_in_unions_and_annotated_and_beside_a_default() -> None:
    """Hatchet passes the context by position, with any annotation and default. Here it arrives too."""

    def either(message: Message, c: Context | DurableContext) -> Any:
        return message, c

    def maybe(message: Message, c: Optional[Context] = None) -> Any:  # noqa: UP045 - both ways of writing it
        return message, c

    def maybe_too(message: Message, c: Context | None = None) -> Any:
        return message, c

    def annotated(message: Message, c: Annotated[Context, "annotated"] = None) -> Any:  # type: ignore[assignment]
        return message, c

    def named(message: Message, ctx: Any = None) -> Any:
        return message, ctx

    for func in (either, maybe, maybe_too, annotated, named):
        assert call(func) == call(func, AcceptParams.ALL) == ("MESSAGE", "CTX")


def test_a_signature_is_found_where_it_may_be_none() -> None:
    """The annotation of the parameter decides, with every ``param_config``."""

    def task(message: Message, ctx: Context, own: TaskSignature | None = None) -> Any:
        return message, ctx, own

    assert call(task, AcceptParams.ALL, Marks(signature=True)) == ("MESSAGE", "CTX", "SIGNATURE")
    assert call(task) == ("MESSAGE", "CTX", None)


def test_annotations_decide_before_positions() -> None:
    """With annotations the parameters may have any order."""

    def task(signature: TaskSignature, ctx: Context, message: Message) -> Any:
        return message, ctx, signature

    assert call(task, marks=Marks(ctx=True, signature=True)) == ("MESSAGE", "CTX", "SIGNATURE")


def test_the_signature_follows_the_message_when_no_context_is_asked_for() -> None:
    """With one extra argument the second parameter gets it."""
    assert call(lambda _m, s: (_m, s), marks=Marks(signature=True)) == ("MESSAGE", "SIGNATURE")
    assert call(lambda _m, c, s: (_m, c, s), marks=Marks(signature=True, ctx=True)) == ("MESSAGE", "CTX", "SIGNATURE")


def test_accept_params_all_and_ctx_only() -> None:
    """ALL passes message and context, CTX_ONLY the context only. Decorators add to both."""
    assert call(lambda _m, _c: (_m, _c), AcceptParams.ALL) == ("MESSAGE", "CTX")
    assert call(lambda _c: _c, AcceptParams.CTX_ONLY) == "CTX"
    assert call(lambda _c, s: (_c, s), AcceptParams.CTX_ONLY, Marks(signature=True)) == ("CTX", "SIGNATURE")


def test_dependencies_are_left_to_hatchet_wherever_they_stand() -> None:
    """A parameter with Depends is passed by name, and the parameters after it too."""

    def second(message: Message, injected: Injected) -> Any:
        return message, injected

    def between(message: Message, injected: Injected, ctx: Context) -> Any:
        return message, injected, ctx

    assert call(second, injected="D") == ("MESSAGE", "D")
    assert call(between, injected="D") == ("MESSAGE", "D", "CTX")


def test_defaults_and_keyword_only_parameters_are_respected() -> None:
    """A default is kept; a keyword-only context is passed by name."""

    def keyword(message: Message, *, ctx: Context) -> Any:
        return message, ctx

    assert call(lambda msg, retries=3: (msg, retries)) == ("MESSAGE", 3)
    assert call(keyword) == ("MESSAGE", "CTX")


def takes_message(message: Message) -> Any:
    return message


def takes_maybe_context(message: Message, ctx: Context | None = None) -> Any:
    return message, ctx


def takes_signature(message: Message, own: TaskSignature) -> Any:
    return message, own


@pytest.mark.parametrize(
    ("func", "params", "marks", "says"),
    [
        (takes_message, AcceptParams.CTX_ONLY, Marks(), "write async def task(ctx: Context)"),
        (takes_maybe_context, AcceptParams.CTX_ONLY, Marks(), "passes no message (AcceptParams.CTX_ONLY)"),
        (takes_signature, AcceptParams.NO_CTX, Marks(), "write @client.with_signature"),
        (takes_signature, AcceptParams.ALL, Marks(), "write async def task(msg, ctx: Context)"),
        (lambda msg: msg, AcceptParams.ALL, Marks(), "write async def task(msg, ctx: Context)"),
        (lambda msg: msg, AcceptParams.NO_CTX, Marks(ctx=True), "async def task(msg: MyModel, ctx: Context)"),
        (lambda msg: msg, AcceptParams.NO_CTX, Marks(signature=True), "signature: TaskSignature"),
        (lambda: None, AcceptParams.NO_CTX, Marks(), "write async def task(msg: MyModel)"),
        (
            lambda _a, _b, c: c,
            AcceptParams.NO_CTX,
            Marks(),
            "'c' gets no argument: give it a default",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_at_declaration(
    func: Callable[..., Any], params: AcceptParams, marks: Marks, says: str
) -> None:
    """A parameter without an argument, or an argument without a parameter, is an error before anything runs."""
    with pytest.raises(DecorationError, match=r".*") as caught:
        call(func, params, marks)
    assert says in str(caught.value)
