"""Go duration strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mageflow.engine.durations import parse_duration
from mageflow.engine.errors import InvalidRequestError


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
    """Everything that Hatchet accepts, which is less than Go's ParseDuration does."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "0", "soon", "5 m", " 5m", "m", "1d", "-5s", "+5s", "5s5", "7us", "1S"])
def test_text_that_is_not_a_duration_is_refused(text: str) -> None:
    """The message has the text. Only an empty text may have a default."""
    with pytest.raises(InvalidRequestError, match="invalid duration"):
        parse_duration(text)
    assert parse_duration("", default=7) == 7


@given(hours=st.integers(0, 100), minutes=st.integers(0, 59), seconds=st.integers(0, 59))
def test_a_composed_duration_is_the_sum_of_its_parts(hours: int, minutes: int, seconds: int) -> None:
    """The units add up, also when some are left out."""
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds
