"""What arrives of a message: compared with what the plain SDK makes of the same object."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import uuid4

import pytest
from hatchet_sdk.serde import HATCHET_PYDANTIC_SENTINEL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, computed_field
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from mageflow.signatures import SentMessage, deep_merge, input_key, with_input_keys
from mageflow.signatures.sent import SERIALIZATION_CONTEXT

SMALL = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
T = TypeVar("T")


def unique() -> str:
    return uuid4().hex[:8]


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    id: str = Field(default_factory=unique)
    x: int = 1


class Factories(BaseModel):
    id: str = Field(default_factory=unique)
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    base: dict[str, int] = {}
    tags: list[str] = Field(default_factory=list)
    note: str | None = None


class Nested(BaseModel):
    inner: Inner = Field(default_factory=Inner)
    many: list[Inner] = []
    named: dict[str, Inner] = {}
    maybe: Inner | None = None


class Named(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    number: int = Field(default=0, alias="orderNumber")
    day: date = Field(default=date(2030, 1, 1), validation_alias=AliasChoices("theDay", "day2"))
    inner: Inner = Inner(id="fixed")


class SentByAlias(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    number: int = Field(default=0, alias="orderNumber")
    id: str = Field(default_factory=unique, alias="orderId")


class Computed(BaseModel):
    model_config = ConfigDict(extra="allow")

    a: int = 0
    id: str = Field(default_factory=unique)

    @computed_field
    @property
    def double(self) -> int:
        return self.a * 2


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    id: str = Field(default_factory=unique)
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    id: str = Field(default_factory=unique)
    bark: str = "wow"


class Unions(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Field(default_factory=Cat)
    pets: list[Cat | Dog] = []
    colour: Colour | int = Colour.RED


class Page(BaseModel, Generic[T]):
    items: list[T] = []
    first: T | None = None
    id: str = Field(default_factory=unique)


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: str = Field(default_factory=unique)


@dataclass
class Order:
    number: int
    id: str = field(default_factory=unique)
    tags: list[str] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)


@pydantic_dataclass
class Checked:
    number: int = 0
    id: str = Field(default_factory=unique)
    day: date = date(2030, 1, 1)


class Keys(TypedDict, total=False):
    number: int
    inner: dict[str, int]


INNER = st.builds(Inner) | st.builds(Inner, x=st.integers()) | st.builds(Inner, id=st.text(max_size=3))
PET = st.builds(Cat) | st.builds(Dog) | st.builds(Cat, lives=st.integers(0, 9)) | st.builds(Dog, bark=st.text())


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


def made(kind: Callable[..., Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with some of the fields set."""
    return optional(**fields).map(lambda values: kind(**values))


def _changed_in_place(message: Factories) -> Factories:
    message.base["changed"] = 7
    message.tags.append("changed")
    return message


MESSAGES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "factories": (
        Factories,
        made(
            Factories, id=st.text(max_size=3), base=st.dictionaries(st.text(max_size=2), st.integers()), note=st.none()
        ),
    ),
    "changed in place": (Factories, made(Factories, note=st.text()).map(_changed_in_place)),
    "nested": (
        Nested,
        made(
            Nested,
            inner=INNER,
            many=st.lists(INNER, max_size=2),
            named=st.dictionaries(st.sampled_from("ab"), INNER),
            maybe=INNER | st.none(),
        ),
    ),
    "by name": (Named, made(Named, orderNumber=st.integers(), theDay=st.dates(), inner=INNER)),
    "by alias": (SentByAlias, made(SentByAlias, orderNumber=st.integers(), orderId=st.text(max_size=3))),
    "computed": (Computed, made(Computed, a=st.integers(), more=st.integers())),
    "unions": (
        Unions,
        made(Unions, pet=PET, pets=st.lists(PET, max_size=2), colour=st.sampled_from(Colour) | st.integers()),
    ),
    "generic": (Page[Inner], made(Page[Inner], items=st.lists(INNER, max_size=2), first=INNER | st.none())),
    "extra": (Extra, made(Extra, other=st.integers(), deep=st.dictionaries(st.text(max_size=2), st.integers()))),
    "dataclass": (Order, st.builds(Order, number=st.integers(), tags=st.lists(st.text(max_size=2)), inner=INNER)),
    "pydantic dataclass": (Checked, made(Checked, number=st.integers(), id=st.text(max_size=3), day=st.dates())),
    "typed dict": (Keys, optional(number=st.integers(), inner=st.dictionaries(st.text(max_size=2), st.integers()))),
    "dict": (dict[str, Any], st.dictionaries(st.text(max_size=2), st.integers() | st.lists(st.integers()), max_size=3)),
}


def plain(adapter: TypeAdapter[Any], message: object) -> Any:
    """What the body gets from the plain SDK: `BaseWorkflow._serialize_input`, then `_get_workflow_input`."""
    sent = adapter.dump_json(message, context=HATCHET_PYDANTIC_SENTINEL)
    return adapter.validate_python(json.loads(sent), context=HATCHET_PYDANTIC_SENTINEL)


def received(adapter: TypeAdapter[Any], message: object, bound: dict[str, Any], *, is_known: bool) -> Any:
    """What the body gets from a signature; ``is_known``: whether the caller has the task, else only its name."""
    sent = SentMessage.of(message, adapter if is_known else None)
    merged = json.loads(json.dumps(deep_merge(sent.whole, bound, sent.explicit)))
    return adapter.validate_python(merged, context=HATCHET_PYDANTIC_SENTINEL)


@pytest.mark.parametrize("is_known", [True, False], ids=["task", "name"])
@pytest.mark.parametrize("kind", MESSAGES)
def test_the_body_gets_what_it_gets_from_the_plain_sdk(kind: str, is_known: bool) -> None:
    """For every object: values of factories, changed defaults and defaults of nested models included."""
    model, messages = MESSAGES[kind]
    adapter: TypeAdapter[Any] = TypeAdapter(model)

    @SMALL
    @given(messages)
    def compare(message: Any) -> None:
        expected = plain(adapter, message)
        found = received(adapter, message, {}, is_known=is_known)
        assert found == expected
        assert type(found) is type(expected)

    compare()


@SMALL
@given(made(Factories, id=st.text(max_size=3), base=st.just({}), note=st.text(max_size=2)))
def test_a_bound_value_fills_the_fields_that_the_caller_did_not_set(message: Factories) -> None:
    """What the caller set wins over what is bound, and what is bound over a default of the model."""
    found = received(TypeAdapter(Factories), message, {"id": "bound", "note": "bound"}, is_known=True)
    for name in ("id", "note"):
        expected = getattr(message, name) if name in message.model_fields_set else "bound"
        assert getattr(found, name) == expected, name
    assert found.at == message.at


def test_defaults_of_models_in_a_list_arrive_as_sent() -> None:
    """A list is one value: its elements keep the fields that were left at their defaults."""
    message = Nested(many=[Inner(x=5)])
    found = received(TypeAdapter(Nested), message, {"many": []}, is_known=True)
    assert found.many == message.many


def test_a_model_that_takes_only_aliases_gets_its_values() -> None:
    """Hatchet alone sends names, and then such a model loses its values."""

    class ByAlias(BaseModel):
        number: int = Field(default=0, alias="orderNumber")

    message = ByAlias(orderNumber=7)
    assert plain(TypeAdapter(ByAlias), message).number == 0
    assert received(TypeAdapter(ByAlias), message, {}, is_known=True).number == 7
    assert input_key(ByAlias, "number") == "orderNumber"
    assert with_input_keys(ByAlias, {"number": 3}) == {"orderNumber": 3}


def test_a_value_bound_by_alias_and_one_set_by_name_are_one_field() -> None:
    """The set one wins, as for any other field; nested models too."""

    class Outer(BaseModel):
        named: Named | None = None

    bound = with_input_keys(Outer, {"named": {"orderNumber": 1, "theDay": "2031-01-01"}})
    assert bound == {"named": {"number": 1, "day": "2031-01-01"}}
    found = received(TypeAdapter(Outer), Outer(named=Named(orderNumber=2)), bound, is_known=True)
    assert (found.named.number, found.named.day) == (2, date(2031, 1, 1))


def test_a_model_that_forbids_unknown_keys_may_have_computed_fields() -> None:
    """Hatchet alone sends the computed field, and the worker refuses it."""

    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        a: int = 0

        @computed_field
        @property
        def double(self) -> int:
            return self.a * 2

    assert received(TypeAdapter(Strict), Strict(a=4), {}, is_known=True) == Strict(a=4)


def test_a_dataclass_without_a_fixed_default_leaves_the_field_to_what_is_bound() -> None:
    """A factory that returns something else each time says nothing about what the caller set."""
    message = Order(1)
    sent = SentMessage.of(message)
    assert sent.explicit == {"number": 1}
    assert (sent.whole["id"], sent.whole["inner"]["id"]) == (message.id, message.inner.id)


def test_a_serializer_recognises_hatchet() -> None:
    """The context of serialisation is the SDK's."""
    assert SERIALIZATION_CONTEXT == HATCHET_PYDANTIC_SENTINEL
