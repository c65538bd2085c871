"""Merges bound values, a message, and the previous result or error into one input. Pure, no I/O.

The layers, from weakest to strongest:

1. defaults of the task's input model; the worker applies them to fields that are not set;
2. values bound when the flow was created (``client.chain(..., **kwargs)``);
3. values bound when the signature was created (``client.sign(task, **kwargs)``);
4. fields that are **explicitly set** in the message of a run. A field of a pydantic model that was left at its default
   is not set. Every key of a mapping is set. A field of a dataclass is set if it differs from its default;
5. the previous result or the error, in the field for it.

Objects merge key by key, at every depth. Any other value, lists too, is replaced as a whole.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from mageflow.errors import ConfigurationError

__all__ = ["as_json_object", "deep_merge", "explicitly_set"]


def deep_merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the layers into a new object; the last layer wins.

    >>> deep_merge({"a": {"x": 1, "y": 1}, "b": [1, 2]}, {"a": {"y": 2}, "b": [3]})
    {'a': {'x': 1, 'y': 2}, 'b': [3]}
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            mine = merged.get(name)
            if isinstance(value, Mapping):
                below = cast("Mapping[str, Any]", mine) if isinstance(mine, Mapping) else {}
                merged[name] = deep_merge(below, cast("Mapping[str, Any]", value))
            else:
                merged[name] = value
    return merged


def explicitly_set(message: object) -> dict[str, Any]:
    """The explicitly set fields of a message, as JSON values.

    Raises:
        ConfigurationError: The message is neither a pydantic model, a dataclass, a mapping nor None, or a value has
            no JSON form.
    """
    if message is None:
        return {}
    if isinstance(message, BaseModel):
        return message.model_dump(mode="json", exclude_unset=True, by_alias=True)
    if dataclasses.is_dataclass(message) and not isinstance(message, type):
        changed = {
            field.name: getattr(message, field.name)
            for field in dataclasses.fields(message)
            if not _is_default(field, getattr(message, field.name))
        }
        return as_json_object(changed)
    if isinstance(message, Mapping):
        return as_json_object(cast("Mapping[str, Any]", message))
    raise ConfigurationError(
        f"a message must be a pydantic model, a dataclass, a mapping or None, not {type(message).__qualname__}"
    )


def as_json_object(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values in their JSON form: models become objects, dates become text.

    Raises:
        ConfigurationError: A value has no JSON form.
    """
    try:
        return cast("dict[str, Any]", to_jsonable_python(dict(values), by_alias=True))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"these values cannot be stored as JSON: {error}") from error


def _is_default(field: "dataclasses.Field[Any]", value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False
