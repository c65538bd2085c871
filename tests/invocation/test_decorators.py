"""Decorators record a frozen mark on a new function, in any order. A wrong use is an error at once."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from mageflow.errors import ConfigurationError, DecorationError
from mageflow.invocation import Marks, marks_of, stagger_execution, with_ctx, with_signature

WINDOW = timedelta(seconds=10)


def plain(message: Any) -> Any:
    return message


async def coroutine(message: Any) -> Any:
    return message


@pytest.mark.parametrize("func", [plain, coroutine])
@pytest.mark.parametrize("order", list(itertools.permutations([with_ctx, with_signature, stagger_execution(WINDOW)])))
def test_marks_add_up_in_any_order(func: Any, order: Any) -> None:
    """Every order of the decorators, over sync and async functions, gives the same marks."""
    decorated = func
    for decorator in order:
        decorated = decorator(decorated)
    assert marks_of(decorated) == Marks(ctx=True, signature=True, stagger_window=WINDOW)


def test_the_function_itself_is_left_alone() -> None:
    """Two clients may decorate the same function differently."""
    marked = with_ctx(plain)
    assert marks_of(plain) == Marks()
    assert marked is not plain
    assert marked.__name__ == "plain"


async def test_a_marked_function_can_still_be_called() -> None:
    """A direct call injects and delays nothing."""
    assert with_ctx(plain)(7) == 7
    assert await stagger_execution(WINDOW)(coroutine)(7) == 7


@pytest.mark.parametrize("wrong", [timedelta(0), timedelta(seconds=-1), 10, 1.5, None, plain])
def test_a_stagger_needs_a_positive_timedelta(wrong: Any) -> None:
    """A number, None, zero or less, and the bare decorator are refused; the error has the line to write."""
    with pytest.raises(DecorationError) as caught:
        stagger_execution(wrong)(plain)
    assert caught.value.decorator == "stagger_execution"
    assert "wait_delta" in caught.value.reason
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize("decorator", [with_ctx, with_signature, stagger_execution(WINDOW)])
def test_a_decorator_above_the_task_is_refused(decorator: Any) -> None:
    """The SDK returns a task, not a function: the message says where to write the decorator."""

    class Standalone:
        name = "my-task"

    with pytest.raises(DecorationError, match=r"below @client\.task"):
        decorator(Standalone())


@pytest.mark.parametrize("decorator", [with_ctx, with_signature, stagger_execution(WINDOW)])
@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_a_decorator_above_staticmethod_is_refused(decorator: Any, kind: Any) -> None:
    """It would make a coroutine function synchronous, which fails only at run time."""
    with pytest.raises(DecorationError, match=rf"write @{kind.__name__} above it"):
        decorator(kind(coroutine))
