"""The lease of the holder of a lock: its fencing tokens, and whether it is still valid.

This file owns the lease and the grant behind it. It does not talk to Redis.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from mageflow.errors import LockLostError
from mageflow.interceptors import LockHold, ResourceKey
from mageflow.locks.request import LockRequest
from mageflow.locks.session_lease import SessionLease

__all__ = ["Grant", "Lease"]


@dataclass(slots=True, eq=False)
class Grant:
    """The locks one request was granted, while they are held. The session renews it; leases share it."""

    request: LockRequest
    holds: tuple[LockHold, ...]
    """One per lock, in the order they were taken."""
    session_lease: SessionLease
    loop: asyncio.AbstractEventLoop
    """The loop of the session."""
    release: Callable[[], Coroutine[Any, Any, None]]
    """Releases the locks; runs on ``loop``."""
    hold_scopes: ExitStack = field(default_factory=ExitStack)
    """The interceptors around the holds."""
    lost_tokens: set[int] = field(default_factory=set[int])
    is_ended: bool = False
    """Whether it was released, or is being released."""
    on_lost: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    """Called on ``loop`` when a lock of it is lost."""

    @property
    def resources(self) -> tuple[ResourceKey, ...]:
        """The resources it holds, in the order they were taken."""
        return tuple(each.resource for each in self.holds)

    @property
    def has_expired(self) -> bool:
        """Whether the session may have ended in Redis, by the clock of this process."""
        return self.session_lease.has_expired(self.request.session_id)

    def is_lost(self, token: int) -> bool:
        """Whether another run may have got this lock while it was held here."""
        return token in self.lost_tokens or (not self.is_ended and self.has_expired)


class Lease:
    """One lock, or several taken together, while a block holds them. Leave the block to release them.

    A lease is valid for `Settings.lock_lease_seconds` from its last renewal; the process renews it three times in that
    time, in the background, for as long as the block runs.

    Attributes:
        waited_seconds: How long the block waited for its locks.
        grant: What this block itself acquired; None if enclosing blocks of the same run hold everything already.
    """

    def __init__(
        self,
        client: object,
        attempt_id: str,
        parts: Mapping[ResourceKey, tuple[Grant, int]],
        *,
        waited_seconds: float,
        grant: Grant | None,
    ) -> None:
        self._client = client
        self.attempt_id = attempt_id
        self.grant = grant
        self._parts = dict(parts)
        self.waited_seconds = waited_seconds
        self._process_id = os.getpid()

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the one that holds the lease, which alone renews and releases it."""
        return self._process_id != os.getpid()

    @property
    def resources(self) -> tuple[ResourceKey, ...]:
        """The locked resources, in the order they were taken: by name, then key."""
        return tuple(self._parts)

    @property
    def token(self) -> int:
        """The fencing token: larger than that of every earlier holder of any of these resources.

        Store it beside the data you write, and refuse a write whose token is smaller than the stored one. Then a holder
        that was paused for longer than its lease cannot overwrite the data of its successor. A token is the server's
        clock in microseconds, or one more than the last token if that is larger, so tokens keep growing even after
        Redis has lost its data. For several resources this is the largest of their tokens.
        """
        return max(token for _, token in self._parts.values())

    def token_of(self, resource: ResourceKey) -> int:
        """The fencing token of one of several resources.

        Raises:
            KeyError: This lease does not hold the resource.
        """
        return self._parts[resource][1]

    @property
    def is_lost(self) -> bool:
        """Whether another run may hold one of the locks now.

        Needs no round trip. It also becomes true by the clock of this process, at the moment Redis may have ended the
        lease: for example right after the process was paused.
        """
        return any(grant.is_lost(token) for grant, token in self._parts.values())

    def check(self) -> None:
        """Return if the lease is valid. Call it before each step that must be exclusive; no round trip.

        Raises:
            LockLostError: The lease is lost. Retryable.
        """
        for resource, (grant, token) in self._parts.items():
            if grant.is_lost(token):
                raise LockLostError(resource.name, resource.key, token)

    def covers(self, client: object, attempt_id: str, resource: ResourceKey) -> tuple[Grant, int] | None:
        """The grant and token to share if the same attempt requests a resource again inside this block."""
        if self._client is not client or self.attempt_id != attempt_id:
            return None
        part = self._parts.get(resource)
        return None if part is None or part[0].is_ended or part[0].is_lost(part[1]) else part

    def tokens_of(self, client: object) -> tuple[int, ...]:
        """Every token, if the lease belongs to this client."""
        return tuple(token for _, token in self._parts.values()) if self._client is client else ()

    def loop_of(self, client: object, attempt_id: str) -> asyncio.AbstractEventLoop | None:
        """The loop of the attempt's session, if the lease belongs to the attempt and still holds something."""
        if self._client is not client or self.attempt_id != attempt_id:
            return None
        return next((grant.loop for grant, _ in self._parts.values() if not grant.is_ended), None)

    def __repr__(self) -> str:
        names = ", ".join(resource.name for resource in self._parts)
        return f"<Lease on {names}, token {self.token}{', lost' if self.is_lost else ''}>"
