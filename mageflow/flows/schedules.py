"""Runs of signatures at a time: flows that start by themselves, and records that live until they are needed."""

import json
from datetime import datetime
from typing import Final

from mageflow.errors import FlowDefinitionError, IllegalTransitionError, SignatureInvalidError, SignatureNotFoundError
from mageflow.signatures import FlowMember, RunOptions, SentMessage, decode_member
from mageflow.store import StartRequest, Store, StoredDefinition

__all__ = ["Schedules"]

_MAX_DEPTH: Final = 32


class Schedules:
    """Schedules what is stored.

    Args:
        store: Keeps it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def schedule(self, key: str, at: datetime, message: object, options: RunOptions) -> None:
        """Let a chain or swarm start by itself at a time. What it needs lives for the active TTL after it.

        Raises:
            SignatureNotFoundError: It, or a flow nested in it, expired or was removed.
            IllegalTransitionError: It has begun, or has ended.
            ConfigurationError: The message or the metadata has no JSON form.
        """
        sent = SentMessage.of(message)
        request = StartRequest(
            key,
            json.dumps(sent.whole),
            message_set_json="" if sent.is_all_set else json.dumps(sent.explicit),
            options_json=options.text(),
        )
        await self._keep_nested(key, at, 0)
        verdict, status = await self._store.schedule(key, at, request)
        if verdict == "gone":
            raise SignatureNotFoundError(key)
        if verdict == "begun":
            raise IllegalTransitionError(key, status, "schedule")

    async def unschedule(self, key: str) -> datetime | None:
        """Take back that a chain or swarm starts by itself. Returns when; None if it has no such time.

        Raises:
            SignatureNotFoundError: It expired or was removed.
        """
        return await self._store.unschedule(key)

    async def keep(self, key: str, at: datetime, *, depth: int = 0) -> None:
        """Let a record, and the flows that it needs, live for the active TTL after a time.

        Raises:
            SignatureNotFoundError: It, or a flow that it needs, expired or was removed.
        """
        await self._keep_nested(key, at, depth)
        verdict, _ = await self._store.schedule(key, at)
        if verdict == "gone":
            raise SignatureNotFoundError(key)

    async def _keep_nested(self, key: str, at: datetime, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise FlowDefinitionError(f"flows are nested deeper than {_MAX_DEPTH} in {key!r}")
        for path, text in (await self._store.definitions(key)).items():
            try:
                stored = StoredDefinition.parse(text)
            except ValueError as error:
                raise SignatureInvalidError(key, str(error)) from error
            definition = decode_member(key, stored.document_json) if path else None
            if isinstance(definition, FlowMember):
                await self.keep(definition.key, at, depth=depth + 1)
