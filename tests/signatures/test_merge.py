"""Merging bound values and a message into one input."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from mageflow.errors import ConfigurationError
from mageflow.signatures import SentMessage, as_json_object, deep_merge

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
SMALL = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


class Inner(BaseModel):
    x: int = 1
    y: int = 1


class Message(BaseModel):
    inner: Inner = Inner()
    name: str = "unset"
    at: datetime | None = None


def test_objects_merge_deeply_and_lists_are_replaced() -> None:
    """The stronger layer wins per key; a list is one value."""
    assert deep_merge({"a": {"x": [1, 2], "y": 1}}, {"a": {"x": [3]}}) == {"a": {"x": [3], "y": 1}}


def test_a_field_left_at_its_default_does_not_override_a_bound_value() -> None:
    """Only what the caller set in the message counts, at every depth."""
    bound = {"name": "bound", "inner": {"x": 7, "y": 7}}
    assert deep_merge(bound, SentMessage.of(Message(inner=Inner(y=2))).explicit) == {
        "name": "bound",
        "inner": {"x": 7, "y": 2},
    }


def test_a_field_set_to_its_default_value_counts_as_set() -> None:
    """A field that the caller sets to its default is set."""
    assert SentMessage.of(Message(name="unset")).explicit == {"name": "unset"}


def test_values_arrive_in_json_form() -> None:
    """Dates become text; nested models become objects."""
    moment = datetime(2030, 1, 2, tzinfo=UTC)
    assert SentMessage.of(Message(at=moment)).explicit == {"at": "2030-01-02T00:00:00Z"}
    assert as_json_object({"m": Inner(x=3)}) == {"m": {"x": 3, "y": 1}}


def test_a_dataclass_field_counts_when_it_differs_from_its_default() -> None:
    """A dataclass does not record which fields were set; a difference from the default is taken as set."""

    @dataclass
    class Order:
        number: int
        tags: list[str] = field(default_factory=list)
        note: str = ""

    assert SentMessage.of(Order(1, note="x")).explicit == {"number": 1, "note": "x"}


def test_every_key_of_a_dictionary_is_set_and_none_sets_nothing() -> None:
    """Every key of a mapping counts as set; None sets no field."""
    assert SentMessage.of({"a": None}).explicit == {"a": None}
    assert SentMessage.of(None).explicit == {}


@pytest.mark.parametrize("message", [3, "text", [1], Message])
def test_an_object_that_is_no_message_is_refused(message: object) -> None:
    """Only objects with named fields are messages."""
    with pytest.raises(ConfigurationError, match="a message must be"):
        SentMessage.of(message)


def test_a_value_without_a_json_form_is_refused() -> None:
    """It is refused when it is bound, not when a worker reads it."""
    with pytest.raises(ConfigurationError, match="cannot be stored as JSON"):
        as_json_object({"a": object()})


def leaves(value: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Every value that is not an object, by its place."""
    if not isinstance(value, dict):
        return {path: value}
    return {place: leaf for name, inner in value.items() for place, leaf in leaves(inner, (*path, name)).items()}


@SMALL
@given(OBJECTS, OBJECTS)
def test_every_value_of_the_stronger_layer_arrives(weak: dict[str, Any], strong: dict[str, Any]) -> None:
    """No value of the stronger layer is lost or changed."""
    merged = leaves(deep_merge(weak, strong))
    assert all(merged[place] == leaf for place, leaf in leaves(strong).items() if place)


@SMALL
@given(OBJECTS, OBJECTS)
def test_merging_changes_no_layer(a: dict[str, Any], b: dict[str, Any]) -> None:
    """The objects of the caller are not changed."""
    before = repr((a, b))
    merged = deep_merge(a, b)
    assert repr((a, b)) == before
    assert set(merged) == {*a, *b}
