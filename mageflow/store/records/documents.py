"""Operations over what a record holds: creating, reading, adding to it and removing it."""

import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from mageflow.errors import SignatureNotFoundError, StoreError
from mageflow.interceptors import SignatureLoad, SignatureWrite
from mageflow.signatures import FORMAT_VERSION, Status
from mageflow.store.keys import RecordKeys
from mageflow.store.records import declarations as scripts
from mageflow.store.records.calls import RecordOperations, as_damage
from mageflow.store.records.copies import SignatureCopies, copies_json
from mageflow.store.records.decisions import RemovedRecord, SwarmDecision, SwarmVerdict
from mageflow.store.records.stored import StoredHeader
from mageflow.store.records.views import AnySignature, guarded, member_view, record_view

__all__ = ["DocumentOperations"]


class _LoadReply(NamedTuple):
    """What ``load.lua`` answers."""

    header: list[str]
    definition: str
    successes: int
    errors: int
    state: str
    result: str


class DocumentOperations(RecordOperations):
    """Creates, reads, extends and removes records."""

    async def create(
        self,
        keys: RecordKeys,
        documents: Sequence[str],
        header: Mapping[str, str],
        *,
        by: str = "",
        copies: Sequence[SignatureCopies] = (),
    ) -> tuple[bool, Status]:
        """Store a record with all its members, unless it is stored already.

        Args:
            keys: Where.
            documents: Definition path and stored definition (`StoredDefinition`), in turn.
            header: Its other header fields, see `mageflow.store.records.stored`.
            by: Who creates it, for the history.
            copies: Signatures that are copied into it. They keep where to: in the same script; on a Cluster a signature
                of another shard before it, in a round trip of its own.

        Returns:
            Whether it was stored now, and its status.
        """
        size = sum(map(len, documents))
        call = SignatureWrite(keys.kind, "create", keys.id, size)
        with self._interceptor.write_signature(call):
            near, far = self._near_and_far(keys, copies)
            await self._note_copies(keys, far)
            created, status = await self._call(
                scripts.CREATE,
                keys,
                keys.kind,
                json.dumps(header),
                by,
                copies_json(near),
                *documents,
                more_keys=[each.key for each in near],
            )
        return bool(created), guarded(keys.record, lambda: Status(status))

    async def load(self, key: str) -> AnySignature:
        """A signature, a flow or a member of one, as it is now.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
            SignatureInvalidError: What is stored does not validate.
        """
        signature, _ = await self.load_with_result(key, wants_result=False)
        return signature

    async def load_with_result(self, key: str, *, wants_result: bool = True) -> tuple[AnySignature, str]:
        """Read a record or a member with its stored result, in one round trip.

        Args:
            key: Key of a record or a member.
            wants_result: Whether to read the result.

        Returns:
            The signature as it is now, and the result as JSON text; an empty text if there is none.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
            SignatureInvalidError: What is stored does not validate.
        """
        keys = self.keys.parse(key)
        call = SignatureLoad(keys.kind, keys.id)
        with self._interceptor.load_signature(call):
            reply = await self._call(scripts.LOAD, keys, str(keys.member), "1" if wants_result else "0")
            if reply is None:
                call.result = "missing"
                raise SignatureNotFoundError(key)
            found = _LoadReply(*reply)
            call.size_bytes = len(found.definition)
            call.result = "invalid"
            header, text = StoredHeader.read(found.header), found.definition
            if keys.member.is_record:
                signature: AnySignature = record_view(keys, header, text, found.successes, found.errors)
            else:
                signature = member_view(keys, keys.member, header, text, found.successes, found.errors, found.state)
            call.result = "hit"
            return signature, found.result

    async def definitions(self, key: str) -> dict[str, str]:
        """The stored definitions (`StoredDefinition`) of a record, by definition path.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
        """
        keys = self.keys.parse(key)
        try:
            found = await self.port.command("HGETALL", keys.definitions, operation="definitions")
        except StoreError as error:
            damage = as_damage(keys, error)
            if damage is None:
                raise
            raise damage from error
        if not found:
            raise SignatureNotFoundError(key)
        if isinstance(found, dict):
            return cast("dict[str, str]", found)
        return dict(zip(found[::2], found[1::2], strict=True))

    async def replace_definition(
        self, keys: RecordKeys, before: str, after: str
    ) -> tuple[Literal["done", "gone", "changed", "begun"], str]:
        """Replace a stored definition if it is still ``before`` and nothing of it has begun.

        Args:
            keys: Of the record or the member.
            before: The definition that was read (`definitions`).
            after: The new one.

        Returns:
            What was done, and the status that forbids it.

        Raises:
            SignatureInvalidError: Something stored for the record cannot be read.
        """
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id, len(after))):
            verdict, status = await self._call(scripts.REBIND, keys, str(keys.member), before, after)
        return verdict, status

    async def extend_swarm(
        self,
        key: str,
        documents: Sequence[str] = (),
        *,
        close: Literal["no", "now", "when_full"] = "no",
        token: str = "",
        copies: Sequence[SignatureCopies] = (),
    ) -> SwarmDecision:
        """Add items to a swarm, close it, or do both. With neither, fill the places that have waited long enough.

        Args:
            key: Of the swarm.
            documents: Offset from the first new item (with a callback path behind it for a callback) and stored
                definition, in turn.
            close: Whether the swarm accepts no more items afterwards; ``when_full``: if it holds as many as it may.
            token: Names this addition: the same token adds once, however often the call is repeated.
            copies: As for `create`, with offsets from the first new item for paths; on a Cluster a signature of another
                shard keeps it after the script.
        """
        keys = self.keys.parse(key)
        operation: Literal["update", "touch"] = "update" if documents else "touch"
        with self._interceptor.write_signature(SignatureWrite(keys.kind, operation, keys.id, sum(map(len, documents)))):
            near, far = self._near_and_far(keys, copies)
            more_keys = [each.key for each in near]
            reply = await self._call(
                scripts.SWARM, keys, close, token, copies_json(near), *documents, more_keys=more_keys
            )
            decision = guarded(keys.record, lambda: SwarmDecision.parse(keys, reply))
            if decision.verdict is SwarmVerdict.CHANGED:
                await self._note_copies(keys, far, decision.first_item)
        return decision

    def _near_and_far(
        self, keys: RecordKeys, copies: Sequence[SignatureCopies]
    ) -> tuple[list[SignatureCopies], list[SignatureCopies]]:
        """Those that one script can write together with the record, and the others."""
        near, far = list[SignatureCopies](), list[SignatureCopies]()
        for each in copies:
            is_near = not self.port.is_cluster or self.keys.parse(each.key).due == keys.due
            (near if is_near else far).append(each)
        return near, far

    async def _note_copies(self, keys: RecordKeys, copies: Sequence[SignatureCopies], first: int = 0) -> None:
        for each in copies:
            args = (str(FORMAT_VERSION), keys.record, first, copies_json([each]))
            await self.port.call(scripts.COPIED, [each.key], args)

    async def remove(self, key: str) -> RemovedRecord | None:
        """Delete a record with everything stored for it.

        Returns:
            What was left of it outside Redis; None when there was nothing to delete.
        """
        keys = self.keys.parse(key)
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "delete", keys.id)):
            reply = await self._call(scripts.REMOVE, keys)
        return None if reply is None else RemovedRecord(tuple(reply[0]), is_scheduled=reply[1] == 1)
