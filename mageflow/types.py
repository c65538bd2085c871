"""Types that every package shares: closed vocabularies and Protocols, without behaviour.

A lower floor names what it needs of a higher one, or of a foreign library, as a Protocol here. This module imports
nothing of mageflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, Literal, Protocol

from mageflow._frozen import frozen


class AcceptParams(StrEnum):
    """The arguments that a client passes to its tasks.

    ``NO_CTX``: the message. ``ALL``: the message and the Hatchet context. ``CTX_ONLY``: the context without a message.
    What a decorator (``with_ctx``, ``with_signature``) or the function's own annotations (``Context``, ``Depends``)
    require is added to that.
    """

    NO_CTX = "no_ctx"
    ALL = "all"
    CTX_ONLY = "ctx_only"


Outcome = Literal["succeeded", "failed", "retried", "timed_out", "cancelled", "skipped"]
"""How an attempt ended.

If several apply, the first of these is reported: ``skipped`` (not admitted, the body did not run), ``timed_out``,
``cancelled``, ``retried`` (failed, and Hatchet makes another attempt), ``failed``, ``succeeded``.
"""

TaskEnding = Literal["succeeded", "failed", "timed_out", "cancelled"]
"""How Hatchet recorded the end of an attempt. It does not distinguish ``failed`` and ``retried``."""

SettledOutcome = Literal["succeeded", "failed", "retried", "timed_out", "cancelled"]
"""An `Outcome` with which a run of a signature is settled; a skipped run is not settled."""

OutageReason = Literal[
    "unreachable",
    "connections",
    "full",
    "forbidden",
    "read_only",
    "no_replicas",
    "disk",
    "loading",
    "busy",
    "cluster_down",
    "master_down",
    "try_again",
]
"""Why Redis does not serve: it is away, has no free connection, or refuses in a way that passes."""

UnservedReason = Literal["unreachable", "no_worker", "not_served"]
"""Why a run does not start: Hatchet does not answer; no worker is connected; the connected ones do not run its task."""

Phase = Literal["loading", "stagger", "lock_wait", "running", "cancelling"]
"""The activity of a live attempt."""

Stage = Literal["signature_load", "stagger", "lock_wait", "body", "callbacks"]
"""What an attempt spends the worker's slot on."""

Source = Literal["direct", "signature", "chain", "swarm", "callback", "schedule", "cron", "event"]
"""What started a run."""

SignatureKind = Literal["task", "chain", "swarm"]

ExtensionReason = Literal["stagger", "lock", "redis", "user"]

Pool = Literal["default", "durable"]

WorkflowPart = Literal["", "task", "hook"]
"""What a task is in its run: the only task (empty), one of several tasks of a workflow, or the workflow's task for its
success or failure."""


class RandomSource(Protocol):
    """Draws stagger delays and backoffs. ``random.Random`` satisfies it."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between ``a`` and ``b``, uniformly distributed."""
        ...


@frozen
class DispatchRun:
    """One run to send to Hatchet for a signature or a flow.

    Attributes:
        task_name: The declared name of the task.
        input_json: The task's input, the JSON text of an object.
        signature_key: Key of the signature, or of the member of a flow.
        dedupe_key: Derived from the member, so that a run sent twice has the same key and admission accepts one of
            them.
        source: What started the run.
        flow: The place in a flow, ``chain:<id>:<step>`` or ``swarm:<id>:<item>``; or empty.
        traceparent: W3C context of the span that the run belongs under: the start of the flow.
        link: W3C context of the span that the run links to: the previous step.
        priority: Hatchet's priority, 1 low to 3 high; None for the task's own.
        metadata: Further additional metadata.
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
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


@frozen
class RunOrigin:
    """When Hatchet made a run, and the sending that it was made from.

    Attributes:
        created_at: Epoch seconds, by Hatchet's clock.
        stamp: The time in ``mageflow_enqueued_at`` of its metadata, as it was written; another one for each sending.
    """

    created_at: float
    stamp: str


@frozen
class RunReport:
    """The state of a run in Hatchet.

    Attributes:
        state: Its state.
        output_json: JSON text of the output of a run that is ``completed``: of its only task, or `outputs_json`.
        outputs_json: JSON text of the output of a ``completed`` run of a workflow: an object with the output of each
            task by the task's name, as Hatchet gives it.
        task: Name of the task of a workflow that failed first; empty for a stand-alone task.
        error: For a ``failed`` run the text of the exception that ended it, or what Hatchet says.
        input_json: JSON text of the run's input; empty if Hatchet did not return it.
        is_unscheduled: True if it is ``cancelled`` because no worker took it within its schedule timeout.
        error_type: Class name of the exception that ended a ``failed`` run: that of the task function, or
            ``TaskTimedOut``. Empty if Hatchet ended the run for another reason.
    """

    state: Literal["queued", "running", "completed", "failed", "cancelled"]
    output_json: str | None = None
    error: str = ""
    input_json: str = ""
    is_unscheduled: bool = False
    error_type: str = ""
    outputs_json: str | None = None
    task: str = ""


class Dispatcher(Protocol):
    """Sends runs to Hatchet and reads their state. ``mageflow.hatchet`` implements it over the SDK."""

    async def dispatch(self, runs: Sequence[DispatchRun]) -> Sequence[str]:
        """Send runs to Hatchet, in one call for each 1000 of them. Returns the ids of the runs in order.

        Raises:
            DispatchError: Hatchet could not be reached or refused. It is unknown whether runs started.
        """
        ...

    async def cancel(self, run_ids: Sequence[str]) -> None:
        """Cancel these runs in one call. Runs that have ended stay as they are.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...

    async def delete_scheduled(self, key: str) -> None:
        """Delete the scheduled runs of a task signature that have not begun.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...

    async def statuses(self, run_ids: Sequence[str]) -> Mapping[str, RunReport]:
        """The state of each of these runs, by id; without the runs that Hatchet does not know.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...

    async def was_replayed(self, run_id: str, attempt_number: int) -> bool:
        """Whether a user replayed a run in Hatchet (dashboard, ``runs.replay``) after this attempt of it ended.

        An attempt after a retry or after the death of a worker is not a replay.

        Args:
            run_id: The workflow run.
            attempt_number: From 1; 0 for a run whose body never began.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...

    async def was_timed_out(self, run_id: str, attempt_number: int) -> bool:
        """Whether the execution timeout ended this attempt of a run, and not a cancellation.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...

    async def origin(self, run_id: str) -> RunOrigin | None:
        """When and from what Hatchet made a run; None if it does not know the run.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
        """
        ...


class TaskCatalog(Protocol):
    """The tasks that one client has declared. ``mageflow.hatchet`` implements it over its register."""

    def task_name(self, task: object) -> str | None:
        """The declared name of a task or workflow object, or of the task with this name. None if it is not known.

        Raises:
            FlowDefinitionError: It is a workflow without tasks, or has a batch task.
        """
        ...

    def input_model(self, name: str) -> object | None:
        """The input model of the task declared under this name, or None when this client does not know it."""
        ...
