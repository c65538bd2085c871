"""CEL expressions: compile once, evaluate against JSON values.

CEL itself is the library ``common-expression-language``. On top the engine has Hatchet's ``checksum`` function and
one error type. A JSON number without a fraction is a CEL int, so ``input.n == 1`` and ``input.n % 2`` work for ``1``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache

from mageflow.engine.bare import bare_package
from mageflow.errors import EngineError

with bare_package("cel"):
    from cel import cel

# Expressions come from workflow definitions: few, but evaluated once per run.
_COMPILED_EXPRESSIONS_KEPT = 1024


class ExpressionError(EngineError):
    """The expression does not compile, names something that is not there, or mixes types."""


def _checksum(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _string(value: object) -> str:
    """Extend the library's ``string``, which refuses booleans."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


_FUNCTIONS = {"checksum": _checksum, "string": _string}


@lru_cache(maxsize=_COMPILED_EXPRESSIONS_KEPT)
def _compile(expression: str) -> cel.Program:
    return cel.compile(expression)


def evaluate(expression: str, variables: Mapping[str, object]) -> object:
    """Return the value of a CEL expression as a Python value.

    Raises:
        ExpressionError: for anything the library reports; the text says what and where.
    """
    try:
        return _compile(expression).execute(cel.Context(variables=dict(variables), functions=_FUNCTIONS))
    except Exception as error:
        # The library raises ValueError, KeyError, TypeError, RuntimeError: none of its own.
        if isinstance(error, KeyError):
            raise ExpressionError(f"no such key: {error.args[0]}") from error
        raise ExpressionError(str(error)) from error


def check(expression: str) -> None:
    """Raise ExpressionError when the expression does not compile."""
    try:
        _compile(expression)
    except Exception as error:
        raise ExpressionError(str(error)) from error


def holds(expression: str, variables: Mapping[str, object]) -> bool:
    """Return whether the expression is true; an empty one is true, one with an error is false."""
    if not expression:
        return True
    try:
        return evaluate(expression, variables) is True
    except ExpressionError:
        return False
