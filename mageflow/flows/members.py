"""What a user names (a task, a name, a signature, a key, a flow) as something that can be stored.

A `MemberSpec` is a tree: a task with its bound values, and its callbacks, which have callbacks of their own. Signatures
that become members of a flow, or callbacks, are **copied** into the record they belong to: their definition travels
with it, shares its TTL and its slot, and the signature itself stays as it was. So one signature may be a member of many
flows, or twice of one, and a callback cannot expire before what it belongs to. Chains and swarms are not copied: they
keep their key, and belong to the one flow that starts them.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from pydantic import BaseModel

from mageflow.errors import FlowDefinitionError, SignatureNotFoundError
from mageflow.signatures import (
    ChainSignature,
    FlowDefinition,
    FlowMember,
    MemberDefinition,
    SwarmSignature,
    TaskDefinition,
    TaskSignature,
    as_json_object,
    decode_member,
    encode,
    error_field,
    result_field,
)
from mageflow.store import Keys, Store
from mageflow.types import TaskCatalog

__all__ = ["MemberResolver", "MemberSpec", "documents_of", "flow_document"]

_MAX_DEPTH = 32


@dataclass(frozen=True)
class MemberSpec:
    """A member to be: its definition, and the members of its callbacks."""

    definition: MemberDefinition
    success: tuple["MemberSpec", ...] = ()
    error: tuple["MemberSpec", ...] = ()

    @property
    def name(self) -> str:
        """The task's name, or the flow's key."""
        return self.definition.task if isinstance(self.definition, TaskDefinition) else self.definition.key

    @cached_property
    def relative(self) -> tuple[tuple[str, str], ...]:
        """Path below the member, and stored definition, of it and of everything under it.

        Made once for a member that stands for many members, as in a swarm of one task.
        """
        letter = "T" if isinstance(self.definition, TaskDefinition) else "F"
        own = f"{letter}:{len(self.success)}:{len(self.error)}|{encode(self.definition)}"
        return (("", own), *_callbacks(self.success, self.error))


def documents_of(member: MemberSpec, path: str) -> Iterator[str]:
    """Path and stored definition of a member and of everything under it, in turn."""
    for below, text in member.relative:
        yield path + below
        yield text


def flow_document(
    definition: FlowDefinition, success: Sequence[MemberSpec], error: Sequence[MemberSpec]
) -> Iterator[str]:
    """As `documents_of`, for a flow itself (without its members)."""
    yield ""
    yield f"{definition.kind[0].upper()}:{len(success)}:{len(error)}|{encode(definition)}"
    for below, text in _callbacks(success, error):
        yield below
        yield text


def _callbacks(success: Sequence[MemberSpec], error: Sequence[MemberSpec]) -> Iterator[tuple[str, str]]:
    for mark, members in (("s", success), ("e", error)):
        for index, member in enumerate(members):
            for below, text in member.relative:
                yield f".{mark}{index}{below}", text


class MemberResolver:
    """Turns what a user names into members.

    Args:
        store: Where keys are looked up.
        catalog: What the client knows of its tasks.
    """

    def __init__(self, store: Store, catalog: TaskCatalog) -> None:
        self._store = store
        self._catalog = catalog

    @property
    def keys(self) -> Keys:
        """Names of everything."""
        return self._store.keys

    async def resolve_member(self, target: object) -> MemberSpec:
        """The member behind anything that can be a member, an item or a callback.

        Costs no round trip for task objects, names, flows, and signatures made in this process; one for a key and
        for a signature that was loaded.

        Raises:
            FlowDefinitionError: It is none of these.
            SignatureNotFoundError: The key, or the signature's, is not stored (any more).
            SignatureInvalidError: What is stored does not validate.
        """
        if isinstance(target, MemberSpec):
            return target
        if isinstance(target, ChainSignature | SwarmSignature):
            return MemberSpec(FlowMember(key=target.key))
        if isinstance(target, TaskSignature):
            return target.origin if isinstance(target.origin, MemberSpec) else await self._of_key(target.key)
        if isinstance(target, str):
            return await self._of_text(target)
        name = self._catalog.task_name(target)
        if name is None:
            raise FlowDefinitionError(
                f"{target!r} cannot be run by a signature or a flow: give a task declared with this client, the "
                "name of one, a signature, its key, a chain or a swarm"
            )
        return MemberSpec(self.task_definition(name, {}, {}))

    async def resolve_members(self, targets: object, what: str) -> tuple[MemberSpec, ...]:
        """The members of several.

        Raises:
            FlowDefinitionError: ``targets`` is a single thing, or holds something that cannot be run.
        """
        if isinstance(targets, str | Mapping) or not isinstance(targets, Sequence):
            raise FlowDefinitionError(f"{what} is a list of tasks, names, signatures, keys or flows; got {targets!r}")
        known: dict[int, MemberSpec] = {}
        for each in cast("Sequence[object]", targets):
            if id(each) not in known:
                known[id(each)] = await self.resolve_member(each)
        return tuple(known[id(each)] for each in cast("Sequence[object]", targets))

    def task_definition(self, name: str, kwargs: Mapping[str, Any], identifiers: Mapping[str, Any]) -> TaskDefinition:
        """A task with values bound to it.

        Raises:
            FlowDefinitionError: A value is bound to a field its input model does not have.
            ConfigurationError: A value has no JSON form.
        """
        model = self._catalog.input_model(name)
        if isinstance(model, type) and issubclass(model, BaseModel):
            _check_fields(name, model, kwargs)
        return TaskDefinition(
            task=name,
            identifiers=as_json_object(identifiers),
            kwargs=as_json_object(kwargs),
            result_field=result_field(model),
            error_field=error_field(model),
        )

    async def _of_text(self, text: str) -> MemberSpec:
        if not text.startswith(f"{self.keys.prefix}:{{"):
            return MemberSpec(self.task_definition(self._catalog.task_name(text) or text, {}, {}))
        return await self._of_key(text)

    async def _of_key(self, key: str) -> MemberSpec:
        parsed = self.keys.parse(key)
        found = await self._store.definitions(key)
        if parsed.kind != "task" and not parsed.path:
            return MemberSpec(FlowMember(key=key))
        if parsed.path not in found:
            raise SignatureNotFoundError(key)
        return _read(key, found, parsed.path, 0)


def _read(key: str, found: Mapping[str, str], path: str, depth: int) -> MemberSpec:
    head, _, text = found.get(path, "").partition("|")
    definition = decode_member(key, text)
    _, successes, errors = head.split(":")
    if depth > _MAX_DEPTH:
        raise FlowDefinitionError(f"callbacks of {key!r} are nested deeper than {_MAX_DEPTH}")
    return MemberSpec(
        definition,
        tuple(_read(key, found, f"{path}.s{index}", depth + 1) for index in range(int(successes))),
        tuple(_read(key, found, f"{path}.e{index}", depth + 1) for index in range(int(errors))),
    )


def _check_fields(name: str, model: type[BaseModel], kwargs: Mapping[str, Any]) -> None:
    if model.model_config.get("extra") == "allow" or not model.model_fields:
        return
    known: dict[str, None] = {}
    for field_name, field in model.model_fields.items():
        known |= dict.fromkeys(
            [field_name, *[each for each in (field.alias, field.validation_alias) if isinstance(each, str)]]
        )
    for each in kwargs:
        if each not in known:
            near = difflib.get_close_matches(
                each, [*known, "task_identifiers", "success_callbacks", "error_callbacks", "bind"], 1
            )
            hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"
            raise FlowDefinitionError(f"the input of {name!r} has no field {each!r}{hint}")
