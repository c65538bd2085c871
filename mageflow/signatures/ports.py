"""What a signature needs from higher floors to act: Protocols only."""

from typing import Any, Protocol

from mageflow._frozen import frozen
from mageflow.signatures.message import FailureRecord
from mageflow.signatures.runs import LastRun
from mageflow.signatures.states import Status

__all__ = ["FailedItem", "SignatureLifecycle", "SwarmOperations"]


@frozen
class FailedItem:
    """An item of a swarm that ended without success.

    Attributes:
        index: Its number in the swarm, from 0: its place in the list of results.
        key: For ``client.load_signature``; ``<swarm key>#<index>``.
        task: Name of its task; empty for a nested flow.
        flow_key: Key of the nested flow it is; empty for a task.
        status: ``Status.FAILED``, ``Status.CANCELLED`` or ``Status.INTERRUPTED``.
        error: The error of its last attempt; None if there is none.
        input: The input of its run, as JSON values. It is built from what is stored, as it was for the run. None for a
            nested flow.
        last_run: Its run in Hatchet; None for a nested flow and for an item that was never sent.
    """

    index: int
    key: str
    task: str
    flow_key: str
    status: Status
    error: FailureRecord | None
    input: dict[str, Any] | None
    last_run: LastRun | None


class SignatureLifecycle(Protocol):
    """The lifecycle actions. Implemented by ``mageflow.flows``; each is atomic, and repeating it changes nothing."""

    async def suspend(self, key: str, *, by: str = "", why: str = "") -> Status:
        """Start nothing more until `resume`."""
        ...

    async def resume(self, key: str, *, by: str = "", why: str = "") -> Status:
        """Continue."""
        ...

    async def interrupt(self, key: str, *, by: str = "", why: str = "") -> Status:
        """End it now."""
        ...

    async def remove(self, key: str) -> bool:
        """Delete it."""
        ...


class SwarmOperations(Protocol):
    """What only swarms can do. Implemented by ``mageflow.flows``."""

    async def add(self, key: str, tasks: object, message: object, *, close_on_max_task: bool) -> tuple[str, ...]:
        """Add items."""
        ...

    async def close(self, key: str) -> None:
        """Accept no more items."""
        ...

    async def failed_items(self, key: str, *, first: int, limit: int) -> tuple[FailedItem, ...]:
        """The items that ended without success."""
        ...
