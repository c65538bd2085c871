"""CEL expressions."""

import pytest

from mageflow.engine.expressions import ExpressionError, evaluate, holds


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("input.n == 1", True),
        ("input.n == 1.0", True),
        ("input.n % 2 == 1", True),
        ("input.x > 1", True),
        ("has(input.missing)", False),
        ("has(input.missing) && input.missing == 1", False),
        ("'user-' + input.name", "user-ann"),
        ("'n-' + string(input.n)", "n-1"),
        ("string(input.yes)", "true"),
        ("input.name in ['ann', 'bob']", True),
        ("input.list.exists(each, each == 2)", True),
        ("input.name.startsWith('a') ? 'yes' : 'no'", "yes"),
        ("checksum('x')", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"),
        ("size(input.list)", 2),
    ],
)
def test_cel_reads_json(expression: str, value: object) -> None:
    """JSON numbers compare across int and double. ``has`` tests for a field, and ``checksum`` is SHA-256."""
    document = {"n": 1, "x": 1.5, "name": "ann", "yes": True, "list": [1, 2]}
    assert evaluate(expression, {"input": document}) == value


@pytest.mark.parametrize("expression", ["input.missing", "input.", "nobody", "'a' + 1", "input.n.deeper", "1 +"])
def test_an_expression_that_fails_is_one_error_and_never_true(expression: str) -> None:
    """``evaluate`` raises one type of error. ``holds`` is false."""
    with pytest.raises(ExpressionError):
        evaluate(expression, {"input": {"n": 1}})
    assert holds(expression, {"input": {"n": 1}}) is False


def test_only_true_holds_and_nothing_is_true() -> None:
    """An expression that yields something other than true is false. An empty expression is true."""
    assert holds("", {}) is True
    assert holds("'true'", {}) is False
    assert holds("1", {}) is False
