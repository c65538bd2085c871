"""The stored form of definitions: versioned JSON, validated on the way in, never executed.

A *definition* is what was written when something was created and never changes. What has become of it is state, which
the scripts own (see ``store/lua``). Unknown fields are kept out, a higher version than this code knows is refused
with the key in the error: a document from a newer release is never half understood.
"""

from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mageflow.errors import SignatureInvalidError
from mageflow.signatures.message import ERROR_FIELD, RESULT_FIELD
from mageflow.signatures.model import SwarmConfig

__all__ = [
    "VERSION",
    "FlowDefinition",
    "FlowMember",
    "MemberDefinition",
    "TaskDefinition",
    "decode_definition",
    "decode_member",
    "encode",
]

VERSION: Final = 1


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)

    v: int = Field(default=VERSION, ge=1, le=VERSION)


class TaskDefinition(_Document):
    """A task with what is bound to it: a signature, a step, an item or a callback.

    Attributes:
        task: The task's declared name; looked up in the registry of the client that sends it.
        identifiers: The caller's.
        kwargs: Bound values.
        message: A swarm item's own message; stronger than the swarm's.
        result_field: Where the previous result goes in the input.
        error_field: Where the error goes in the input.
    """

    kind: Literal["task"] = "task"
    task: str = Field(min_length=1)
    identifiers: dict[str, Any] = Field(default_factory=dict)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    message: dict[str, Any] = Field(default_factory=dict)
    result_field: str = RESULT_FIELD
    error_field: str = ERROR_FIELD


class FlowMember(_Document):
    """A chain or swarm as a step, an item or a callback: a reference, since a flow keeps its own key."""

    kind: Literal["flow"] = "flow"
    key: str = Field(min_length=1)
    message: dict[str, Any] = Field(default_factory=dict)


class FlowDefinition(_Document):
    """A chain or swarm.

    Attributes:
        name: Its name in telemetry; low cardinality.
        kwargs: Values bound to every member.
        config: Of a swarm.
    """

    kind: Literal["chain", "swarm"]
    name: str = Field(min_length=1)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    config: SwarmConfig | None = None


MemberDefinition = TaskDefinition | FlowMember

_MEMBER: Final[TypeAdapter[MemberDefinition]] = TypeAdapter(MemberDefinition)
_ANY: Final[TypeAdapter[TaskDefinition | FlowDefinition]] = TypeAdapter(TaskDefinition | FlowDefinition)


def encode(document: TaskDefinition | FlowMember | FlowDefinition) -> str:
    """The document as JSON text, without what equals its default (but with ``v`` and ``kind``)."""
    text = document.model_dump_json(exclude_defaults=True, exclude={"v", "kind"})
    head = f'{{"v":{document.v},"kind":"{document.kind}"'
    return head + "}" if text == "{}" else f"{head},{text[1:]}"


def decode_member(key: str, text: str | None) -> MemberDefinition:
    """The definition of a member.

    Raises:
        SignatureInvalidError: The text is no valid document of this kind; it names ``key``.
    """
    return _decode(_MEMBER, key, text)


def decode_definition(key: str, text: str | None) -> TaskDefinition | FlowDefinition:
    """The definition of a record: a signature, a chain or a swarm.

    Raises:
        SignatureInvalidError: The text is no valid document of this kind; it names ``key``.
    """
    return _decode(_ANY, key, text)


_T = TypeVar("_T")


def _decode(adapter: TypeAdapter[_T], key: str, text: str | None) -> _T:
    try:
        return adapter.validate_json(text or "", strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(each) for each in first["loc"]) or "document"
        raise SignatureInvalidError(key, f"{place}: {first['msg']}") from error
