"""Every error mageflow raises, in one tree.

::

    MageflowError
    ├── ConfigurationError            the program or its settings must change; raised early
    │   ├── DecorationError           a decorator cannot work on this function
    │   ├── ForkedProcessError        Hatchet was called before the fork, and again in the child
    │   ├── RedisNotConfiguredError   an operation needs Redis and none was given
    │   └── SdkFeatureError           the installed hatchet-sdk is too old for it
    ├── SignatureError
    │   ├── SignatureNotFoundError    expired, removed or never stored
    │   ├── SignatureInvalidError     the stored document does not validate; it is never executed
    │   │   └── SignatureVersionError another release of mageflow has stored it
    │   ├── DuplicateRunError         the run has the metadata of the run that owns the step
    │   └── IllegalTransitionError    the lifecycle does not allow this step
    │       └── SignatureCopiedError  the signature is part of several flows: name the member
    ├── FlowError
    │   ├── FlowDefinitionError       the chain or swarm cannot work as defined
    │   ├── FlowFailedError           the awaited flow did not succeed
    │   ├── SwarmClosedError          a task was added after the swarm was closed
    │   └── SwarmFullError            a task was added beyond ``max_task_allowed``
    ├── LockError
    │   ├── LockTimeoutError          not granted within the time allowed       (retryable)
    │   ├── LockLostError             the lease ended before the work did       (retryable)
    │   └── DeadlockError             this request closed a cycle and is the victim (retryable)
    ├── StoreError                    Redis refused an operation                (retryable)
    │   ├── StoreRefusedError         wrong password, unknown command
    │   └── StoreUnavailableError     Redis could not be reached, or refuses for now (retryable)
    ├── DispatchError                 Hatchet could not be reached or refused   (retryable)
    │   └── MessageTooLargeError      the input of a run is larger than Hatchet takes
    ├── TimeoutExtensionError         the engine did not extend a task's timeout
    └── EngineError                   the local engine, or a worker that a test starts beside it, failed
        ├── EngineStartError          its process ended, or was not ready in time
        └── EngineNotRunningError     it was used outside its ``with`` block

The local engine keeps the errors it answers requests with in ``mageflow.engine.errors``, beside the gRPC and HTTP
status of each. They are kinds of EngineError and stay in the engine's process.

Each error builds its message from typed attributes, so no caller parses text. ``retryable`` is True if the same call
may succeed later without a change to the program. The cause is kept with ``raise ... from``. This module imports
nothing of mageflow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class MageflowError(Exception):
    """Base class of every error that mageflow raises.

    Attributes:
        retryable: True if the same call may succeed later without a change to the program.
    """

    retryable: ClassVar[bool] = False


class ConfigurationError(MageflowError, ValueError):
    """The program or its settings must change. Also a ``ValueError``; a retry cannot help."""


class DecorationError(ConfigurationError):
    """A decorator cannot work on this function, or with these arguments. Raised at declaration, never in a run.

    Attributes:
        decorator: The decorator's name, for example ``stagger_execution``.
        target: The qualified name of the decorated object.
        reason: What is wrong, and the line to write instead.
    """

    def __init__(self, decorator: str, target: str, reason: str) -> None:
        self.decorator = decorator
        self.target = target
        self.reason = reason
        super().__init__(f"@{decorator} on {target}: {reason}")


class ForkedProcessError(ConfigurationError):
    """Hatchet was called in a forked child whose parent had used gRPC before the fork. The call would wait for ever.

    Attributes:
        call: What was called, for example ``TriggerWorkflow``.
    """

    def __init__(self, call: str) -> None:
        self.call = call
        super().__init__(
            f"{call}: gRPC does not work in this forked child, because its parent had used it before the fork: start "
            'the child with multiprocessing.get_context("spawn"), fork before the first call to Hatchet, or make the '
            "call in the parent"
        )


class RedisNotConfiguredError(ConfigurationError):
    """An operation needs Redis and the client has none. Raised by the first such operation, not at construction.

    Attributes:
        operation: The operation, for example ``sign``.
    """

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(
            f"{operation} keeps its state in Redis, and this client has none: write "
            "Mageflow(Hatchet(), redis_client='redis://localhost:6379'), or set MAGEFLOW_REDIS_URL or REDIS_URL. "
            "Plain tasks need no Redis."
        )


class SdkFeatureError(ConfigurationError):
    """The installed hatchet-sdk lacks something that a newer one has, for example batch tasks.

    Attributes:
        feature: What it lacks.
        installed: The version that is installed.
    """

    def __init__(self, feature: str, installed: str) -> None:
        self.feature = feature
        self.installed = installed
        super().__init__(f"hatchet-sdk {installed} has no {feature}: pip install --upgrade hatchet-sdk")


class SignatureError(MageflowError):
    """Base class of the errors about stored signatures."""


class SignatureNotFoundError(SignatureError):
    """No signature is stored under this key: it expired, was removed, or never was.

    Attributes:
        key: The key that was looked up.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(
            f"no signature is stored under {key!r}: it expired, was removed, or belongs to another "
            "Redis database, key prefix or Hatchet namespace"
        )


class SignatureInvalidError(SignatureError):
    """A stored document does not validate. It is kept, and never executed.

    Attributes:
        key: The key that holds the document.
        reason: What does not validate.
    """

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"the document under {key!r} is not a valid signature: {reason}")


class SignatureVersionError(SignatureInvalidError):
    """A record is stored in the format of another release. It is left as it is, and nothing of it is executed.

    Attributes:
        key: Key of the record, or of the member whose definition it is.
        stored: Version of the stored format; 0 when the record carries none.
        supported: The version that this release reads and writes.
    """

    def __init__(self, key: str, stored: int, supported: int) -> None:
        self.stored = stored
        self.supported = supported
        super().__init__(
            key,
            f"it is stored in format {stored}, and this release reads format {supported}: run one release everywhere",
        )


class DuplicateRunError(SignatureError):
    """A run carries the metadata of another run, which owns the step. Its task function has not run.

    A program has sent it with a copy of ``additional_metadata``, or Hatchet has made two runs of one call. mageflow
    cannot distinguish the two within two minutes of the first. A later copy is a plain run.

    Attributes:
        key: Key of the signature.
        owner_run_id: Hatchet's id of the run that owns the step.
        run_id: Hatchet's id of this run.
    """

    def __init__(self, key: str, owner_run_id: str, run_id: str) -> None:
        self.key = key
        self.owner_run_id = owner_run_id
        self.run_id = run_id
        super().__init__(
            f"the task function has not run: the run {run_id!r} has the metadata of the run {owner_run_id!r}, "
            f"which owns {key!r}. Leave out the keys that begin with mageflow_ when you pass additional_metadata on"
        )


class IllegalTransitionError(SignatureError):
    """The status of a signature does not allow this operation: for example, `resume` of one that has ended.

    Attributes:
        key: The signature's key.
        current: Its status.
        operation: The operation: ``suspend``, ``resume``, ``interrupt``, ``start`` or ``rebind``.
    """

    def __init__(self, key: str, current: str, operation: str) -> None:
        self.key = key
        self.current = current
        self.operation = operation
        super().__init__(f"cannot {operation} {key!r}: it is {current}")


class SignatureCopiedError(IllegalTransitionError):
    """A signature has become a member or a callback more than once, so the key does not say which is meant.

    Nothing was changed. Give the key of the member: one of `copies`.

    Attributes:
        copies: Keys of the members that have not ended, the oldest first.
        has_more: Whether older ones are not named: a signature keeps the last 32.
    """

    def __init__(self, key: str, operation: str, copies: Sequence[str], *, has_more: bool = False) -> None:
        self.copies = tuple(copies)
        self.has_more = has_more
        named = ", ".join(repr(copy) for copy in self.copies)
        more = " and older ones" if has_more else ""
        super().__init__(key, f"copied, so {operation} a copy by its key: {named}{more}", operation)


class FlowError(MageflowError):
    """Base class of the errors about chains, swarms and callbacks."""


class FlowDefinitionError(FlowError, ValueError):
    """A signature, chain or swarm cannot work as it is defined. Also a ``ValueError``; nothing was stored.

    Attributes:
        reason: What is wrong and what to write instead.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class FlowFailedError(FlowError):
    """The awaited chain or swarm did not succeed. Its record stays readable for the done TTL.

    Attributes:
        key: The flow's key.
        status: How it ended: ``failed``, ``cancelled`` or ``interrupted``.
        error_type: The class name of the error that ended it, or an empty string.
        error_message: That error's text.
        task: The task that raised the error, or an empty string.
    """

    def __init__(self, key: str, status: str, error_type: str = "", error_message: str = "", task: str = "") -> None:
        self.key = key
        self.status = status
        self.error_type = error_type
        self.error_message = error_message
        self.task = task
        cause = f": {error_type}: {error_message}" if error_type else ""
        where = f" (in {task})" if task else ""
        super().__init__(f"the flow {key!r} ended as {status}{where}{cause}")


class SwarmClosedError(FlowError):
    """A task was added to a swarm that is closed or has ended. Nothing was added.

    Attributes:
        key: The swarm's key.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the swarm {key!r} is closed: add every task before close()")


class SwarmFullError(FlowError):
    """A swarm would hold more tasks than its limit. Nothing was added.

    Attributes:
        key: The swarm's key.
        limit: Its ``max_task_allowed``.
    """

    def __init__(self, key: str, limit: int) -> None:
        self.key = key
        self.limit = limit
        super().__init__(f"the swarm {key!r} may hold {limit} tasks: use a larger SwarmConfig.max_task_allowed")


class LockError(MageflowError):
    """Base class of the errors about resource locks."""


class LockTimeoutError(LockError):
    """A lock was not granted within the time allowed. The request was withdrawn. Retryable.

    Attributes:
        resource: The declared name of the resource.
        key: The key within the resource, or an empty string.
        waited_seconds: How long the request waited, in seconds.
    """

    retryable = True

    def __init__(self, resource: str, key: str, waited_seconds: float) -> None:
        self.resource = resource
        self.key = key
        self.waited_seconds = waited_seconds
        super().__init__(f"{_resource(resource, key)} was not granted within {waited_seconds:.3f} s")


class LockLostError(LockError):
    """A lease ended before its block: from then on the work inside was not exclusive. Retryable.

    Attributes:
        resource: The declared name of the resource.
        key: The key within the resource, or an empty string.
        token: The fencing token of the lost lease.
    """

    retryable = True

    def __init__(self, resource: str, key: str, token: int) -> None:
        self.resource = resource
        self.key = key
        self.token = token
        super().__init__(f"the lease on {_resource(resource, key)} (token {token}) was lost")


@dataclass(frozen=True, slots=True)
class CycleEdge:
    """One edge of a cycle in the wait-for graph: ``task`` (in ``run_id``) waits for ``resource``/``key``.

    The run of the next edge holds that resource; the last edge waits for the run of the first.
    """

    task: str
    run_id: str
    resource: str
    key: str


class DeadlockError(LockError):
    """This run is the victim of a deadlock. Its locks are released as the error leaves their blocks. Retryable.

    Attributes:
        cycle: The whole cycle of the wait-for graph, in order.
        victim_run_id: The run that was chosen, in which this error is raised.
        policy: The rule for the choice: ``requester``, ``youngest`` or ``lowest_priority``.
    """

    retryable = True

    def __init__(self, cycle: Sequence[CycleEdge], victim_run_id: str, policy: str) -> None:
        self.cycle = tuple(cycle)
        self.victim_run_id = victim_run_id
        self.policy = policy
        path = " -> ".join(f"{edge.task}[{edge.run_id}] waits for {edge.resource}" for edge in self.cycle)
        super().__init__(f"deadlock of {len(self.cycle)} runs, this one is the victim ({policy}): {path}")


class StoreError(MageflowError):
    """Redis refused an operation or did not answer it as expected. Retryable.

    Attributes:
        operation: The operation that failed: the name of a script or a command.
        reason: The message of the server or of redis-py.
    """

    retryable = True

    def __init__(self, operation: str, reason: str) -> None:
        self.operation = operation
        self.reason = reason
        super().__init__(self._message())

    def _message(self) -> str:
        return f"{self.operation} failed in Redis: {self.reason}"


class StoreRefusedError(StoreError):
    """Redis refuses, and a repetition is refused too: wrong password, unknown command, a node of another slot."""

    retryable = False

    def _message(self) -> str:
        return (
            f"{self.operation} was refused by Redis ({self.reason}): correct the password, the user or the address in "
            "redis_client or MAGEFLOW_REDIS_URL, and use Redis >= 7.0 or Valkey >= 7.2"
        )


class StoreUnavailableError(StoreError):
    """Redis could not be reached, or refuses for now. It is unknown whether the operation was done; repeat it.

    Retryable. Admission and settlement of runs repeat it by themselves.

    Attributes:
        outage: Why: ``unreachable``, ``connections`` (no free one), ``full`` (memory), ``forbidden`` (ACL),
            ``read_only``, ``no_replicas``, ``disk``, ``loading``, ``busy``, ``cluster_down``, ``master_down`` or
            ``try_again``.
        advice: What to do, one clause.
    """

    def __init__(self, operation: str, reason: str, outage: str = "unreachable") -> None:
        self.outage = outage
        self.advice = _OUTAGE_ADVICE.get(outage, _OUTAGE_ADVICE["unreachable"])
        super().__init__(operation, reason)

    def _message(self) -> str:
        what = "Redis could not be reached" if self.outage == "unreachable" else "Redis refuses for now"
        return f"{self.operation} needs Redis, and {what} ({self.reason}): {self.advice}"


_OUTAGE_ADVICE = {
    "unreachable": "check that the server runs and that redis_client or MAGEFLOW_REDIS_URL names its address",
    "connections": "give the client a larger max_connections, or the server a larger maxclients",
    "full": "its memory is full: raise maxmemory, or let other programs delete keys",
    "forbidden": "its ACL forbids a command or a key: give the user the rules in docs/storage.md",
    "read_only": "it is a replica: let redis_client name the primary, or wait for the end of a fail-over",
    "no_replicas": "too few replicas are connected: see min-replicas-to-write",
    "disk": "it cannot write to its disk: free space, or see stop-writes-on-bgsave-error",
    "loading": "it loads its data: wait",
    "busy": "a script of another program runs for too long: end it with SCRIPT KILL",
    "cluster_down": "the cluster has no node for a slot: repair it",
    "master_down": "the primary of the replica is away: wait for the end of a fail-over",
    "try_again": "the cluster moves a slot: wait",
}


class DispatchError(MageflowError):
    """Hatchet could not be reached, or refused a request. Retryable.

    Attributes:
        task: The task to run, or the id of the run that the request is about.
        reason: The message of the engine or of the SDK.
        refused: True if Hatchet answered and refused. It may accept later, for example once the task is registered.
    """

    retryable = True

    def __init__(self, task: str, reason: str, *, refused: bool = False) -> None:
        self.task = task
        self.reason = reason
        self.refused = refused
        super().__init__(f"the request to Hatchet about {task!r} failed: {reason}")


class MessageTooLargeError(DispatchError):
    """The message of a run is larger than Hatchet takes (4 MiB by default). A retry is refused too.

    Attributes:
        task: The task to run.
        reason: The message of the engine.
        size_bytes: Size of the input of the run, or of the largest of several.
    """

    retryable = False

    def __init__(self, task: str, reason: str, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        super().__init__(
            task, f"its input of {size_bytes} bytes is too large, keep large data elsewhere: {reason}", refused=True
        )


class TimeoutExtensionError(MageflowError):
    """The engine did not extend a task's timeout. The attempt continues with the timeout it has.

    Attributes:
        reason: The message of the engine or of the SDK.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the engine did not extend the timeout: {reason}")


class EngineError(MageflowError):
    """The local engine failed, or a worker that a test starts beside it."""


_ENGINE_REFUSAL = "mageflow engine: "


class EngineStartError(EngineError, RuntimeError):
    """The process of the local engine ended, or was not ready in time.

    Attributes:
        exit_code: Exit code of the process; None when it was still starting.
        output: What the process wrote to standard error.
    """

    def __init__(self, exit_code: int | None, output: str) -> None:
        self.exit_code = exit_code
        self.output = output
        reason = "was not ready in time" if exit_code is None else f"ended with exit code {exit_code}"
        # A refusal of the engine itself is one line; gRPC writes its own log around it.
        refusal = next((line for line in output.splitlines() if line.startswith(_ENGINE_REFUSAL)), None)
        message = f"the local engine {reason}: {output.strip() or 'no output'}"
        super().__init__(message if refusal is None else refusal.removeprefix(_ENGINE_REFUSAL))


class EngineNotRunningError(EngineError, RuntimeError):
    """The local engine was used outside its ``with`` block."""

    def __init__(self) -> None:
        super().__init__("the engine is not running: use it inside its with block")


def _resource(resource: str, key: str) -> str:
    return f"resource {resource!r}" + (f" (key {key!r})" if key else "")
