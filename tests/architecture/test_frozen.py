"""`frozen` makes what ``dataclass(frozen=True, slots=True)`` makes, with less work at the import."""

import copy
import dataclasses
import inspect
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from mageflow._frozen import frozen

_LEFT_OVER = """
import json, sys
import mageflow.client.services, mageflow.store.redis.round_trips

made = {value for name, module in list(sys.modules.items()) if name.startswith("mageflow") for value in
        vars(module).values() if isinstance(value, type) and value.__module__ == name}
parameters = {each: vars(each).get("__dataclass_params__") for each in made}
print(json.dumps(sorted(each.__name__ for each, found in parameters.items() if found and found.frozen and found.eq
                        and "__slots__" in vars(each) and not hasattr(each, "_compared_values"))))
"""


@frozen
class Place:
    """Two fields, one of them with a default."""

    flow: str
    number: int = 0
    kind: ClassVar[str] = "place"

    def next(self) -> "Place":
        """The place after this one."""
        return dataclasses.replace(self, number=self.number + 1)


@frozen
class Deep(Place):
    """Inherits, and adds what a function makes."""

    tags: list[str] = field(default_factory=list[str], compare=False, repr=False)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", len(self.flow))


@frozen(kw_only=True)
class Named:
    """A required field behind one with a default."""

    hidden: int = 3
    name: str

    def __repr__(self) -> str:
        return f"<{self.name}>"


@frozen
class Nothing:
    """No field."""


@dataclass(frozen=True, slots=True)
class Standard:
    """What `Place` would be."""

    flow: str
    number: int = 0


def test_it_is_a_dataclass():
    """Its fields, copies and documents are those of the standard library."""
    place = Place("a").next()

    assert repr(place) == "Place(flow='a', number=1)"
    assert repr(Standard("a", 1)) == repr(place).replace("Place", "Standard")
    assert dataclasses.asdict(place) == {"flow": "a", "number": 1}
    assert [each.name for each in dataclasses.fields(Deep)] == ["flow", "number", "tags", "length"]
    assert list(inspect.signature(Place).parameters) == ["flow", "number"]
    assert inspect.signature(Place).parameters["number"].default == 0
    match place:
        case Place(flow, number):
            assert (flow, number) == ("a", 1)
    assert not hasattr(place, "__dict__")


def test_values_are_equal_by_their_fields():
    """Equal values have one hash; another class, and a field that is not compared, make a difference or none."""
    assert Place("a", 1) == Place("a").next()
    assert {Place("a", 1): "found"}[Place("a", 1)] == "found"
    assert Place("a", 1) != Place("a", 2)
    assert Place("a") != Standard("a")
    assert Place("a") != Deep("a")
    assert Deep("a", tags=["x"]) == Deep("a", tags=["y"])
    assert repr(Deep("a")) == "Deep(flow='a', number=0, length=1)"
    assert Nothing() == Nothing()
    assert repr(Nothing()) == "Nothing()"
    with pytest.raises(TypeError, match="unhashable"):
        hash(Place([]))  # pyright: ignore[reportArgumentType]


def test_values_do_not_change():
    """As with the standard library, an assignment and a deletion raise."""
    place: Any = Deep("a")

    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'number'"):
        place.number = 3
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'flow'"):
        del place.flow
    assert place == Deep("a")


def test_defaults_are_made_for_each_value():
    """A factory is called once a value; a keyword is needed where the class says so."""
    assert Deep("a").tags is not Deep("a").tags
    assert repr(Named(name="x")) == "<x>"
    assert Named(name="x").hidden == 3
    with pytest.raises(TypeError, match="positional"):
        Named(1, "x")  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'flow'"):
        Place()  # pyright: ignore[reportCallIssue]


def test_values_are_copied_and_pickled():
    """A worker of the SDK pickles what it gives to its other process."""
    place = Deep("a", 2, ["x"])

    for other in (copy.copy(place), copy.deepcopy(place), pickle.loads(pickle.dumps(place))):  # noqa: S301
        assert (other, other.tags, other.length) == (place, ["x"], 1)
    assert copy.deepcopy(place).tags is not place.tags


def test_a_frozen_dataclass_may_inherit_from_it():
    """Programs may have made classes of their own from those of the package."""

    @dataclass(frozen=True)
    class Other(Place):
        more: int = 0

    assert Other("a", more=2) == Other("a", 0, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Other("a").more = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_a_client_with_a_redis_uses_it_everywhere():
    """Each class that the standard library makes costs 0.4 ms of an import; one needs an order."""
    done = subprocess.run([sys.executable, "-c", _LEFT_OVER], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == ["ResourceKey"]
