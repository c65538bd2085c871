"""Which fields an input model has, and whether values may be bound to them. Pure."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import AliasChoices, AliasPath, BaseModel, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from mageflow.did_you_mean import hint
from mageflow.errors import FlowDefinitionError
from mageflow.signatures import input_key

__all__ = ["check_bound_values", "check_types", "field_names", "forbids"]


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


def check_types(what: str, model: object, bound: Mapping[str, Any]) -> None:
    """Refuse a bound value that its field cannot take. Objects may be partial: the message fills in the rest.

    Args:
        what: What has the fields, for the error.
        model: The input type; only pydantic models are checked, and only fields without validators of the user.
        bound: The values under the keys of the input.

    Raises:
        FlowDefinitionError: A value does not fit.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return
    if any(each.info.mode != "after" for each in model.__pydantic_decorators__.model_validators.values()):
        return  # it may read the whole input in its own way
    own = {field for each in model.__pydantic_decorators__.field_validators.values() for field in each.info.fields}
    for field_name, field in model.model_fields.items():
        key = input_key(model, field_name)
        if key not in bound or field_name in own or "*" in own:
            continue
        adapter = _adapter(field)
        try:
            adapter.validate_python(bound[key])
        except ValidationError as error:
            found = [each for each in error.errors(include_url=False, include_input=False) if each["type"] != "missing"]
            if found:
                place = ".".join([field_name, *(str(each) for each in found[0]["loc"])])
                raise FlowDefinitionError(
                    f"the value bound to {place!r} of {what} does not fit: {found[0]['msg']}"
                ) from error


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    """Validates one value as the field does. Without the field's alias: pydantic warns of one outside of a model."""
    constraints = [*field.metadata, *([Field(discriminator=field.discriminator)] if field.discriminator else [])]
    kind: Any = field.annotation
    if constraints:
        kind = cast("Any", Annotated)[(kind, *constraints)]
    return TypeAdapter(kind)


def forbids(model: object, field: str) -> bool:
    """Whether the input type forbids unknown fields and does not have this one."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)) or model.model_config.get("extra") != "forbid":
        return False
    return field not in {input_key(model, name) for name in model.model_fields}
