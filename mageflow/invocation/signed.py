"""Runs that were started from a stored signature: the port the runner uses, and its two unusual answers."""

from dataclasses import dataclass
from typing import Any, Protocol

from mageflow.interceptors import Attempt
from mageflow.signatures import TaskSignature

__all__ = ["Replay", "SignedRuns", "Skip"]


@dataclass(frozen=True, slots=True)
class Replay:
    """The step had succeeded before: hand out its stored result and leave the body alone."""

    result_json: str


class Skip(BaseException):
    """The signature does not admit this run: it was removed, suspended, or another run owns the step."""

    def __init__(self, status: str) -> None:
        self.status = status
        super().__init__(status)


class SignedRuns(Protocol):
    """Admission before the body, settlement after it; one round trip to Redis each."""

    async def admit(self, attempt: Attempt) -> TaskSignature | Replay | None:
        """Let this attempt own the step.

        Returns:
            The signature, now active; a stored result to hand out instead of running; or None when the signature
            belongs to another task: its key was inherited by a run spawned with a plain Hatchet client.

        Raises:
            Skip: The run must not run.
            SignatureNotFoundError: The signature expired or was removed; trying again cannot help.
            SignatureInvalidError: The stored document does not validate; trying again cannot help.
            StoreUnavailableError: Redis could not be reached; the engine may try again.
        """
        ...

    async def succeed(self, attempt: Attempt, result_json: str) -> None:
        """Record the result and send what comes next.

        Raises:
            StoreUnavailableError: Redis could not be reached for as long as the attempt's timeout allows.
        """
        ...

    async def fail(self, attempt: Attempt, error: BaseException, *, message: dict[str, Any]) -> None:
        """Record a failure (or a cancellation, or a timeout) and send what it calls for. Never raises."""
        ...
