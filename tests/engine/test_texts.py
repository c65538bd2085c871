"""Durations, CEL expressions, worker labels and the command line: small pure parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mageflow.engine.contracts import trigger_pb2
from mageflow.engine.durations import parse_duration
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.expressions import ExpressionError, evaluate, holds
from mageflow.engine.labels import label_score
from mageflow.engine.settings import parse_settings


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1),
        ("0h", 0),
        ("1h2m3s4ms", 3723.004),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    """Everything Hatchet takes, which is less than Go's ParseDuration."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "0", "soon", "5 m", " 5m", "m", "1d", "-5s", "+5s", "5s5", "7us", "1S"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """With the text in the message; only an empty one may have a default."""
    with pytest.raises(InvalidRequestError, match="invalid duration"):
        parse_duration(text)
    assert parse_duration("", default=7) == 7


@given(hours=st.integers(0, 100), minutes=st.integers(0, 59), seconds=st.integers(0, 59))
def test_a_composed_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int) -> None:
    """Units add up, whatever is left out."""
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


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
    """JSON numbers compare across int and double; ``has`` guards; ``checksum`` is SHA-256."""
    document = {"n": 1, "x": 1.5, "name": "ann", "yes": True, "list": [1, 2]}
    assert evaluate(expression, {"input": document}) == value


@pytest.mark.parametrize("expression", ["input.missing", "input.", "nobody", "'a' + 1", "input.n.deeper", "1 +"])
def test_what_cannot_be_evaluated_is_one_error_and_never_true(expression: str) -> None:
    """A filter with an error is false; whoever needs the value gets one kind of error."""
    with pytest.raises(ExpressionError):
        evaluate(expression, {"input": {"n": 1}})
    assert holds(expression, {"input": {"n": 1}}) is False


def test_only_true_holds_and_nothing_is_true() -> None:
    """A filter that yields something else than true lets nothing through; no filter lets everything through."""
    assert holds("", {}) is True
    assert holds("'true'", {}) is False
    assert holds("1", {}) is False


@pytest.mark.parametrize(
    ("comparator", "have", "want", "meets"),
    [
        (trigger_pb2.EQUAL, 8, 8, True),
        (trigger_pb2.NOT_EQUAL, "a", "b", True),
        (trigger_pb2.GREATER_THAN, 8, 8, False),
        (trigger_pb2.GREATER_THAN_OR_EQUAL, 8, 8, True),
        (trigger_pb2.LESS_THAN, 7, 8, True),
        (trigger_pb2.LESS_THAN_OR_EQUAL, 9, 8, False),
    ],
)
def test_labels_are_compared_as_asked(comparator: int, have: str | int, want: str | int, meets: bool) -> None:
    """A required wish that is not met excludes the worker; a met one adds its weight, 100 by default."""
    value = {"int_value": want} if isinstance(want, int) else {"str_value": want}
    wish = trigger_pb2.DesiredWorkerLabels(**value, comparator=comparator, required=True)
    assert label_score({"k": wish}, {"k": have}) == (100 if meets else None)
    assert label_score({"k": wish}, {}) is None


def test_flags_may_have_one_dash_or_two_and_strange_ones_are_ignored() -> None:
    """The SDK passes Go flags; newer SDKs may pass flags that are not known yet."""
    settings = parse_settings(["-grpc-port", "5", "--api-port=6", "-database-url", "x", "-no-api", "-brand-new", "y"])
    assert (settings.grpc_port, settings.api_port, settings.handshake_file) == (5, 6, None)
    assert settings.exit_with_stdin is True
