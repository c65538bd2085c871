"""Errors of what mageflow talks to: Redis, Hatchet, the local engine."""

from mageflow.errors.configuration import MageflowError


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
        unanswered: True if Hatchet is away, or did not answer in time. It may have done what was requested.
    """

    retryable = True

    def __init__(self, task: str, reason: str, *, refused: bool = False, unanswered: bool = False) -> None:
        self.task = task
        self.reason = reason
        self.refused = refused
        self.unanswered = unanswered
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
