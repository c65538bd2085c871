"""The layers of a message: the whole of it as Hatchet would send it, and what the caller set. Pure, no I/O.

The two differ for pydantic models and dataclasses, whose fields can be left at their defaults. They are the second and
the fifth layer of `mageflow.signatures.merge`.

Values go under the key that the receiving model reads: the name of the field, as in Hatchet, where the model accepts
names, else its alias. Hatchet alone sends the name in both cases, and then the value of a field is lost.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, cast, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel, RootModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from mageflow._frozen import frozen
from mageflow.errors import ConfigurationError

__all__ = ["SERIALIZATION_CONTEXT", "SentMessage", "as_json_object", "input_key", "other_keys", "with_input_keys"]

SERIALIZATION_CONTEXT: Final = MappingProxyType({"is_hatchet_serialization_context": True})
"""Equals the SDK's ``HATCHET_PYDANTIC_SENTINEL``: a user's serializer recognises Hatchet by it."""


@frozen
class SentMessage:
    """A message as JSON values.

    Attributes:
        whole: Every value that the caller's object held.
        explicit: The part of it that the caller set.
    """

    whole: dict[str, Any]
    explicit: dict[str, Any]

    @property
    def is_all_set(self) -> bool:
        """Whether the caller set every value."""
        return self.explicit == self.whole

    @classmethod
    def of(cls, message: object, adapter: TypeAdapter[Any] | None = None) -> "SentMessage":
        """Read a message.

        A field of a pydantic model counts as set if it is in ``model_fields_set``, at every depth of objects. An
        element of a list counts as set with all its fields. Every key of a mapping is set. A field of a dataclass is
        set if it differs from its default; a factory that returns something else each time has no default to compare.

        Args:
            message: A pydantic model, a dataclass, a mapping or None.
            adapter: Of the input type of the task that receives the message, where it is known. It serialises messages
                of this type, as the SDK does: a subclass loses the fields that the type does not have.

        Raises:
            ConfigurationError: The message is none of these, or a value has no JSON form.
        """
        if message is None:
            return cls({}, {})
        if isinstance(message, BaseModel) and not isinstance(message, RootModel):
            whole = _dumped(message, adapter)
            return cls(whole, _set_part(_dumped(message, adapter, exclude_unset=True), whole))
        if dataclasses.is_dataclass(message) and not isinstance(message, type):
            whole = _dumped(message, adapter)
            changed = {
                input_key(type(message), each.name)
                for each in dataclasses.fields(message)
                if not _is_default(each, getattr(message, each.name))
            }
            return cls(whole, {key: value for key, value in whole.items() if key in changed})
        if isinstance(message, Mapping):
            values = as_json_object(cast("Mapping[str, Any]", message))
            return cls(values, values)
        raise ConfigurationError(
            f"a message must be a pydantic model, a dataclass, a mapping or None, not {type(message).__qualname__}"
        )


def as_json_object(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values in their JSON form: models become objects, dates become text.

    Raises:
        ConfigurationError: A value has no JSON form.
    """
    try:
        dumped = to_jsonable_python(dict(values), by_alias=False, context=dict(SERIALIZATION_CONTEXT))
        json.dumps(dumped)  # it has limits of its own, such as 4,300 digits, and the runs are sent with it
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"these values cannot be stored as JSON: {error}") from error
    return cast("dict[str, Any]", _renamed(values, dumped))


def input_key(model: type, name: str) -> str:
    """The key under which a model, or a pydantic dataclass, reads the field ``name`` from its input.

    >>> from pydantic import Field
    >>> class Order(BaseModel):
    ...     number: int = Field(alias="orderNumber")
    >>> input_key(Order, "number")
    'orderNumber'
    """
    field = _fields(model).get(name)
    alias = None if field is None else field.validation_alias
    if alias is None or _accepts_names(model):
        return name
    return next(iter(_alias_keys(alias)), name)


def other_keys(model: object) -> dict[str, str]:
    """Further keys by which a caller may name a field of the model, and the key that `input_key` gives the field.

    Empty for anything but a pydantic model.
    """
    found: dict[str, str] = {}
    if isinstance(model, type) and issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            key = input_key(model, name)
            for each in (name, *_alias_keys(field.validation_alias), field.alias):
                if each is not None and each != key and each not in model.model_fields.keys() - {name}:
                    found.setdefault(each, key)
    return found


def with_input_keys(model: object, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under the keys of `input_key`, in nested models too; the order of the values stays."""
    others = other_keys(model)
    renamed: dict[str, Any] = {}
    kinds = _kinds_by_key(model)
    for name, value in values.items():
        key = others.get(name, name)
        kind = kinds.get(key)
        inner = (
            with_input_keys(kind, cast("Mapping[str, Any]", value)) if kind and isinstance(value, Mapping) else value
        )
        renamed[key] = inner
    return renamed


def _kinds_by_key(model: object) -> dict[str, type[BaseModel]]:
    """The fields whose only type, besides None, is a model."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return {}
    kinds: dict[str, type[BaseModel]] = {}
    for name, field in model.model_fields.items():
        annotation = field.annotation
        options = [each for each in get_args(annotation) if each is not type(None)] if get_origin(annotation) else []
        only = options[0] if len(options) == 1 and type(None) in get_args(annotation) else annotation
        if isinstance(only, type) and issubclass(only, BaseModel):
            kinds[input_key(model, name)] = only
    return kinds


def _dumped(message: object, adapter: TypeAdapter[Any] | None, *, exclude_unset: bool = False) -> dict[str, Any]:
    """A model or a dataclass as JSON values, under the keys of `input_key`."""
    if adapter is None or not _is_of(message, adapter):
        adapter = _adapter(type(message))
    try:
        dumped = adapter.dump_python(
            message,
            mode="json",
            by_alias=False,
            exclude_unset=exclude_unset,
            warnings=False,
            context=SERIALIZATION_CONTEXT,
        )
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"this message cannot be sent as JSON: {error}") from error
    if not isinstance(dumped, dict):
        raise ConfigurationError(
            f"a message must be a JSON object, and {type(message).__qualname__} becomes {type(dumped).__qualname__}"
        )
    return cast("dict[str, Any]", _renamed(message, dumped))


@functools.lru_cache(maxsize=256)
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _is_of(message: object, adapter: TypeAdapter[Any]) -> bool:
    kind = adapter.core_schema.get("cls")
    return isinstance(kind, type) and isinstance(message, kind)


def _renamed(value: object, dumped: Any) -> Any:
    """``dumped``, the JSON form of ``value``, with the keys of `input_key`."""
    if isinstance(dumped, dict):
        items = cast("dict[str, Any]", dumped)
        if isinstance(value, BaseModel) and not isinstance(value, RootModel):
            model = type(value)
            held = {**value.__dict__, **(value.model_extra or {})}
            # Hatchet sends computed fields too. A model that forbids unknown keys would refuse them.
            computed = model.model_computed_fields if model.model_config.get("extra") == "forbid" else {}
            return {
                input_key(model, name): _renamed(held.get(name), each)
                for name, each in items.items()
                if name not in computed
            }
        if isinstance(value, Mapping):
            known = cast("Mapping[object, object]", value)
            return {name: _renamed(known.get(name), each) for name, each in items.items()}
        if dataclasses.is_dataclass(value):
            kind = cast("type[object]", type(value))
            return {input_key(kind, name): _renamed(getattr(value, name, None), each) for name, each in items.items()}
    elif isinstance(dumped, list) and isinstance(value, list | tuple):
        elements = cast("list[Any]", dumped)
        values = cast("list[object]", value)
        if len(values) == len(elements):
            return [_renamed(one, each) for one, each in zip(values, elements, strict=True)]
    return dumped


def _set_part(set_values: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """The set fields with their whole values: only objects have unset parts, a list is one value."""
    part: dict[str, Any] = {}
    for key, value in set_values.items():
        full = whole.get(key, value)
        is_object = isinstance(value, dict) and isinstance(full, dict)
        part[key] = _set_part(cast("Any", value), cast("Any", full)) if is_object else full
    return part


def _fields(model: type) -> Mapping[str, FieldInfo]:
    fields = getattr(model, "__pydantic_fields__", None)
    return cast("Mapping[str, FieldInfo]", fields) if isinstance(fields, Mapping) else {}


def _accepts_names(model: type) -> bool:
    config: object = getattr(model, "model_config", None) or getattr(model, "__pydantic_config__", None)
    if not isinstance(config, Mapping):
        return False
    settings = cast("Mapping[str, Any]", config)
    return bool(settings.get("populate_by_name") or settings.get("validate_by_name"))


def _alias_keys(alias: str | AliasPath | AliasChoices | None) -> list[str]:
    if isinstance(alias, str):
        return [alias]
    if isinstance(alias, AliasChoices):
        return [each for each in alias.choices if isinstance(each, str)]
    return []


def _is_default(field: "dataclasses.Field[Any]", value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default)
    if field.default_factory is not dataclasses.MISSING:
        fresh = field.default_factory()
        return bool(value == fresh) or bool(fresh != field.default_factory())
    return False
