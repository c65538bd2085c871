"""Resolves what a user gives (a task, a name, a signature, a key, a flow) into a definition that can be stored.

A `MemberSpec` is a tree: a task with its bound values, and its callbacks, which can have callbacks too. A signature
that becomes a member or a callback is **copied** into the record: the copy has the TTL and the Cluster slot of the
record, and the signature stays as it is. So one signature can be a member of many flows, or of one flow twice, and a
callback cannot expire before the record it belongs to. The signature keeps where it was copied to. Chains and swarms
are not copied. They keep their key and belong to the one flow that starts them.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

from mageflow.error_text import shown
from mageflow.errors import FlowDefinitionError, SignatureInvalidError, SignatureNotFoundError
from mageflow.flows.fields import check_bound_values, check_types, field_names, forbids
from mageflow.signatures import (
    ChainSignature,
    FlowDefinition,
    FlowMember,
    MemberDefinition,
    Signature,
    SwarmConfig,
    SwarmSignature,
    TaskDefinition,
    TaskSignature,
    as_json_object,
    decode_member,
    defined,
    encode,
    error_field,
    other_keys,
    result_field,
    with_input_keys,
)
from mageflow.store import CallbackKind, MemberPath, SignatureCopies, Store, StoredDefinition
from mageflow.types import TaskCatalog

__all__ = ["MemberResolver", "MemberSpec", "callback_places", "copies_of", "documents_of", "flow_document"]

_MAX_DEPTH = 32

_SIGN_PARAMETERS = ("task_identifiers", "success_callbacks", "error_callbacks", "bind")
_FLOW_PARAMETERS = ("name", "config", "closed", "success", "error", "success_callbacks", "error_callbacks", "bind")
"""Parameters of the methods that take bound values: a misspelt one looks like a bound value."""


@dataclass(frozen=True)
class MemberSpec:
    """The definition of a future member, and those of its callbacks."""

    definition: MemberDefinition
    success: tuple["MemberSpec", ...] = ()
    error: tuple["MemberSpec", ...] = ()
    copied_from: str = ""
    """Key of the signature that it is a copy of."""

    @property
    def name(self) -> str:
        """The task's name, or the flow's key."""
        return self.definition.task if isinstance(self.definition, TaskDefinition) else self.definition.key

    @cached_property
    def relative(self) -> tuple[tuple[str, str], ...]:
        """Pairs of path and stored definition, of the member and of everything under it.

        Paths are relative to the member. Cached, because one spec stands for many items in a swarm of one task.
        """
        own = StoredDefinition(self.definition.kind, len(self.success), len(self.error), encode(self.definition))
        return (("", str(own)), *_callbacks(self.success, self.error))

    @cached_property
    def copies(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a signature's key and the path of its copy, relative to the member; of everything under it."""
        own = ((self.copied_from, ""),) if self.copied_from else ()
        return (*own, *_callback_copies(self.success, self.error))


def documents_of(member: MemberSpec, path: MemberPath) -> Iterator[str]:
    """Path, definition, path, definition, ... of the member at ``path`` and of everything under it."""
    place = str(path)
    for below, text in member.relative:
        yield place + below
        yield text


def flow_document(
    definition: FlowDefinition, success: Sequence[MemberSpec], error: Sequence[MemberSpec]
) -> Iterator[str]:
    """Path, definition, path, definition, ... of a flow and of its callbacks, without its members."""
    yield ""
    yield str(StoredDefinition(definition.kind, len(success), len(error), encode(definition)))
    for below, text in _callbacks(success, error):
        yield below
        yield text


def copies_of(members: Iterable[tuple[str, MemberSpec]]) -> list[SignatureCopies]:
    """The signatures that are copied into a record with members at these paths."""
    return SignatureCopies.gather((key, place + below) for place, member in members for key, below in member.copies)


def callback_places(success: Sequence[MemberSpec], error: Sequence[MemberSpec]) -> Iterator[tuple[str, MemberSpec]]:
    """The callbacks of a record, each with its path."""
    groups: tuple[tuple[CallbackKind, Sequence[MemberSpec]], ...] = (("success", success), ("error", error))
    for kind, members in groups:
        for index, member in enumerate(members):
            yield str(MemberPath().callback(kind, index)), member


def _callback_copies(success: Sequence[MemberSpec], error: Sequence[MemberSpec]) -> Iterator[tuple[str, str]]:
    for place, member in callback_places(success, error):
        for key, below in member.copies:
            yield key, place + below


def _callbacks(success: Sequence[MemberSpec], error: Sequence[MemberSpec]) -> Iterator[tuple[str, str]]:
    for place, member in callback_places(success, error):
        for below, text in member.relative:
            yield place + below, text


class MemberResolver:
    """Resolves what a user gives into members.

    Args:
        store: Looks up keys.
        catalog: Knows the tasks of this client.
    """

    def __init__(self, store: Store, catalog: TaskCatalog) -> None:
        self._store = store
        self._catalog = catalog

    async def resolve_member(self, target: object) -> MemberSpec:
        """The member that a task, a name, a signature, a key or a flow stands for.

        No round trip for task objects, names, flows, and signatures made in this process; one for a key and for a
        signature that was loaded.

        Raises:
            FlowDefinitionError: ``target`` is none of these.
            SignatureNotFoundError: The key, or the key of the signature, expired, was removed, or never existed.
            SignatureInvalidError: The stored document does not validate.
        """
        if isinstance(target, MemberSpec):
            return target
        if isinstance(target, ChainSignature | SwarmSignature):
            return MemberSpec(FlowMember(key=target.key))
        if isinstance(target, TaskSignature):
            if not isinstance(target.origin, MemberSpec):
                return await self._of_key(target.key)
            return replace(target.origin, copied_from=target.key)
        if isinstance(target, str):
            return await self._of_text(target)
        name = self._catalog.task_name(target)
        if name is None and inspect.isroutine(target):
            raise FlowDefinitionError(
                f"{target.__name__} is a function and not a task: declare it with @client.task(name=...), and "
                "give what that returns"
            )
        if name is None:
            raise FlowDefinitionError(
                f"{shown(target)} cannot be part of a signature or a flow: give a task declared with this client, the "
                "name of a task, a signature, its key, a chain or a swarm"
            )
        return MemberSpec(self.task_definition(name, {}, {}))

    async def resolve_members(self, targets: object, what: str) -> tuple[MemberSpec, ...]:
        """The members that the targets stand for, in order.

        Args:
            targets: A list or tuple; each element as for `resolve_member`.
            what: Name of the parameter, for the error.

        Raises:
            FlowDefinitionError: ``targets`` is no sequence, or an element cannot be run.
            SignatureNotFoundError: An element is a key or signature that expired, was removed, or never existed.
            SignatureInvalidError: A stored document does not validate.
        """
        if isinstance(targets, str | Mapping) or not isinstance(targets, Sequence):
            raise FlowDefinitionError(
                f"{what} is a list of tasks, names, signatures, keys or flows; got {shown(targets)}"
            )
        known: dict[int, MemberSpec] = {}
        for each in cast("Sequence[object]", targets):
            if id(each) not in known:
                known[id(each)] = await self.resolve_member(each)
        return tuple(known[id(each)] for each in cast("Sequence[object]", targets))

    def check_receives(self, members: Sequence[MemberSpec], value: Literal["result", "error"]) -> None:
        """Refuse members whose input cannot hold the value they will be sent.

        A task that this process did not declare is not checked.

        Raises:
            FlowDefinitionError: The input of a member takes an error and will get a result, or its model forbids
                unknown fields and has none for the value.
        """
        for member in members:
            if isinstance(member.definition, FlowMember):
                continue
            task = member.definition.task
            if value == "result" and not member.definition.error_field:
                raise FlowDefinitionError(
                    f"{task!r} takes a TaskError, and here it gets a result: make it an error callback, or write "
                    "data: ReturnValue[...] in an input model"
                )
            model = self._catalog.input_model(task)
            field = member.definition.result_field if value == "result" else member.definition.error_field
            if field and forbids(model, field):
                line = "data: ReturnValue[...]" if value == "result" else "error: TaskError"
                raise FlowDefinitionError(
                    f"the input of {task!r} forbids unknown fields and has none for the {value}: write {line} in it"
                )

    def task_definition(self, name: str, kwargs: Mapping[str, Any], identifiers: Mapping[str, Any]) -> TaskDefinition:
        """The definition of a task with bound values.

        Raises:
            FlowDefinitionError: A value is bound to a field that the input model of the task does not have, or has
                another type than the field.
            ConfigurationError: A value has no JSON form.
        """
        model = self._catalog.input_model(name)
        bound = with_input_keys(model, as_json_object(kwargs))
        what = f"the input of {name!r}"
        check_bound_values(what, [field_names(model)], kwargs, also=_SIGN_PARAMETERS)
        check_types(what, model, bound)
        return defined(
            TaskDefinition,
            task=name,
            identifiers=as_json_object(identifiers),
            kwargs=bound,
            other_keys=other_keys(model),
            result_field=result_field(model),
            error_field=error_field(model),
        )

    def check_shared_values(self, name: str, members: Sequence[MemberSpec], kwargs: Mapping[str, Any]) -> None:
        """Refuse a value bound to a flow that the input of none of its members has.

        Raises:
            FlowDefinitionError: The field is unknown to every member. A member whose input is not known here, and a
                nested flow, may have any field.
        """
        known = [
            field_names(self._catalog.input_model(each.task)) if isinstance(each, TaskDefinition) else None
            for each in (member.definition for member in members)
        ]
        if known:
            check_bound_values(f"the input of every member of {name!r}", known, kwargs, also=_FLOW_PARAMETERS)

    def check_no_callbacks(self, kwargs: Mapping[str, Any], *, success: str, error: str) -> None:
        """Refuse a callback that is given under the name of another method: as a bound value it would never run.

        Args:
            kwargs: What is bound by keyword.
            success: The parameter for success callbacks of the method that is called.
            error: The same for error callbacks.

        Raises:
            FlowDefinitionError: A name says success, error or callback, and its value is a signature, its key, a task,
                or a list with one of them.
        """
        for name, value in kwargs.items():
            meant = error if "error" in name else success if "success" in name or "callback" in name else None
            if meant is not None and self._is_runnable(value):
                raise FlowDefinitionError(
                    f"{name!r} is no parameter here, and its value is a task or a signature: write {meant}=, or "
                    f"bind={{{name!r}: ...}} for data"
                )

    def check_no_limits(self, members: Sequence[MemberSpec], kwargs: Mapping[str, Any]) -> None:
        """Refuse a field of `SwarmConfig` that is given as a bound value: the swarm would have no such limit.

        Raises:
            FlowDefinitionError: A name is that of such a field, and the input of no given item is known to have it.
        """
        for name in kwargs.keys() & SwarmConfig.model_fields.keys():
            definitions = [each.definition for each in members]
            inputs = [self._catalog.input_model(each.task) for each in definitions if isinstance(each, TaskDefinition)]
            if not any(name in (field_names(model) or ()) for model in inputs):
                raise FlowDefinitionError(
                    f"{name!r} is a limit of the swarm: write config=SwarmConfig({name}={kwargs[name]!r}), or "
                    f"bind={{{name!r}: ...}} for data"
                )

    def _is_runnable(self, value: object) -> bool:
        if isinstance(value, list | tuple):
            return any(self._is_runnable(each) for each in cast("Sequence[object]", value))
        if isinstance(value, str) and value.startswith(f"{self._store.keys.prefix}:{{"):
            return True
        return isinstance(value, Signature) or self._catalog.task_name(value) is not None

    async def _of_text(self, text: str) -> MemberSpec:
        if not text.startswith(f"{self._store.keys.prefix}:{{"):
            return MemberSpec(self.task_definition(self._catalog.task_name(text) or text, {}, {}))
        return await self._of_key(text)

    async def _of_key(self, key: str) -> MemberSpec:
        parsed = self._store.keys.parse(key)
        found = await self._store.definitions(key)
        if parsed.kind != "task" and parsed.member.is_record:
            return MemberSpec(FlowMember(key=key))
        path = parsed.member.definition
        if str(path) not in found:
            raise SignatureNotFoundError(key)
        spec = _read(key, found, path, 0)
        return replace(spec, copied_from=key) if parsed.kind == "task" and parsed.member.is_record else spec


def _read(key: str, found: Mapping[str, str], path: MemberPath, depth: int) -> MemberSpec:
    try:
        stored = StoredDefinition.parse(found.get(str(path), ""))
    except ValueError as error:
        raise SignatureInvalidError(key, str(error)) from error
    if depth > _MAX_DEPTH:
        raise FlowDefinitionError(f"callbacks of {key!r} are nested deeper than {_MAX_DEPTH}")
    return MemberSpec(
        decode_member(key, stored.document_json),
        tuple(
            _read(key, found, path.callback("success", index), depth + 1) for index in range(stored.success_callbacks)
        ),
        tuple(_read(key, found, path.callback("error", index), depth + 1) for index in range(stored.error_callbacks)),
    )
