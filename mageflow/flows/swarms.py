"""Operations of swarms only: add items, close, and list the items that failed."""

from collections.abc import Sequence
from typing import Final, Literal

from mageflow.errors import (
    ConfigurationError,
    FlowDefinitionError,
    SignatureNotFoundError,
    SwarmClosedError,
    SwarmFullError,
)
from mageflow.flows.identity import new_identity
from mageflow.flows.inputs import build_item_input
from mageflow.flows.members import MemberResolver, MemberSpec, copies_of, documents_of
from mageflow.flows.outbox import OutboxRelay
from mageflow.signatures import FailedItem, FlowMember, SentMessage, decode_member
from mageflow.store import Decision, FailedMember, MemberPath, Store, SwarmDecision, SwarmVerdict

__all__ = ["Swarms"]

_MOST_LISTED: Final = 10_000
_HIGHEST_ITEM: Final = 10**9


class Swarms:
    """Implements `mageflow.signatures.SwarmOperations`.

    Every method raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError` when Redis fails.

    Args:
        store: Keeps the swarms.
        members: Resolves the tasks to add.
        outbox: Sends the items that start.
    """

    def __init__(self, store: Store, members: MemberResolver, outbox: OutboxRelay) -> None:
        self._store = store
        self._members = members
        self._outbox = outbox

    async def add(
        self, key: str, tasks: object, message: object = None, *, close_on_max_task: bool = True
    ) -> tuple[str, ...]:
        """Add items to a swarm; they start as places are free.

        One round trip to Redis, atomic: all items are added or none. One call to Hatchet if places are free. A task
        given as a key, or as a loaded signature, costs one round trip more. Repeating the call in a retried attempt
        adds the items once. Refreshes the active TTL.

        Args:
            key: Key of the swarm.
            tasks: A task, a name, a signature, a key, a flow, or a list of them.
            message: Input of these items, merged over the message of the swarm. Bound values win over fields that the
                caller did not set.
            close_on_max_task: Close the swarm in the same script when it has reached ``max_task_allowed``.

        Returns:
            Keys of the new items, in order.

        Raises:
            FlowDefinitionError: A task cannot be run, or the key is not of a swarm.
            SignatureNotFoundError: The swarm, or a signature given as a task, expired or was removed.
            SwarmClosedError: The swarm is closed or has ended.
            SwarmFullError: It would hold more than ``max_task_allowed`` items; nothing is added.
        """
        targets: Sequence[object] = tasks if isinstance(tasks, list | tuple) else [tasks]
        own = SentMessage.of(message)
        change = {"message": own.whole, "message_set": None if own.is_all_set else own.explicit}
        documents: list[str] = []
        members = await self._members.resolve_members(targets, "tasks")
        for index, member in enumerate(members):
            definition = member.definition.model_copy(update=change) if own.whole else member.definition
            documents += documents_of(MemberSpec(definition, member.success, member.error), MemberPath(index))
        token = new_identity("add", key, *documents)
        close: Literal["when_full", "no"] = "when_full" if close_on_max_task else "no"
        copies = copies_of((str(index), member) for index, member in enumerate(members))
        decision = await self._store.extend_swarm(key, documents, close=close, token=token, copies=copies)
        await self._deliver(key, decision)
        first, record = decision.first_item, decision.keys.record
        return tuple(MemberPath(first + index).key(record) for index in range(len(targets)))

    async def close(self, key: str) -> None:
        """Accept no more items; the swarm ends when its items have ended. Closing it again changes nothing.

        One round trip to Redis, atomic. Refreshes the active TTL.

        Args:
            key: Key of the swarm.

        Raises:
            FlowDefinitionError: The key is not of a swarm.
            SignatureNotFoundError: The swarm expired or was removed.
        """
        await self._deliver(key, await self._store.extend_swarm(key, close="now"))

    async def failed_items(self, key: str, *, first: int = 0, limit: int = 1000) -> tuple[FailedItem, ...]:
        """List the items that ended without success, as they are now.

        One round trip to Redis for each 10,000 items of the swarm, and for
        each 500 items, or 4 MiB, that are returned; each shows one instant. Changes nothing.

        Args:
            key: Key of the swarm.
            first: Number of the first item to look at, from 0.
            limit: Most items to return, from 1 to 10,000.

        Returns:
            The items, in order.

        Raises:
            ConfigurationError: ``first`` or ``limit`` is out of range.
            FlowDefinitionError: The key is not of a swarm.
            SignatureNotFoundError: The swarm expired or was removed.
            SignatureInvalidError: Something stored for it cannot be read.
        """
        if not (0 <= first <= _HIGHEST_ITEM and 1 <= limit <= _MOST_LISTED):
            raise ConfigurationError(f"first is from 0, and limit from 1 to {_MOST_LISTED}; got {first} and {limit}")
        keys = self._store.keys.parse(key)
        if keys.kind != "swarm" or not keys.member.is_record:
            raise FlowDefinitionError(f"{key!r} is not a swarm")
        found: list[FailedItem] = []
        look_at: int | None = first
        while look_at is not None and len(found) < limit:
            page = await self._store.list_failures(key, first=look_at, limit=limit - len(found))
            found += (_failed_item(page.swarm, each) for each in page.items)
            look_at = page.next_first
        return tuple(found)

    async def _deliver(self, key: str, decision: SwarmDecision) -> None:
        match decision.verdict:
            case SwarmVerdict.GONE:
                raise SignatureNotFoundError(key)
            case SwarmVerdict.CLOSED:
                raise SwarmClosedError(key)
            case SwarmVerdict.FULL:
                raise SwarmFullError(key, decision.limit)
            case SwarmVerdict.NO_SWARM:
                raise FlowDefinitionError(f"{key!r} is a {decision.keys.kind}, not a swarm")
            case SwarmVerdict.CHANGED:
                pass
        await self._outbox.deliver(decision)


def _failed_item(swarm: Decision, item: FailedMember) -> FailedItem:
    key = item.path.key(swarm.keys.record)
    definition = decode_member(key, item.definition_json)
    nested = definition if isinstance(definition, FlowMember) else None
    return FailedItem(
        index=item.path.index or 0,
        key=key,
        task="" if isinstance(definition, FlowMember) else definition.task,
        flow_key=nested.key if nested else "",
        status=item.status,
        error=item.error,
        input=None if isinstance(definition, FlowMember) else build_item_input(swarm, item.path, definition),
        last_run=None if nested else item.last_run,
    )
