"""Swarms as values: limits, counts, and the two methods only swarms have. Pure, no I/O."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from mageflow.did_you_mean import hint
from mageflow.errors import ConfigurationError, FlowDefinitionError
from mageflow.signatures.ports import FailedItem, SwarmOperations
from mageflow.signatures.signature import Signature, unbound

__all__ = ["SwarmConfig", "SwarmSignature"]


_HIGHEST = 1_000_000_000
"""Scripts count exactly up to here, and more digits than Python writes cannot be stored."""


class SwarmConfig(BaseModel):
    """Limits of a swarm, and how its places are refilled. Fixed when the swarm is created. None is over a billion.

    Attributes:
        max_concurrency: Most items that are dispatched to Hatchet and have not ended; at least 1.
        stop_after_n_failures: Number of failed items that ends the swarm as ``failed``; at least 1. None lets the
            swarm succeed as long as one item succeeds.
        max_task_allowed: Most items the swarm may hold; at least 1. None for no limit.
        refill_linger_ms: Longest time in milliseconds that a free place waits until `refill_batch` places are free and
            are filled in one call to Hatchet. 0 fills each place at once, with one call per item.

    Raises:
        ConfigurationError: There is no such field.
        pydantic.ValidationError: A value is out of range.
    """

    model_config = ConfigDict(frozen=True)

    max_concurrency: int = Field(default=30, ge=1, le=_HIGHEST)
    stop_after_n_failures: int | None = Field(default=None, ge=1, le=_HIGHEST)
    max_task_allowed: int | None = Field(default=None, ge=1, le=_HIGHEST)
    refill_linger_ms: int = Field(default=1000, ge=0, le=_HIGHEST)

    if not TYPE_CHECKING:  # type checkers see the fields

        def __init__(self, **fields: Any) -> None:
            for name in fields:
                if name not in SwarmConfig.model_fields:
                    raise ConfigurationError(f"SwarmConfig has no field {name!r}{hint(name, SwarmConfig.model_fields)}")
            super().__init__(**fields)

    @property
    def refill_batch(self) -> int:
        """Number of free places that are filled in one call: 20, or two thirds of a smaller swarm."""
        return 1 if self.refill_linger_ms == 0 else max(1, min(20, self.max_concurrency * 2 // 3))


class SwarmSignature(Signature):
    """Tasks that run side by side, at most ``config.max_concurrency`` at a time. Create one with ``client.swarm``.

    ``pending``, ``running``, ``succeeded`` and ``failed`` add up to ``total`` at any moment, also while the swarm is
    suspended.

    Attributes:
        name: Its name in telemetry.
        config: Its limits.
        is_closed: True if no more items are accepted.
        total: Items added so far.
        pending: Items not started yet.
        running: Items dispatched to Hatchet, or held by a suspension, that have not ended.
        succeeded: Items that succeeded.
        failed: Items that failed, were cancelled or were interrupted.
    """

    kind: Literal["swarm"] = "swarm"
    name: str
    config: SwarmConfig = SwarmConfig()
    is_closed: bool = False
    total: int = 0
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0

    _swarm: SwarmOperations | None = PrivateAttr(default=None)

    def bind_swarm(self, operations: SwarmOperations) -> Self:
        """The same swarm, with the service behind `add` and `close`."""
        self._swarm = operations
        return self

    async def add(self, tasks: object, message: object = None, *, close_on_max_task: bool = True) -> tuple[str, ...]:
        """Add one or more items; they start as places are free.

        One round trip to Redis, atomic: all items are added or none. One call to Hatchet if places are free. A retried
        attempt of a task that repeats the call adds the items once. Refreshes the active TTL.

        Args:
            tasks: A task, a name, a signature, a key, a flow, or a list of them.
            message: Input that these items share, merged over the message of the swarm. Only fields that are explicitly
                set count.
            close_on_max_task: Close the swarm, in the same script, when it has reached ``config.max_task_allowed``.

        Returns:
            Keys of the new items, in order.

        Raises:
            ConfigurationError: This copy was not made by a client.
            FlowDefinitionError: A task cannot be run.
            SwarmClosedError: The swarm is closed or has ended.
            SwarmFullError: It would hold more than ``config.max_task_allowed`` items; nothing is added.
            SignatureNotFoundError: The swarm, or a signature given as a task, expired or was removed.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._operations("add").add(self.key, tasks, message, close_on_max_task=close_on_max_task)

    async def close(self) -> Self:
        """Accept no more items; the swarm ends when its items have ended. Closing it again changes nothing.

        One round trip to Redis, atomic. Refreshes the active TTL.

        Returns:
            This copy, unchanged; load the swarm to read its new state.

        Raises:
            ConfigurationError: This copy was not made by a client.
            SignatureNotFoundError: The swarm expired or was removed.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        await self._operations("close").close(self.key)
        return self

    @property
    def item_keys(self) -> tuple[str, ...]:
        """Keys of the items in this copy, in order, for ``client.load_signature``. No round trip."""
        return tuple(f"{self.key}#{index}" for index in range(self.total))

    async def failed_items(self, *, first: int = 0, limit: int = 1000) -> tuple[FailedItem, ...]:
        """Read which items failed, were cancelled or were interrupted, as they are now, with error and input.

        Also while the swarm runs, and after it succeeded in spite of them. For the next ones call it again with
        ``first=items[-1].index + 1``. One round trip to Redis for each 10,000 items of the swarm, and for
        each 500 items, or 4 MiB, that are returned; each shows one instant. Changes nothing.

        Args:
            first: Number of the first item to look at, from 0.
            limit: Most items to return, from 1 to 10,000.

        Returns:
            The items, in order. Empty if there are none.

        Raises:
            ConfigurationError: This copy was not made by a client, or ``first`` or ``limit`` is out of range.
            SignatureNotFoundError: The swarm expired or was removed.
            SignatureInvalidError: Something stored for it cannot be read.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        return await self._operations("failed_items").failed_items(self.key, first=first, limit=limit)

    async def aio_run_in_swarm(self, task: object, msg: object = None, *, close_on_max_task: bool = True) -> Any:
        """Add items and start the swarm if it has not been started, as in mageflow 0.3.

        The same as `add` with ``msg`` for ``message``, and ``aio_run_no_wait``, which changes nothing in a swarm that
        has been started. One round trip to Redis more.

        Args:
            task: The ``tasks`` of `add`.
            msg: The ``message`` of `add`.
            close_on_max_task: As in `add`.

        Returns:
            Keys of the new items, in order.

        Raises:
            ConfigurationError: This copy was not made by a client.
            FlowDefinitionError: A task cannot be run.
            SwarmClosedError: The swarm is closed or has ended.
            SwarmFullError: It would hold more than ``config.max_task_allowed`` items; nothing is added.
            SignatureNotFoundError: The swarm, or a signature given as a task, expired or was removed.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        keys = await self.add(task, msg, close_on_max_task=close_on_max_task)
        await self._start_own()
        return keys

    async def close_swarm(self) -> Self:
        """Accept no more items, and start the swarm if it has not been started, as in mageflow 0.3.

        The same as `close` and ``aio_run_no_wait``. One round trip to Redis more.

        Returns:
            This copy, unchanged; load the swarm to read its new state.

        Raises:
            ConfigurationError: This copy was not made by a client.
            SignatureNotFoundError: The swarm expired or was removed.
            StoreUnavailableError: Redis is unreachable, or refuses for now.
        """
        await self.close()
        await self._start_own()
        return self

    async def _start_own(self) -> None:
        # A swarm that belongs to a flow is started by that flow.
        with suppress(FlowDefinitionError):
            await self.aio_run_no_wait()

    def _operations(self, operation: str) -> SwarmOperations:
        if self._swarm is None:
            raise unbound(operation)
        return self._swarm
