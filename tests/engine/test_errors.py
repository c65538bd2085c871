"""The engine's errors are part of the one tree in ``mageflow.errors``."""

import importlib
import pkgutil

import pytest

import mageflow.engine
from mageflow.engine import EngineStartError, LocalEngine
from mageflow.engine.errors import RequestError
from mageflow.errors import EngineError, EngineNotRunningError, MageflowError


def defined_errors() -> list[type[BaseException]]:
    """Return every exception class that a module of the engine defines."""
    found: dict[str, type[BaseException]] = {}
    for each in pkgutil.walk_packages(mageflow.engine.__path__, "mageflow.engine."):
        if each.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(each.name)).values():
            if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == each.name:
                found[f"{each.name}.{value.__name__}"] = value
    return list(found.values())


def test_every_error_of_the_engine_is_a_mageflow_error() -> None:
    """One ``except MageflowError`` covers the engine; errors that answer a request carry both statuses."""
    errors = defined_errors()
    assert len(errors) >= 8
    assert [each for each in errors if not issubclass(each, EngineError)] == []
    answers = [each for each in errors if issubclass(each, RequestError)]
    assert {(each.grpc_status, each.http_status) for each in answers} == {
        ("INTERNAL", 500),
        ("INVALID_ARGUMENT", 400),
        ("NOT_FOUND", 404),
        ("PERMISSION_DENIED", 403),
        ("FAILED_PRECONDITION", 409),
        ("ALREADY_EXISTS", 409),
    }


def test_an_engine_that_does_not_start_raises_an_error_of_the_tree() -> None:
    """Also a RuntimeError, as it was before; it carries the exit code and the output of the process."""
    with pytest.raises(MageflowError) as failed, LocalEngine(speed=0):
        pass
    assert isinstance(failed.value, EngineStartError)
    assert isinstance(failed.value, RuntimeError)
    assert failed.value.exit_code == 1
    assert "speed must be greater than 0" in failed.value.output
    assert failed.value.output.strip().splitlines()[-1] in str(failed.value)


def test_using_an_engine_outside_its_block_raises_an_error_of_the_tree() -> None:
    """Handshake, process id and client exist inside the ``with`` block only."""
    engine = LocalEngine()
    for use in (lambda: engine.handshake, lambda: engine.pid, engine.environment, engine.client):
        with pytest.raises(EngineNotRunningError, match="inside its with block"):
            use()
    with engine, pytest.raises(EngineError, match="already running"), engine:
        pass
