"""What a signature is: a task (or a flow) with everything bound to it, and what has become of it. Pure, no I/O.

Signatures are values: a frozen copy of what is stored, as of one moment. Changing what is stored is a verb
(``suspend``, ``resume``, ``interrupt``, ``remove``) or a run, never an attribute.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr

from mageflow.errors import ConfigurationError
from mageflow.signatures.message import FailureRecord
from mageflow.signatures.ports import SignatureLifecycle, SignatureRunner, SwarmOperations
from mageflow.signatures.states import ENDED, Status

__all__ = [
    "ChainSignature",
    "HistoryEntry",
    "LastRun",
    "RunIdentity",
    "Signature",
    "SwarmConfig",
    "SwarmSignature",
    "TaskSignature",
]


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """Which run of Hatchet this is: what admission and settlement are idempotent over.

    Attributes:
        workflow_run_id: Hatchet's id of the run; stays the same over retries and reassignment.
        task_run_id: Hatchet's id of the task within the run.
        worker_id: The worker that runs it.
        attempt_number: From 1, one more than Hatchet's retry count; grows on retry and on reassignment.
        dedupe_key: The key the run was dispatched with (`DispatchRun.dedupe_key`); empty for a run that was
            dispatched without one, which then stands for itself.
        traceparent: Context of the span the run is traced under; the next step of a flow links to it.
    """

    workflow_run_id: str
    task_run_id: str = ""
    worker_id: str = ""
    attempt_number: int = 1
    dedupe_key: str = ""
    traceparent: str = ""


class LastRun(BaseModel):
    """The run of Hatchet that last had to do with a signature; joins it to Hatchet's own records and logs."""

    model_config = ConfigDict(frozen=True)

    workflow_run_id: str
    task_run_id: str = ""
    worker_id: str = ""


class HistoryEntry(BaseModel):
    """One change of status: when, what it became, who did it and why."""

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    status: Status
    by: str = ""
    why: str = ""


class Signature(BaseModel):
    """What every kind of signature has; its subclasses add ``kind``: ``task``, ``chain`` or ``swarm``.

    Attributes:
        key: Where it is stored; what ``load_signature`` takes. Empty when it is not stored at all.
        kwargs: Values bound when it was created; see `mageflow.signatures.merge` for how they meet a message.
        success_callbacks: Keys of the callbacks, loadable like any signature.
        error_callbacks: As above.
        status: As of the moment this copy was read.
        created_at: By the clock of Redis.
        updated_at: By the clock of Redis; the last change of anything.
        attempts: How many attempts were admitted so far.
        last_run: The run that last had to do with it.
        last_error: Why the last failed attempt failed.
        traceparent: The trace it belongs to.
        history: The last changes of status, oldest first; bounded.
        version: Of the stored document.
    """

    model_config = ConfigDict(frozen=True)

    key: str = ""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    success_callbacks: tuple[str, ...] = ()
    error_callbacks: tuple[str, ...] = ()
    status: Status = Status.PENDING
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    updated_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    attempts: int = 0
    last_run: LastRun | None = None
    last_error: FailureRecord | None = None
    traceparent: str = ""
    history: tuple[HistoryEntry, ...] = ()
    version: int = 1

    _runner: SignatureRunner | None = PrivateAttr(default=None)
    _lifecycle: SignatureLifecycle | None = PrivateAttr(default=None)

    @property
    def is_stored(self) -> bool:
        """Whether there is anything in Redis behind it."""
        return bool(self.key)

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it was running or waiting to run when this copy was read."""
        return self.status in ENDED

    def bind(self, runner: SignatureRunner | None, lifecycle: SignatureLifecycle | None) -> Self:
        """The same signature, able to run and to obey the lifecycle verbs."""
        self._runner, self._lifecycle = runner, lifecycle
        return self

    def run(self, input: object = None, **options: Any) -> Any:  # noqa: A002 - the SDK's name
        """Run it and wait for its result; blocks. Takes what the SDK's ``Task.run`` takes.

        The message is merged with the bound values: what is explicitly set in it wins.

        Raises:
            ConfigurationError: This copy was not made by a client.
        """
        return self._bound_runner("run").run(self, input, options)

    async def aio_run(self, input: object = None, **options: Any) -> Any:  # noqa: A002
        """Run it and wait for its result; see `run`."""
        return await self._bound_runner("aio_run").aio_run(self, input, options)

    def run_no_wait(self, input: object = None, **options: Any) -> Any:  # noqa: A002
        """Start it and get a reference to the run; see `run`."""
        return self._bound_runner("run_no_wait").run_no_wait(self, input, options)

    async def aio_run_no_wait(self, input: object = None, **options: Any) -> Any:  # noqa: A002
        """Start it and get a reference to the run; see `run`."""
        return await self._bound_runner("aio_run_no_wait").aio_run_no_wait(self, input, options)

    async def suspend(self, *, by: str = "", why: str = "") -> Status:
        """Let nothing more of it start until `resume`; see `mageflow.lifecycle`.

        Raises:
            IllegalTransitionError: It has ended.
            SignatureNotFoundError: It expired or was removed.
        """
        return await self._bound_lifecycle("suspend").suspend(self.key, by=by, why=why)

    async def resume(self, *, by: str = "", why: str = "") -> Status:
        """Go on from where `suspend` stopped it, without running again what succeeded.

        Raises:
            IllegalTransitionError: It has ended.
            SignatureNotFoundError: It expired or was removed.
        """
        return await self._bound_lifecycle("resume").resume(self.key, by=by, why=why)

    async def interrupt(self, *, by: str = "", why: str = "") -> Status:
        """End it now: what runs is cancelled in Hatchet, what waits is dropped, error callbacks fire.

        Raises:
            IllegalTransitionError: It has ended in another way.
            SignatureNotFoundError: It expired or was removed.
        """
        return await self._bound_lifecycle("interrupt").interrupt(self.key, by=by, why=why)

    async def remove(self) -> bool:
        """Delete it and everything stored for it; what runs is cancelled, no callback fires.

        Returns:
            Whether there was anything to delete.
        """
        return await self._bound_lifecycle("remove").remove(self.key)

    def _bound_runner(self, operation: str) -> SignatureRunner:
        if self._runner is None:
            raise _unbound(operation)
        return self._runner

    def _bound_lifecycle(self, operation: str) -> SignatureLifecycle:
        if self._lifecycle is None or not self.key:
            raise _unbound(operation)
        return self._lifecycle


class TaskSignature(Signature):
    """A task with what is bound to it.

    Attributes:
        task_name: The task's declared name.
        task_identifiers: Whatever the caller wanted to recognise it by. For a run that was not started from a
            stored signature: the run's own ids.
        flow_key: The chain or swarm it is a member or callback of, or an empty string.
    """

    kind: Literal["task"] = "task"
    task_name: str
    task_identifiers: dict[str, Any] = Field(default_factory=dict)
    flow_key: str = ""

    _origin: object = PrivateAttr(default=None)

    @property
    def origin(self) -> object:
        """What it was created from, in the process that created it; None anywhere else. Saves a round trip."""
        return self._origin

    def created_from(self, origin: object) -> Self:
        """The same signature, with its `origin`."""
        self._origin = origin
        return self

    @classmethod
    def from_run(
        cls, task_name: str, run: RunIdentity, *, identifiers: Mapping[str, Any] | None = None, traceparent: str = ""
    ) -> Self:
        """The signature of a plain run: not stored, no callbacks, the run's ids as identifiers.

        Costs no round trip. `key` is empty and the lifecycle verbs refuse.
        """
        ids = {
            "workflow_run_id": run.workflow_run_id,
            "task_run_id": run.task_run_id,
            "worker_id": run.worker_id,
            "attempt_number": run.attempt_number,
        }
        return cls(
            task_name=task_name,
            task_identifiers={**ids, **(identifiers or {})},
            status=Status.ACTIVE,
            attempts=run.attempt_number,
            last_run=LastRun(workflow_run_id=run.workflow_run_id, task_run_id=run.task_run_id, worker_id=run.worker_id),
            traceparent=traceparent or run.traceparent,
        )


class ChainSignature(Signature):
    """Tasks that run one after another, each with the result of the one before.

    Attributes:
        name: Its name in telemetry.
        steps: Keys of the steps, in order.
        step: How many steps have succeeded, which is the number of the step it stands at, from 0; ``len(steps)`` when
            it is done. Counted the moment a step succeeds, also while the chain is suspended.
    """

    kind: Literal["chain"] = "chain"
    name: str
    steps: tuple[str, ...] = ()
    step: int = 0


class SwarmConfig(BaseModel):
    """How a swarm runs.

    Attributes:
        max_concurrency: How many items may be handed to Hatchet and not have ended, at most.
        stop_after_n_failures: The swarm ends as failed with this many failed items; None tolerates failures as long
            as one item succeeds.
        max_task_allowed: How many items may be added at all; None for no limit.
        refill_linger_ms: Items are started in bulk: a freed place waits until `refill_batch` are free, or this
            many milliseconds. 0 refills each place at once, with one call to Hatchet per item.
    """

    model_config = ConfigDict(frozen=True)

    max_concurrency: int = Field(default=30, ge=1)
    stop_after_n_failures: int | None = Field(default=None, ge=1)
    max_task_allowed: int | None = Field(default=None, ge=1)
    refill_linger_ms: int = Field(default=1000, ge=0)

    @property
    def refill_batch(self) -> int:
        """How many places must be free before they are filled in one call: 20, or two thirds of a smaller swarm."""
        return 1 if self.refill_linger_ms == 0 else max(1, min(20, self.max_concurrency * 2 // 3))


class SwarmSignature(Signature):
    """Tasks that run side by side, at most so many at once.

    Attributes:
        name: Its name in telemetry.
        config: As given.
        is_closed: Whether no more tasks are accepted.
        total: Items added so far. ``pending``, ``running``, ``succeeded`` and ``failed`` add up to it at any moment,
            also while the swarm is suspended; ``running`` is what was handed to Hatchet, or is held, and has not ended.
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
        """The same swarm, able to take tasks and to be closed."""
        self._swarm = operations
        return self

    async def add(self, tasks: object, message: object = None, *, close_on_max_task: bool = True) -> tuple[str, ...]:
        """Add one task or several, with a message of their own that all of them share; they run as places allow.

        Args:
            tasks: A task, a name, a signature, a flow, or a sequence of them.
            message: Merged over the swarm's message; what is explicitly set wins.
            close_on_max_task: Close the swarm in the same step when it has reached ``max_task_allowed``.

        Returns:
            Keys of the new items, in order.

        Raises:
            SwarmClosedError: It is closed or has ended.
            SwarmFullError: It would hold more than ``max_task_allowed``; nothing is added.
        """
        return await self._operations("add").add(self.key, tasks, message, close_on_max_task=close_on_max_task)

    async def close(self) -> Self:
        """Accept no more tasks; the swarm ends when its items have. Twice is once.

        Raises:
            SignatureNotFoundError: It expired or was removed.
        """
        await self._operations("close").close(self.key)
        return self

    async def aio_run_in_swarm(self, task: object, msg: object = None, *, close_on_max_task: bool = True) -> Any:
        """The name `add` has elsewhere."""
        return await self.add(task, msg, close_on_max_task=close_on_max_task)

    async def close_swarm(self) -> Self:
        """The name `close` has elsewhere."""
        return await self.close()

    def _operations(self, operation: str) -> SwarmOperations:
        if self._swarm is None:
            raise _unbound(operation)
        return self._swarm


def _unbound(operation: str) -> ConfigurationError:
    return ConfigurationError(
        f"{operation} needs a client: this signature is a bare value. Get one that can act from client.sign, "
        "client.load_signature, or as a parameter of a task decorated with @client.with_signature that was started "
        "from a stored signature"
    )
