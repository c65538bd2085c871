"""Changes the bound values of what has not begun: ``client.rebind``."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from mageflow.errors import FlowDefinitionError, IllegalTransitionError, SignatureInvalidError, SignatureNotFoundError
from mageflow.flows.members import MemberResolver, MemberSpec
from mageflow.signatures import (
    FlowMember,
    TaskDefinition,
    as_json_object,
    decode_definition,
    decode_member,
    encode,
)
from mageflow.store import MemberPath, RecordKeys, Store, StoredDefinition

__all__ = ["Rebinding"]

_TRIES: Final = 20
_MOST_DIGITS: Final = 10
"""No flow has so many members: a longer path is damage, and Python refuses to read very long numbers."""


class Rebinding:
    """Changes bound values in the store.

    Args:
        store: Keeps the definitions.
        members: Checks the names of the fields.
    """

    def __init__(self, store: Store, members: MemberResolver) -> None:
        self._store = store
        self._members = members

    async def rebind(self, key: str, values: Mapping[str, Any]) -> None:
        """Replace or add bound values of a signature, a flow, or a member of one. Atomic.

        Raises:
            FlowDefinitionError: No input has such a field, or the key is of a member that is a nested flow.
            IllegalTransitionError: It has begun.
            SignatureNotFoundError: It expired, was removed, or never existed.
            SignatureInvalidError: What is stored does not validate.
        """
        keys = self._store.keys.parse(key)
        for _ in range(_TRIES):
            found = await self._store.definitions(key)
            before = found.get(str(keys.member.definition))
            if before is None:
                raise SignatureNotFoundError(key)
            after = self._changed(key, keys, found, _parsed(key, before), values)
            verdict, status = await self._store.replace_definition(keys, before, after)
            if verdict == "done":
                return
            if verdict == "gone":
                raise SignatureNotFoundError(key)
            if verdict == "begun":
                raise IllegalTransitionError(key, status, "rebind")
        raise IllegalTransitionError(key, "changed by others all the time", "rebind")

    def _changed(
        self, key: str, keys: RecordKeys, found: Mapping[str, str], stored: StoredDefinition, values: Mapping[str, Any]
    ) -> str:
        read = decode_definition if keys.member.is_record else decode_member
        definition = read(key, stored.document_json)
        if isinstance(definition, FlowMember):
            raise FlowDefinitionError(f"{key!r} is a nested flow: rebind {definition.key!r}")
        if isinstance(definition, TaskDefinition):
            bound = self._members.task_definition(definition.task, {**definition.kwargs, **values}, {}).kwargs
        else:
            bound = {**definition.kwargs, **as_json_object(values)}
            self._members.check_shared_values(definition.name, _members(key, found), bound)
        document = encode(definition.model_copy(update={"kwargs": bound}))
        return str(replace(stored, document_json=document))


def _members(key: str, found: Mapping[str, str]) -> list[MemberSpec]:
    paths = [path for path in found if path.isdecimal() and len(path) < _MOST_DIGITS]
    return [
        MemberSpec(decode_member(MemberPath(int(path)).key(key), _parsed(key, found[path]).document_json))
        for path in paths
    ]


def _parsed(key: str, text: str) -> StoredDefinition:
    try:
        return StoredDefinition.parse(text)
    except ValueError as error:
        raise SignatureInvalidError(key, str(error)) from error
