"""Facts about a client and its workers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from mageflow._frozen import frozen
from mageflow.interceptors.events import Event
from mageflow.interceptors.tasks import TaskInfo

__all__ = ["ClientCreated", "WorkerDraining", "WorkerInfo"]


@frozen
class ClientCreated(Event):
    """A client was made. The first event of every client; nothing is connected yet."""

    server_address: str
    """Host name or address of the Hatchet engine."""
    server_port: int | None
    """None where the configuration names no port."""
    namespace: str
    """Prefix of the names Hatchet knows tasks by; empty without one. `TaskInfo.name` does not have it."""
    hide_from_log_forwarder: Callable[[], AbstractContextManager[object]]
    """Log records written inside ``with hide_from_log_forwarder():`` are not forwarded to Hatchet."""


@frozen
class WorkerDraining(Event):
    """A worker was asked to stop. It takes no new runs and waits for its attempts."""

    worker: str
    """Its name."""


def _no_locks() -> Mapping[str, object]:
    return {"holders": [], "waiters": [], "cycles": []}


@dataclass(slots=True, eq=False)
class WorkerInfo:
    """One worker, from its start until its tasks have ended."""

    name: str
    slots: Mapping[str, int]
    """By pool: ``default`` and ``durable``."""
    tasks: Sequence[TaskInfo] = field(default=())
    """The tasks it runs."""
    lock_report: Callable[[], Mapping[str, object]] = _no_locks
    """Reads from Redis who holds and who waits for a lock, in one round trip: JSON-ready, with ``holders``,
    ``waiters`` and ``cycles``. Blocks for up to 5 s, so call it in a thread. May raise `StoreError` or
    `TimeoutError`. Without Redis the lists are empty."""
