"""The words and ports every room shares: closed vocabularies and Protocols, nothing that does anything.

A Protocol here is the only way a lower floor may speak of a higher one or of a foreign library. This module
imports nothing of mageflow.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable


class AcceptParams(StrEnum):
    """What a client hands to its tasks, unless a decorator says otherwise for one task.

    ``NO_CTX``: the message. ``ALL``: the message and the Hatchet context. ``CTX_ONLY``: the context, no message.
    What a decorator or the function's own signature asks for (``with_ctx``, ``with_signature``, ``Depends``)
    is always added.
    """

    NO_CTX = "no_ctx"
    ALL = "all"
    CTX_ONLY = "ctx_only"


Outcome = Literal["succeeded", "failed", "retried", "timed_out", "cancelled", "skipped"]
"""How an attempt ended. Precedence: skipped, timed_out, cancelled, retried, failed, succeeded."""

Phase = Literal["loading", "stagger", "lock_wait", "running", "cancelling"]
"""Where a live attempt is."""

Stage = Literal["signature_load", "stagger", "lock_wait", "body", "callbacks"]
"""What an attempt spent its slot on."""

Source = Literal["direct", "signature", "chain", "swarm", "callback", "schedule", "cron", "event"]
"""Why a run was enqueued."""

SignatureKind = Literal["task", "chain", "swarm"]

ExtensionReason = Literal["stagger", "lock", "user"]

Pool = Literal["default", "durable"]


class Clock(Protocol):
    """Where time comes from. ``time.time`` and ``time.monotonic`` in production."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class RandomSource(Protocol):
    """Where stagger delays are drawn from. ``random.Random`` satisfies it."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between ``a`` and ``b``, evenly distributed."""
        ...


@runtime_checkable
class CancellableRun(Protocol):
    """A running attempt as lower floors see it."""

    @property
    def is_cancelled(self) -> bool:
        """Whether the engine asked this attempt to stop."""
        ...


Unsubscribe = Callable[[], None]
