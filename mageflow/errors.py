"""Every error mageflow raises, in one tree.

::

    MageflowError
    ├── ConfigurationError            the program must be changed; raised as early as possible
    │   ├── DecorationError           a decorator was used where or how it cannot work
    │   └── RedisNotConfiguredError   an operation needs Redis and none was given
    ├── SignatureError
    │   ├── SignatureNotFoundError    expired, removed or never stored
    │   ├── SignatureInvalidError     the stored document does not validate; it is never executed
    │   └── IllegalTransitionError    the lifecycle does not allow this step
    ├── FlowError
    │   ├── FlowDefinitionError       a chain or swarm that could not work was asked for
    │   ├── FlowFailedError           whoever waited for a flow learns that it did not succeed
    │   ├── SwarmClosedError          a task was added after the swarm was closed
    │   └── SwarmFullError            a task was added beyond ``max_task_allowed``
    ├── LockError
    │   ├── LockTimeoutError          not granted within the time allowed       (retryable)
    │   ├── LockLostError             the lease ended before the work did       (retryable)
    │   └── DeadlockError             this request closed a cycle and is the victim (retryable)
    ├── StoreError                    Redis did not do what was asked           (retryable)
    │   └── StoreUnavailableError     Redis could not be reached                (retryable)
    ├── DispatchError                 Hatchet could not be reached or refused   (retryable)
    ├── TimeoutExtensionError         the engine did not extend a task's timeout
    └── EngineError                   the local engine, or a worker that a test starts beside it, failed
        ├── EngineStartError          its process ended, or was not ready in time
        └── EngineNotRunningError     it was used outside its ``with`` block

The local engine keeps the errors it answers requests with in ``mageflow.engine.errors``, beside the gRPC and HTTP
status of each. They are kinds of EngineError and stay in the engine's process.

Each error builds its own message from typed attributes; callers never parse text. ``retryable`` says whether
the same call may succeed later without a change to the program. The cause is kept with ``raise ... from``.
This module imports nothing of mageflow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


def text_of(error: BaseException, limit: int = 8192) -> str:
    """What an exception says, whatever it says: never raises, valid UTF-8, at most about ``limit`` characters.

    Exceptions of users carry whole responses, bytes that are no text, and a ``__str__`` that fails.
    """
    try:
        text = str(error)
    except Exception as trouble:  # noqa: BLE001 - the error that is told of must not be lost over another
        return f"<its text cannot be had: {type(trouble).__name__}>"
    return clipped(text, limit)


def clipped(text: str, limit: int) -> str:
    """A text that can be sent and stored: no lone surrogates, and the middle of a very long one left out."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}\n... {len(text) - limit} characters left out ...\n{text[-(limit // 2) :]}"
    return text.encode("utf-8", "backslashreplace").decode()


class MageflowError(Exception):
    """Any error of mageflow."""

    retryable: ClassVar[bool] = False


class ConfigurationError(MageflowError, ValueError):
    """The program or its settings must be changed; trying again cannot help."""


class DecorationError(ConfigurationError):
    """A decorator was used where, or with what, it cannot work.

    Attributes:
        decorator: The decorator's name, for example ``stagger_execution``.
        target: The qualified name of what was decorated.
        reason: What is wrong and how to write it instead.
    """

    def __init__(self, decorator: str, target: str, reason: str) -> None:
        self.decorator = decorator
        self.target = target
        self.reason = reason
        super().__init__(f"@{decorator} on {target}: {reason}")


class RedisNotConfiguredError(ConfigurationError):
    """An operation needs Redis and the client was made without it.

    Attributes:
        operation: What was attempted, for example ``sign``.
    """

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(
            f"{operation} keeps its state in Redis, and this client has none: pass "
            "Mageflow(..., redis_client='redis://localhost:6379'), or set MAGEFLOW_REDIS_URL or REDIS_URL. "
            "Plain tasks need no Redis."
        )


class SignatureError(MageflowError):
    """Something is wrong with a stored signature."""


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
    """A stored document does not validate. It is left where it is and never executed.

    Attributes:
        key: The key that holds the document.
        reason: What does not validate.
    """

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"the document under {key!r} is not a valid signature: {reason}")


class IllegalTransitionError(SignatureError):
    """The lifecycle does not allow this step.

    Attributes:
        key: The signature's key.
        current: The status it has.
        operation: The verb that was attempted.
    """

    def __init__(self, key: str, current: str, operation: str) -> None:
        self.key = key
        self.current = current
        self.operation = operation
        super().__init__(f"cannot {operation} {key!r}: it is {current}")


class FlowError(MageflowError):
    """Something is wrong with a chain, a swarm or a callback."""


class FlowDefinitionError(FlowError, ValueError):
    """A chain or swarm was asked for that could not work.

    Attributes:
        reason: What is wrong and what to write instead.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class FlowFailedError(FlowError):
    """A chain or swarm that was waited for did not succeed.

    Attributes:
        key: The flow's key.
        status: What became of it: ``failed``, ``cancelled`` or ``interrupted``.
        error_type: The class name of the error that ended it, or an empty string.
        error_message: That error's text.
        task: The task it happened in, or an empty string.
    """

    def __init__(self, key: str, status: str, error_type: str = "", error_message: str = "", task: str = "") -> None:
        self.key = key
        self.status = status
        self.error_type = error_type
        self.error_message = error_message
        self.task = task
        cause = f": {error_type}: {error_message}" if error_type else ""
        where = f" (in {task})" if task else ""
        super().__init__(f"the flow {key!r} {status}{where}{cause}")


class SwarmClosedError(FlowError):
    """A task was added to a swarm that is closed.

    Attributes:
        key: The swarm's key.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the swarm {key!r} is closed: add every task before close()")


class SwarmFullError(FlowError):
    """A task was added to a swarm that holds as many as it may.

    Attributes:
        key: The swarm's key.
        limit: Its ``max_task_allowed``.
    """

    def __init__(self, key: str, limit: int) -> None:
        self.key = key
        self.limit = limit
        super().__init__(f"the swarm {key!r} holds its {limit} tasks: raise SwarmConfig.max_task_allowed")


class LockError(MageflowError):
    """Something is wrong with a resource lock."""


class LockTimeoutError(LockError):
    """A lock was not granted within the time allowed.

    Attributes:
        resource: The declared name of the resource.
        key: The key within the resource, or an empty string.
        waited_seconds: How long the request waited.
    """

    retryable = True

    def __init__(self, resource: str, key: str, waited_seconds: float) -> None:
        self.resource = resource
        self.key = key
        self.waited_seconds = waited_seconds
        super().__init__(f"{_resource(resource, key)} was not granted within {waited_seconds:.3f} s")


class LockLostError(LockError):
    """A lease ended before the work under it did: the work was no longer exclusive.

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
    """One edge of a wait-for cycle: ``task`` (in ``run_id``) waits for ``resource``/``key``.

    The next edge of the cycle is the run that holds it; the last edge waits for the first run.
    """

    task: str
    run_id: str
    resource: str
    key: str


class DeadlockError(LockError):
    """This run was chosen as the victim of a deadlock; its leases are given back as the error leaves their blocks.

    Attributes:
        cycle: The whole wait-for cycle, in order.
        victim_run_id: The run that was chosen: the one this error is raised in.
        policy: The rule it was chosen by: ``requester``, ``youngest`` or ``lowest_priority``.
    """

    retryable = True

    def __init__(self, cycle: Sequence[CycleEdge], victim_run_id: str, policy: str) -> None:
        self.cycle = tuple(cycle)
        self.victim_run_id = victim_run_id
        self.policy = policy
        path = " -> ".join(f"{edge.task}[{edge.run_id}] waits for {edge.resource}" for edge in self.cycle)
        super().__init__(f"deadlock of {len(self.cycle)} ({policy} is the victim): {path}")


class StoreError(MageflowError):
    """Redis did not do what was asked.

    Attributes:
        operation: The operation that failed.
        reason: The server's or the driver's words.
    """

    retryable = True

    def __init__(self, operation: str, reason: str) -> None:
        self.operation = operation
        self.reason = reason
        super().__init__(self._message())

    def _message(self) -> str:
        return f"{self.operation} failed in Redis: {self.reason}"


class StoreUnavailableError(StoreError):
    """Redis could not be reached; the operation may be tried again."""

    def _message(self) -> str:
        return (
            f"{self.operation} needs Redis, which could not be reached ({self.reason}); check that the server "
            "is up and that redis_client / MAGEFLOW_REDIS_URL points to it, then try again"
        )


class DispatchError(MageflowError):
    """Hatchet could not be reached, or refused a run.

    Attributes:
        task: The task that was to be run.
        reason: The engine's or the driver's words.
        refused: Whether Hatchet was reached and said no; it may still say yes later, to a task that is registered
            only then for example.
    """

    retryable = True

    def __init__(self, task: str, reason: str, *, refused: bool = False) -> None:
        self.task = task
        self.reason = reason
        self.refused = refused
        super().__init__(f"a run of {task!r} could not be handed to Hatchet: {reason}")


class TimeoutExtensionError(MageflowError):
    """The engine did not extend a task's timeout.

    Attributes:
        reason: The engine's or the driver's words.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the engine did not extend the timeout: {reason}")


class EngineError(MageflowError):
    """The local engine failed, or a worker that a test starts beside it."""


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
        super().__init__(f"the local engine {reason}: {output.strip() or 'no output'}")


class EngineNotRunningError(EngineError, RuntimeError):
    """The local engine was used outside its ``with`` block."""

    def __init__(self) -> None:
        super().__init__("the engine is not running: use it inside its with block")


def _resource(resource: str, key: str) -> str:
    return f"resource {resource!r}" + (f" (key {key!r})" if key else "")
