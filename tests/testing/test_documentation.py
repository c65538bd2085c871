"""The public objects of `mageflow.testing` and the fixtures are documented whole."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import mageflow.testing
from mageflow.testing import plugin

FIXTURES = {name: value for name, value in vars(plugin).items() if type(value).__name__ == "FixtureFunctionDefinition"}


def callables() -> Iterator[tuple[str, Any]]:
    """Every public function, class and method that a test can call."""
    objects = {name: getattr(mageflow.testing, name) for name in mageflow.testing.__all__}
    for name, value in {**objects, "SamplesOfTest": plugin.SamplesOfTest, "Workers": plugin.Workers}.items():
        yield name, value
        if inspect.isclass(value):
            for method, function in vars(value).items():
                is_public = not method.startswith("_") or method == "__call__"
                if is_public and inspect.isfunction(inspect.unwrap(function)):
                    yield f"{name}.{method}", inspect.unwrap(function)


def parameters(value: Any) -> list[str]:
    """Its parameters. A class that only this package makes has none to document."""
    made_by_package = {"SpanCapture", "Samples", "LogCapture", "RunningWorker", "SamplesOfTest", "Workers"}
    if inspect.isclass(value) and value.__name__ in made_by_package:
        return []
    return [name for name in inspect.signature(value).parameters if name != "self"]


@pytest.mark.parametrize(("name", "value"), [*callables()], ids=lambda value: value if isinstance(value, str) else "")
def test_every_parameter_is_documented(name, value):
    """Each argument has its line under ``Args``; ``emit`` is called by `logging` alone."""
    text = inspect.getdoc(value) or ""
    _, _, arguments = text.partition("Args:")

    assert text, name
    undocumented = [each for each in parameters(value) if not re.search(rf"^ +{each}: ", arguments, re.MULTILINE)]
    assert undocumented == [] or name == "LogCapture.emit", undocumented


@pytest.mark.parametrize("name", FIXTURES)
def test_every_fixture_says_its_scope_and_what_it_gives(name):
    """``pytest --fixtures`` shows the docstring: scope, what starts and stops, and what the test gets."""
    text = inspect.getdoc(FIXTURES[name]) or ""

    assert re.search(r"^Scope: (session|function)\. ", text, re.MULTILINE)
    assert re.search(r"^(Yields|Returns):$", text, re.MULTILINE)
    scope = FIXTURES[name]._fixture_function_marker.scope
    assert f"Scope: {scope}." in text
    if name in {"mageflow_engine", "mageflow_redis", "mageflow_redis_server", "mageflow_worker"}:
        assert "extra ``local``" in text
