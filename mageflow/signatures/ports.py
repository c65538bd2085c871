"""What a signature needs from higher floors to act: three Protocols, nothing that does anything."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mageflow.signatures.states import Status

if TYPE_CHECKING:
    from mageflow.signatures.model import Signature

__all__ = ["SignatureLifecycle", "SignatureRunner", "SwarmOperations"]


class SignatureRunner(Protocol):
    """Starts runs of signatures of every kind. Implemented by ``mageflow.hatchet``.

    ``input`` is the message as the caller gave it (a model, a dataclass, a mapping, None); ``options`` are the
    keyword arguments of the SDK's ``Task.run``. For a chain or swarm the result is the flow's.
    """

    def run(self, signature: "Signature", input: object, options: Mapping[str, Any]) -> Any:  # noqa: A002
        """Run and wait; blocks."""
        ...

    async def aio_run(self, signature: "Signature", input: object, options: Mapping[str, Any]) -> Any:  # noqa: A002
        """Run and wait."""
        ...

    def run_no_wait(self, signature: "Signature", input: object, options: Mapping[str, Any]) -> Any:  # noqa: A002
        """Start and return a reference; blocks for the call."""
        ...

    async def aio_run_no_wait(
        self,
        signature: "Signature",
        input: object,  # noqa: A002
        options: Mapping[str, Any],
    ) -> Any:
        """Start and return a reference."""
        ...


@runtime_checkable
class SignatureLifecycle(Protocol):
    """The verbs. Implemented by ``mageflow.flows``; each is atomic, and twice is once."""

    async def suspend(self, key: str, *, by: str = "", why: str = "") -> Status:
        """Let nothing more start."""
        ...

    async def resume(self, key: str, *, by: str = "", why: str = "") -> Status:
        """Go on."""
        ...

    async def interrupt(self, key: str, *, by: str = "", why: str = "") -> Status:
        """End it now."""
        ...

    async def remove(self, key: str) -> bool:
        """Delete it."""
        ...


@runtime_checkable
class SwarmOperations(Protocol):
    """What only swarms can do. Implemented by ``mageflow.flows``."""

    async def add(self, key: str, tasks: object, message: object, *, close_on_max_task: bool) -> tuple[str, ...]:
        """Add items."""
        ...

    async def close(self, key: str) -> None:
        """Accept no more items."""
        ...
