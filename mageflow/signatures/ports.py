"""What a signature needs from higher floors to act: Protocols only."""

from typing import Protocol

from mageflow.signatures.states import Status

__all__ = ["SignatureLifecycle", "SwarmOperations"]


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
