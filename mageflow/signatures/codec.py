"""The stored form of definitions: versioned JSON, validated when it is read, never executed.

A *definition* is written when a record is created and never changes. The state of the record changes, and the scripts
in ``mageflow/store/lua`` own it. Unknown fields are dropped. A document with a higher version than this code knows is
refused, with its key in the error, because it could only be understood in part.
"""

import json
from typing import Any, Final, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticSerializationError

from mageflow.errors import ConfigurationError, FlowDefinitionError, SignatureInvalidError, SignatureVersionError
from mageflow.signatures.message import ERROR_FIELD, RESULT_FIELD
from mageflow.signatures.swarm import SwarmConfig

__all__ = [
    "FORMAT_VERSION",
    "FlowDefinition",
    "FlowMember",
    "MemberDefinition",
    "TaskDefinition",
    "decode_definition",
    "decode_member",
    "defined",
    "encode",
]

FORMAT_VERSION: Final = 1
"""Of everything stored for a record: definitions carry it as ``v``, headers as ``format`` (``docs/storage.md``)."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)

    v: int = Field(default=FORMAT_VERSION, ge=1, le=FORMAT_VERSION)


class TaskDefinition(_Document):
    """A task with bound values: a signature, a step, an item or a callback.

    Attributes:
        task: Declared name of the task.
        identifiers: The caller's identifiers.
        kwargs: Bound values.
        message: The whole message of a swarm item, merged over the message of the swarm.
        message_set: The part of it that the caller set, where this is not the whole.
        other_keys: Further keys by which a caller may name a field of the input, and the field's key.
        result_field: Field of the input that receives the previous result.
        error_field: Field of the input that receives the error; empty where the error is the whole input.
    """

    kind: Literal["task"] = "task"
    task: str = Field(min_length=1)
    identifiers: dict[str, Any] = Field(default_factory=dict)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    message: dict[str, Any] = Field(default_factory=dict)
    message_set: dict[str, Any] | None = None
    other_keys: dict[str, str] = Field(default_factory=dict)
    result_field: str = RESULT_FIELD
    error_field: str = ERROR_FIELD


class FlowMember(_Document):
    """A chain or swarm as a step, an item or a callback: a reference, because a flow has its own record.

    Attributes:
        key: Key of the flow.
        message: The whole message of a swarm item, merged over the message of the swarm.
        message_set: The part of it that the caller set, where this is not the whole.
    """

    kind: Literal["flow"] = "flow"
    key: str = Field(min_length=1)
    message: dict[str, Any] = Field(default_factory=dict)
    message_set: dict[str, Any] | None = None


class FlowDefinition(_Document):
    """A chain or swarm.

    Attributes:
        name: Its name in telemetry.
        kwargs: Values bound to every member.
        config: Limits of a swarm; None for a chain.
    """

    kind: Literal["chain", "swarm"]
    name: str = Field(min_length=1)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    config: SwarmConfig | None = None

    @field_validator("config", mode="before")
    @classmethod
    def _known_fields(cls, value: object) -> object:
        """Drop unknown fields here too: `SwarmConfig` refuses them, for they are misspelt when a program gives them."""
        if not isinstance(value, dict):
            return value
        fields = cast("dict[str, object]", value)
        return {name: each for name, each in fields.items() if name in SwarmConfig.model_fields}


MemberDefinition = TaskDefinition | FlowMember
_Defined = TypeVar("_Defined", TaskDefinition, FlowDefinition)

_MEMBER: Final[TypeAdapter[MemberDefinition]] = TypeAdapter(MemberDefinition)
_ANY: Final[TypeAdapter[TaskDefinition | FlowDefinition]] = TypeAdapter(TaskDefinition | FlowDefinition)


def defined(model: type[_Defined], /, **fields: Any) -> _Defined:
    """A definition with these fields.

    Raises:
        FlowDefinitionError: A field cannot be stored, such as a name that is empty or no Unicode text.
    """
    try:
        return model(**fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])).encode("utf-8", "backslashreplace").decode()
        raise FlowDefinitionError(f"the {place} of a {model.__name__} cannot be stored: {first['msg']}") from error


def encode(document: TaskDefinition | FlowMember | FlowDefinition) -> str:
    """The document as JSON text, without fields that equal their default (but with ``v`` and ``kind``).

    Raises:
        ConfigurationError: A text in it has lone surrogates, so it has no encoding.
    """
    try:
        text = document.model_dump_json(exclude_defaults=True, exclude={"v", "kind"})
    except PydanticSerializationError as error:
        raise ConfigurationError(f"these values cannot be stored as JSON: {error}") from error
    head = f'{{"v":{document.v},"kind":"{document.kind}"'
    return head + "}" if text == "{}" else f"{head},{text[1:]}"


def decode_member(key: str, text: str | None) -> MemberDefinition:
    """Read the definition of a member.

    Raises:
        SignatureInvalidError: The text is not a valid document of this kind; the error names ``key``.
        SignatureVersionError: Another release has written it.
    """
    return _decode(_MEMBER, key, text)


def decode_definition(key: str, text: str | None) -> TaskDefinition | FlowDefinition:
    """Read the definition of a record: a signature, a chain or a swarm.

    Raises:
        SignatureInvalidError: The text is not a valid document of this kind; the error names ``key``.
        SignatureVersionError: Another release has written it.
    """
    return _decode(_ANY, key, text)


_T = TypeVar("_T")


def _decode(adapter: TypeAdapter[_T], key: str, text: str | None) -> _T:
    try:
        return adapter.validate_json(text or "", strict=False)
    except ValidationError as error:
        version = _version_of(text)
        if version is not None and version != FORMAT_VERSION:
            raise SignatureVersionError(key, version, FORMAT_VERSION) from error
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(each) for each in first["loc"]) or "document"
        raise SignatureInvalidError(key, f"{place}: {first['msg']}") from error


def _version_of(text: str | None) -> int | None:
    try:
        document: object = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    version = cast("dict[str, object]", document).get("v") if isinstance(document, dict) else None
    return version if isinstance(version, int) else None
