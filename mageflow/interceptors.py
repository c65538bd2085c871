"""The one extension seam: what happens to a task, and a place to stand around each of it.

An `Interceptor` has one method per operation. Each is given a *call*, the facts of that one operation, and returns
a context manager that is entered before the operation and left after it, with the operation's exception if there
was one. First listed is outermost. Everything mageflow knows about itself goes through here; its own telemetry is
the first and hardest customer.

Context managers are synchronous on purpose: an observer must not await, and the same ``with`` then serves
coroutines, threads and the synchronous methods of the SDK. Attributes marked *filled in* are set by the operation
before the block is left. An exception raised by an interceptor reaches the operation as if it had failed; mageflow's
own telemetry never raises.

This room owns the calls and the composition. It refuses to know what anybody does with them.
"""

import time
from collections.abc import Callable, Generator, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

from mageflow.types import ExtensionReason, Outcome, Phase, Pool, SignatureKind, Source, Stage

__all__ = [
    "Attempt",
    "Enqueue",
    "EnqueueItem",
    "Interceptor",
    "InterceptorChain",
    "RedisCall",
    "SignatureLoad",
    "SignatureWrite",
    "Stagger",
    "TaskInfo",
    "TimeoutExtension",
    "current_attempt",
]

_NOTHING: AbstractContextManager[None] = nullcontext()


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What is known of a task when it is declared.

    ``name`` is the label in every signal: the declared name for a stand-alone task, ``workflow:task`` for a
    task of a workflow; never namespaced.
    """

    name: str
    workflow_name: str
    execution_timeout_seconds: float
    retries: int
    pool: Pool = "default"
    is_batch: bool = False
    is_async: bool = True
    stagger_window_seconds: float | None = None
    code_function_name: str = ""


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt of one run of a task (or of one batch), live from wrapper entry to wrapper exit.

    The same object is what gauges look at while it runs: `phase`, `elapsed_seconds` and `extended_seconds`
    are current at any moment and may be read from another thread.
    """

    task: TaskInfo
    workflow_run_id: str
    step_run_id: str
    worker_id: str
    number: int
    """From 1, one more than Hatchet's retry count."""
    max_attempts: int
    metadata: MutableMapping[str, object]
    """Hatchet's additional metadata of the run, as received; a copy, not the live object."""
    is_cancelled: Callable[[], bool]
    batch_size: int = 1
    monotonic: Callable[[], float] = time.monotonic

    signature_id: str = ""
    flow_kind: Literal["", "chain", "swarm"] = ""
    flow_id: str = ""
    flow_name: str = ""
    flow_step: int = 0
    flow_steps: int = 0

    phase: Phase = "running"
    stage: Stage = "body"
    stage_seconds: dict[Stage, float] = field(default_factory=dict[Stage, float])
    extended_seconds: float = 0.0
    """Seconds the engine granted on top of the task's execution timeout."""
    outcome: Outcome | None = None
    """Filled in."""
    exception: BaseException | None = None
    """Filled in for failed, retried and timed_out attempts, also where the block is left without it."""
    will_retry: bool = False
    """Filled in: whether the engine is expected to start another attempt."""
    skip_reason: str = ""
    """Filled in for ``skipped``: the signature's status."""
    started_at: float = 0.0
    _stage_since: float = 0.0

    def __post_init__(self) -> None:
        """Start the clock."""
        self.started_at = self._stage_since = self.monotonic()

    def enter(self, phase: Phase, stage: Stage) -> None:
        """Move on to another phase; the time since the last move is charged to the stage that is left."""
        self.charge()
        self.phase, self.stage = phase, stage

    def charge(self) -> None:
        """Charge the time since the last move to the current stage."""
        now = self.monotonic()
        self.stage_seconds[self.stage] = self.stage_seconds.get(self.stage, 0.0) + (now - self._stage_since)
        self._stage_since = now

    @property
    def elapsed_seconds(self) -> float:
        """Wall time since the wrapper was entered."""
        return self.monotonic() - self.started_at

    @property
    def timeout_seconds(self) -> float:
        """The execution timeout including every extension granted so far."""
        return self.task.execution_timeout_seconds + self.extended_seconds

    @property
    def remaining_seconds(self) -> float:
        """How much of the timeout is left; may be negative."""
        return self.timeout_seconds - self.elapsed_seconds


current_attempt: ContextVar[Attempt | None] = ContextVar("mageflow_current_attempt", default=None)
"""The attempt this code runs in: set for the task's coroutine, and in the thread of a synchronous task."""


@dataclass(slots=True, eq=False)
class EnqueueItem:
    """One run about to be handed to Hatchet.

    ``metadata`` is a private copy and is what will be sent: this is where trace context and stamps are written.
    """

    task: str
    metadata: dict[str, object]
    run_id: str = ""
    """Filled in."""


@dataclass(slots=True, eq=False)
class Enqueue:
    """One call that hands runs to Hatchet, whoever makes it: user code, a signature, a flow."""

    operation: Literal["run", "run_many", "schedule", "push_event"]
    items: Sequence[EnqueueItem]
    source: Source = "direct"
    signature_id: str = ""
    flow: str = ""
    """``chain:<id>:<step>`` or ``swarm:<id>:<item>``."""
    link: str = ""
    """A ``traceparent`` the consumer should link to: the previous step of a flow."""
    due_at: float | None = None
    """Epoch seconds at which the runs are due, when that is later than now."""
    is_durable_spawn: bool = False
    """Whether a durable task spawns these; the SDK's instrumentor injects nothing then (telemetry.md F4)."""


@dataclass(slots=True, eq=False)
class Stagger:
    """The random delay of one attempt, from the draw to the end of the sleep."""

    attempt: Attempt
    window_seconds: float
    delay_seconds: float
    """As drawn; `slept_seconds` may be less when the extension was refused or the attempt was cancelled."""
    extension_failed: bool = False
    """Filled in."""
    slept_seconds: float = 0.0
    """Filled in."""


@dataclass(slots=True, eq=False)
class TimeoutExtension:
    """One request to the engine for more execution time."""

    attempt: Attempt
    reason: ExtensionReason
    requested_seconds: float
    granted_seconds: float = 0.0
    """Filled in; 0 when refused."""
    deadline: float | None = None
    """Filled in: epoch seconds, as the engine answered."""


@dataclass(slots=True, eq=False)
class SignatureLoad:
    """Reading a signature for a run (and marking it active in the same round trip)."""

    kind: SignatureKind
    signature_id: str
    result: Literal["hit", "missing", "invalid", "error"] = "error"
    """Filled in."""
    size_bytes: int = 0
    """Filled in."""


@dataclass(slots=True, eq=False)
class SignatureWrite:
    """Writing a signature."""

    kind: SignatureKind
    operation: Literal["create", "update", "delete", "touch"]
    signature_id: str
    size_bytes: int = 0
    """Filled in where the whole document is written."""


@dataclass(slots=True, eq=False)
class RedisCall:
    """One round trip to Redis. ``operation`` is the Lua script's file name or the command."""

    operation: str


class Interceptor:
    """Stand around what mageflow does. Override the operations of interest; the others cost nothing."""

    def attempt(self, call: Attempt) -> AbstractContextManager[None]:
        """Around one attempt of a task, from entry into the wrapper until it is settled."""
        return _NOTHING

    def execute(self, call: Attempt) -> AbstractContextManager[None]:
        """Around the user's function alone, with its dependencies, without stagger, loading and settling."""
        return _NOTHING

    def enqueue(self, call: Enqueue) -> AbstractContextManager[None]:
        """Around handing runs to Hatchet."""
        return _NOTHING

    def stagger(self, call: Stagger) -> AbstractContextManager[None]:
        """Around the extension and the sleep of a staggered attempt."""
        return _NOTHING

    def extend_timeout(self, call: TimeoutExtension) -> AbstractContextManager[None]:
        """Around a request for more execution time."""
        return _NOTHING

    def load_signature(self, call: SignatureLoad) -> AbstractContextManager[None]:
        """Around the load of a signature."""
        return _NOTHING

    def write_signature(self, call: SignatureWrite) -> AbstractContextManager[None]:
        """Around the write of a signature."""
        return _NOTHING

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        """Around a round trip to Redis."""
        return _NOTHING


class InterceptorChain(Interceptor):
    """Several interceptors as one; the first is outermost."""

    def __init__(self, interceptors: Sequence[Interceptor] = ()) -> None:
        self._interceptors = tuple(interceptors)

    def _around(self, managers: Sequence[AbstractContextManager[None]]) -> AbstractContextManager[None]:
        if len(managers) == 1:
            return managers[0]
        return _entered(managers) if managers else _NOTHING

    def attempt(self, call: Attempt) -> AbstractContextManager[None]:
        """See `Interceptor.attempt`."""
        return self._around([each.attempt(call) for each in self._interceptors])

    def execute(self, call: Attempt) -> AbstractContextManager[None]:
        """See `Interceptor.execute`."""
        return self._around([each.execute(call) for each in self._interceptors])

    def enqueue(self, call: Enqueue) -> AbstractContextManager[None]:
        """See `Interceptor.enqueue`."""
        return self._around([each.enqueue(call) for each in self._interceptors])

    def stagger(self, call: Stagger) -> AbstractContextManager[None]:
        """See `Interceptor.stagger`."""
        return self._around([each.stagger(call) for each in self._interceptors])

    def extend_timeout(self, call: TimeoutExtension) -> AbstractContextManager[None]:
        """See `Interceptor.extend_timeout`."""
        return self._around([each.extend_timeout(call) for each in self._interceptors])

    def load_signature(self, call: SignatureLoad) -> AbstractContextManager[None]:
        """See `Interceptor.load_signature`."""
        return self._around([each.load_signature(call) for each in self._interceptors])

    def write_signature(self, call: SignatureWrite) -> AbstractContextManager[None]:
        """See `Interceptor.write_signature`."""
        return self._around([each.write_signature(call) for each in self._interceptors])

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        """See `Interceptor.redis`."""
        return self._around([each.redis(call) for each in self._interceptors])


@contextmanager
def _entered(managers: Sequence[AbstractContextManager[None]]) -> Generator[None]:
    with ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        yield
