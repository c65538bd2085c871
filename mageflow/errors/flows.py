"""Errors of signatures and flows."""

from collections.abc import Sequence

from mageflow.errors.configuration import MageflowError


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
