"""Which fields an input model has, and whether values may be bound to them. Pure."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import AliasChoices, AliasPath, BaseModel
from typing_extensions import is_typeddict

from mageflow.did_you_mean import hint
from mageflow.errors import FlowDefinitionError

__all__ = ["check_bound_values", "field_names"]


def field_names(model: object) -> frozenset[str] | None:
    """Names and aliases of the fields of a pydantic model, a dataclass or a TypedDict; None if it takes any field."""
    if not isinstance(model, type):
        return None
    if issubclass(model, BaseModel):
        if model.model_config.get("extra") == "allow" or not model.model_fields:
            return None
        return frozenset(_names_and_aliases(model))
    if dataclasses.is_dataclass(model):
        return frozenset(field.name for field in dataclasses.fields(model))
    return frozenset(model.__annotations__) if is_typeddict(model) else None


def check_bound_values(
    what: str, known: Sequence[frozenset[str] | None], kwargs: Mapping[str, Any], *, also: Sequence[str]
) -> None:
    """Refuse a bound value that none of the inputs has a field for.

    Args:
        what: Names the inputs in the error.
        known: Fields of each input, as `field_names` gives them.
        kwargs: The bound values.
        also: Further names that may be meant.

    Raises:
        FlowDefinitionError: There is no such field.
    """
    closed = [names for names in known if names is not None]
    if len(closed) < len(known):
        return
    fields = dict.fromkeys(name for names in closed for name in sorted(names))
    for name in kwargs:
        if name not in fields:
            raise FlowDefinitionError(f"{what} has no field {name!r}{hint(name, fields, also)}")


def _names_and_aliases(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        aliases: list[object] = [field.alias, field.validation_alias]
        if isinstance(field.validation_alias, AliasChoices):
            aliases += field.validation_alias.choices
        for alias in aliases:
            first = alias.path[0] if isinstance(alias, AliasPath) else alias
            if isinstance(first, str):
                yield first
