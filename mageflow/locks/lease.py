"""What the holder of a lock has in hand: the lease, its fencing tokens, and whether it still stands.

This file owns the lease and the record of which blocks the running code is inside of. It refuses to talk to Redis.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from mageflow.errors import LockLostError
from mageflow.interceptors import Attempt, LockHold, ResourceKey

__all__ = ["Grant", "HeldLock", "Lease", "entered_leases", "leave", "push"]


@dataclass(slots=True, eq=False)
class HeldLock:
    """One lock of one grant."""

    resource: ResourceKey
    token: int
    hold: LockHold


@dataclass(slots=True, eq=False)
class Grant:
    """What one request was given, as long as it is held. Shared by the session that renews it and its leases."""

    request: str
    run: str
    session: str
    attempt: Attempt | None
    locks: tuple[HeldLock, ...]
    deadline: Callable[[], float]
    """Monotonic time until which Redis is known to keep the session."""
    release: Callable[[], Coroutine[Any, Any, None]]
    """Gives it back; on the session's loop."""
    loop: asyncio.AbstractEventLoop
    """The session's."""
    monotonic: Callable[[], float] = time.monotonic
    is_ended: bool = False
    lost: set[int] = field(default_factory=set[int])
    """Tokens Redis is known to have given up."""
    on_lost: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    close: Callable[[], None] = lambda: None
    """Leaves the interceptors that stand around the hold."""

    @property
    def has_expired(self) -> bool:
        """Whether the session may have ended in Redis: true in the instant a paused process wakes up."""
        return self.monotonic() >= self.deadline()

    def is_lost(self, token: int) -> bool:
        """Whether this lock may have been given to somebody else while it was held."""
        return token in self.lost or (not self.is_ended and self.has_expired)


class Lease:
    """A lock, or several taken together, while they are held.

    Attributes:
        waited_seconds: How long the request waited for it.
        grant: What this block itself took, to be given back when it is left; None when outer blocks hold it all.
    """

    def __init__(
        self,
        service: object,
        run: str,
        parts: Mapping[ResourceKey, tuple[Grant, int]],
        *,
        waited_seconds: float,
        grant: Grant | None,
    ) -> None:
        self._service = service
        self._run = run
        self.grant = grant
        self._parts = dict(parts)
        self.waited_seconds = waited_seconds

    @property
    def resources(self) -> tuple[ResourceKey, ...]:
        """What is held, in the order it was taken."""
        return tuple(self._parts)

    @property
    def token(self) -> int:
        """The fencing token: larger than that of every earlier holder of any of these resources.

        Store it beside what you write and refuse a write that carries a smaller one than is stored: then a holder that
        was paused past its lease cannot overwrite its successor. Tokens are the server's clock in microseconds, or one
        more than the last where that is larger, so they keep growing even when Redis loses its data.
        """
        return max(token for _, token in self._parts.values())

    def token_of(self, resource: ResourceKey) -> int:
        """The fencing token of one of several resources.

        Raises:
            KeyError: It is not held by this lease.
        """
        return self._parts[resource][1]

    @property
    def is_lost(self) -> bool:
        """Whether somebody else may hold (one of) the locks now.

        Needs no round trip: it also becomes true by this process's own clock, in the moment Redis is no longer known to
        keep the lease, for example right after the process was paused.
        """
        return any(grant.is_lost(token) for grant, token in self._parts.values())

    def check(self) -> None:
        """Do nothing while the lease stands; call it before a step that must be exclusive.

        Raises:
            LockLostError: The lease is lost.
        """
        for resource, (grant, token) in self._parts.items():
            if grant.is_lost(token):
                raise LockLostError(resource.name, resource.key, token)

    def covers(self, service: object, run: str, resource: ResourceKey) -> tuple[Grant, int] | None:
        """The grant to share when the same run asks for the same resource again inside this block."""
        if self._service is not service or self._run != run:
            return None
        part = self._parts.get(resource)
        return None if part is None or part[0].is_ended or part[0].is_lost(part[1]) else part

    def tokens_of(self, service: object) -> tuple[int, ...]:
        """Every token, for a wait that happens inside this block."""
        return tuple(token for _, token in self._parts.values()) if self._service is service else ()

    def loop_of(self, service: object, run: str) -> asyncio.AbstractEventLoop | None:
        """Where the run's session is, if this lease is one of the run's and still held."""
        if self._service is not service or self._run != run:
            return None
        return next((grant.loop for grant, _ in self._parts.values() if not grant.is_ended), None)

    @property
    def run(self) -> str:
        """The run that holds it."""
        return self._run

    def __repr__(self) -> str:
        names = ", ".join(resource.name for resource in self._parts)
        return f"<Lease on {names}, token {self.token}{', lost' if self.is_lost else ''}>"


_entered: ContextVar[tuple[Lease, ...]] = ContextVar("mageflow_entered_leases", default=())


def entered_leases() -> tuple[Lease, ...]:
    """The leases whose blocks the running code is inside of, outermost first.

    Tasks started inside a block inherit it, as a block is expected to wait for what it starts.
    """
    return _entered.get()


def push(lease: Lease) -> None:
    """Enter a block."""
    _entered.set((*_entered.get(), lease))


def leave(lease: Lease) -> None:
    """Leave a block, in whichever context that happens."""
    _entered.set(tuple(each for each in _entered.get() if each is not lease))
