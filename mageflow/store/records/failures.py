"""The items of a swarm that ended without success, as they are stored."""

from typing import NamedTuple

from mageflow._frozen import frozen
from mageflow.errors import SignatureNotFoundError
from mageflow.signatures import FailureRecord, LastRun, Status
from mageflow.store.keys import RecordKeys
from mageflow.store.paths import MemberPath
from mageflow.store.records.calls import RecordOperations
from mageflow.store.records.decisions import Decision
from mageflow.store.records.declarations import FAILURES
from mageflow.store.records.entries import read_path
from mageflow.store.records.stored import StoredState
from mageflow.store.records.views import guarded

__all__ = ["FailedMember", "FailureOperations", "FailurePage"]


@frozen
class FailedMember:
    """An item that failed, was cancelled or was interrupted."""

    path: MemberPath
    definition_json: str
    status: Status
    error: FailureRecord | None
    last_run: LastRun | None
    """Of a nested flow it names the flow (`mageflow.store.flow_of_run`)."""


@frozen
class FailurePage:
    """Items of a swarm at one instant."""

    swarm: Decision
    """What the inputs of its items are built from; nothing is to be sent."""
    items: tuple[FailedMember, ...]
    next_first: int | None
    """Number of the item to go on with; None at the end."""


class _FailuresReply(NamedTuple):
    """What ``failures.lua`` answers."""

    next_first: int
    """-1 at the end."""
    definition: str
    message: str
    message_set: str
    parent_value: str
    rows: list[str]
    """Path, definition and state of each item, in turn."""


class FailureOperations(RecordOperations):
    """Lists what of a swarm has failed."""

    async def list_failures(self, key: str, *, first: int, limit: int) -> FailurePage:
        """List items of a swarm that ended without success.

        It looks at 10,000 items and lists 500 of them, or 4 MiB, at most: Redis serves no other client meanwhile.

        Args:
            key: Of the swarm.
            first: Number of the first item to look at, from 0.
            limit: How many items to list.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
            SignatureInvalidError: Something stored for it cannot be read.
        """
        keys = self.keys.parse(key)
        reply = await self._call(FAILURES, keys, first, limit)
        if reply is None:
            raise SignatureNotFoundError(keys.record)
        found = _FailuresReply(*reply)
        rows = found.rows
        return FailurePage(
            Decision(
                keys=keys,
                definition_json=found.definition,
                message_json=found.message,
                message_set_json=found.message_set,
                parent_value_json=found.parent_value,
            ),
            guarded(
                keys.record,
                lambda: tuple(_failed(keys, *row) for row in zip(rows[::3], rows[1::3], rows[2::3], strict=True)),
            ),
            None if found.next_first < 0 else found.next_first,
        )


def _failed(keys: RecordKeys, path: str, text: str, state_json: str) -> FailedMember:
    state = StoredState.read(state_json)
    return FailedMember(read_path(keys, path), text, state.status, state.error, state.last_run)
