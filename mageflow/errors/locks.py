"""Errors of locks."""

from collections.abc import Sequence

from mageflow._frozen import frozen
from mageflow.errors.configuration import MageflowError


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


@frozen
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


def _resource(resource: str, key: str) -> str:
    return f"resource {resource!r}" + (f" (key {key!r})" if key else "")
