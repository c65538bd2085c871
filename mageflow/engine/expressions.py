"""CEL expressions: compiled once, evaluated with JSON values.

The library ``common-expression-language`` implements CEL. This module adds Hatchet's function ``checksum`` and one
error type. A JSON number without a fraction is a CEL int, so ``input.n == 1`` and ``input.n % 2`` work for ``1``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache

from mageflow.engine.submodule_import import without_package_init
from mageflow.errors import EngineError

with without_package_init("cel"):
    from cel import cel

# Expressions are part of workflow definitions: there are few, and each is evaluated once per run.
_COMPILED_EXPRESSIONS_KEPT = 1024


class ExpressionError(EngineError):
    """The expression does not compile, uses a name that does not exist, or mixes types."""


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
        ExpressionError: the library reports any error; its text is kept.
    """
    try:
        return _compile(expression).execute(cel.Context(variables=dict(variables), functions=_FUNCTIONS))
    except Exception as error:
        # The library has no error type: it raises ValueError, KeyError, TypeError or RuntimeError.
        if isinstance(error, KeyError):
            raise ExpressionError(f"no such key: {error.args[0]}") from error
        raise ExpressionError(str(error)) from error


def evaluate_integer(expression: str, variables: Mapping[str, object]) -> int:
    """Return the value of a CEL expression that yields a number, without its fraction.

    Raises:
        ExpressionError: it fails, or yields something else: no number, or one that is not finite.
    """
    value = evaluate(expression, variables)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError(f"expression {expression!r} must yield a number, not {value!r}")
    if not math.isfinite(value):  # JSON's 1e400 is read as infinity
        raise ExpressionError(f"expression {expression!r} must yield a finite number, not {value!r}")
    return int(value)


def check(expression: str) -> None:
    """Raise ExpressionError when the expression does not compile."""
    try:
        _compile(expression)
    except Exception as error:
        raise ExpressionError(str(error)) from error


def holds(expression: str, variables: Mapping[str, object]) -> bool:
    """Return whether the expression is true. An empty expression is true, and one with an error is false."""
    if not expression:
        return True
    try:
        return evaluate(expression, variables) is True
    except ExpressionError:
        return False
