"""The words and ports every room shares: closed vocabularies and Protocols, nothing that does anything.

A Protocol here is the only way a lower floor may speak of a higher one or of a foreign library. This module
imports nothing of mageflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol


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

SettledOutcome = Literal["succeeded", "failed", "retried", "timed_out", "cancelled"]
"""An `Outcome` a run of a signature is settled with; a skipped run is not settled."""

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


@dataclass(frozen=True, slots=True)
class DispatchRun:
    """One run to hand to Hatchet on behalf of a signature or a flow.

    ``input_json`` is the JSON text of an object. ``dedupe_key`` is deterministic: the same step of the same flow
    always carries the same one, so that a run sent twice is recognised at admission (and by Hatchet, where it can).
    ``traceparent`` is the context the run belongs under (a flow's start span); ``link`` the previous step's.
    """

    task_name: str
    input_json: str
    signature_key: str
    dedupe_key: str
    source: Source = "signature"
    flow: str = ""
    traceparent: str = ""
    link: str = ""
    priority: int | None = None
    metadata: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class RunReport:
    """What Hatchet says of a run.

    ``output_json`` is the task's output (of the one task, for a stand-alone task) when ``state`` is ``completed``;
    ``error`` is Hatchet's text when it is ``failed``; ``input_json`` is what the run was given, empty when not known.
    ``is_unscheduled``: it is ``cancelled`` because no worker took it within its schedule timeout.
    """

    state: Literal["queued", "running", "completed", "failed", "cancelled"]
    output_json: str | None = None
    error: str = ""
    input_json: str = ""
    is_unscheduled: bool = False


class Dispatcher(Protocol):
    """How lower floors reach Hatchet. Implemented by ``mageflow.hatchet`` over the SDK."""

    async def dispatch(self, runs: Sequence[DispatchRun]) -> Sequence[str]:
        """Hand runs to Hatchet in one call (chunks of at most 1000) and get the run ids in order.

        Raises:
            DispatchError: Hatchet could not be reached or refused; nothing is known to have started.
        """
        ...

    async def cancel(self, run_ids: Sequence[str]) -> None:
        """Ask Hatchet to cancel these runs; runs that have ended are left alone.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...

    async def statuses(self, run_ids: Sequence[str]) -> Mapping[str, RunReport]:
        """What Hatchet says of these runs; a run it does not know is left out.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...

    async def was_replayed(self, run_id: str, attempt_number: int) -> bool:
        """Whether somebody has replayed a run in Hatchet after this attempt of it had ended; 0 for one never begun.

        What else gives a run another attempt (a retry, a worker that died) is no replay.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...

    async def was_timed_out(self, run_id: str, attempt_number: int) -> bool:
        """Whether it was its execution timeout that ended this attempt of a run, and not a cancellation.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...


class TaskCatalog(Protocol):
    """What one client knows of its tasks. Implemented by ``mageflow.hatchet`` over its register of declarations."""

    def task_name(self, task: object) -> str | None:
        """The declared name of a task or workflow object, or of the task with this name. None if it is not known.

        Raises:
            FlowDefinitionError: It is a workflow of several tasks, or a batch task: neither has one body whose end
                could be recorded.
        """
        ...

    def input_model(self, name: str) -> object | None:
        """The input model of the task declared under this name, or None when this client does not know it."""
        ...
