"""A named resource: what programs declare and acquire.

This file owns the names and the public words about locking. It delegates and decides nothing.
"""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from mageflow.errors import ConfigurationError
from mageflow.interceptors import ResourceKey
from mageflow.locks.block import LockBlock, OnLost
from mageflow.store import VictimPolicy

if TYPE_CHECKING:
    from mageflow.locks.service import LockService

__all__ = ["Resource", "checked"]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-/]{0,127}")


class Resource:
    """Something that only one run may use at a time; made by `LockService.resource`.

    Args:
        name: The declared name.
        locks: The service that keeps its locks.

    Raises:
        ConfigurationError: The name cannot name a resource.
    """

    def __init__(self, name: str, locks: "LockService") -> None:
        checked(ResourceKey(name))
        locks.declare(name)
        self.name = name
        self._locks = locks

    def key(self, key: str | int = "") -> ResourceKey:
        """One instance of it, for `LockService.acquire`; without a key the resource as a whole.

        The whole and its instances are different locks: holding one does not keep others from the other.

        Raises:
            ConfigurationError: The key contains a NUL character, or what is no Unicode text.
        """
        return checked(ResourceKey(self.name, str(key)))

    def acquire(
        self,
        key: str | int = "",
        *,
        timeout: timedelta | None = None,
        extend_timeout: bool = True,
        policy: VictimPolicy = "requester",
        on_lost: OnLost = "cancel",
    ) -> LockBlock:
        """Lock it for the length of a block: ``async with orders.acquire(key=message.id) as lease:``.

        In synchronous tasks ``with`` does the same and blocks only its own thread. One round trip to acquire and one
        to release when nobody else wants it. Inside a block, the same run acquires the same lock again without a
        round trip. Blocks and what is started inside them are expected to end inside out; a wait only counts towards
        a deadlock for the leases whose blocks it happens in.

        Args:
            key: Which instance; empty for the resource as a whole. Kept in Redis as it is, shown elsewhere as a hash.
            timeout: How long to wait at most: None waits for ever, zero tries once.
            extend_timeout: Whether the task's execution timeout grows while it waits (reason ``lock``), by at most
                ``timeout``.
            policy: Who gives way when this request closes a deadlock: the ``requester``, the ``youngest`` run of the
                cycle, or the one with the ``lowest_priority``. The victim's request fails; its other locks are given
                back as the error leaves their blocks, as its work is still being undone there.
            on_lost: What happens to the block when the lease is lost (the process was paused, Redis unreachable for
                longer than the lease): ``cancel`` cancels it and leaves with `LockLostError`; in a thread, which cannot
                be cancelled, the error is raised when the block is left. ``flag`` only sets ``lease.is_lost``.

        Returns:
            A context manager, asynchronous and synchronous, that gives a `Lease`; for one use.

        Raises:
            ConfigurationError: The timeout is negative or no timedelta, or the key cannot be kept.

        The block raises, on entry:
            LockTimeoutError: It was not granted in time. Retryable.
            DeadlockError: This run is the victim of a deadlock. Retryable.
            RedisNotConfiguredError: The client has no Redis.
            StoreError: Redis did not answer. Retryable.

        Telemetry: span ``acquire {lock}``; ``mageflow_lock_*`` and ``mageflow_deadlock*``; log events
        ``mageflow.lock.*`` and ``mageflow.deadlock.*``.
        """
        return self._locks.acquire(
            self.key(key), timeout=timeout, extend_timeout=extend_timeout, policy=policy, on_lost=on_lost
        )

    def __repr__(self) -> str:
        return f"<Resource {self.name}>"


def checked(resource: ResourceKey) -> ResourceKey:
    """The resource itself, if it can be locked.

    Raises:
        ConfigurationError: Its name or its key cannot be kept in Redis.
    """
    if not _NAME.fullmatch(resource.name):
        raise ConfigurationError(
            f"{resource.name!r} cannot name a resource: use 1 to 128 letters, digits and _ . - /, "
            "and a key for instances"
        )
    if "\0" in resource.key:
        raise ConfigurationError("a resource key must not contain NUL characters")
    try:
        resource.key.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError("a resource key must be Unicode text, without lone surrogates") from error
    return resource
