"""A named resource: what programs declare and acquire.

This file owns the public words about one resource.
"""

from datetime import timedelta

from mageflow.error_text import shown
from mageflow.errors import ConfigurationError
from mageflow.interceptors import ResourceKey
from mageflow.locks.acquirer import Acquirer
from mageflow.locks.block import LockBlock
from mageflow.locks.request import LockRequest, OnLost, check_resource
from mageflow.store import VictimPolicy

__all__ = ["Resource"]


class Resource:
    """A thing that only one run may use at a time; `Mageflow.resource` makes it.

    Attributes:
        name: The declared name: the ``lock`` label of metrics.
    """

    def __init__(self, name: str, acquirer: Acquirer) -> None:
        self.name = check_resource(ResourceKey(name)).name
        self._acquirer = acquirer

    def key(self, key: str | int = "") -> ResourceKey:
        """One instance of the resource, for `LockService.acquire`; without a key the resource as a whole.

        The whole and its instances are different locks: holding one does not exclude the others.

        Args:
            key: Any text without NUL characters, or a number.

        Raises:
            ConfigurationError: The key contains a NUL character or a lone surrogate, or has no text, such as a
                number of over 4,300 digits.
        """
        try:
            text = str(key)
        except Exception as error:
            raise ConfigurationError(f"a resource key is text or a number, not {shown(key)}: {error}") from error
        return check_resource(ResourceKey(self.name, text))

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

        In synchronous tasks ``with`` does the same and blocks only its own thread. Waiters are served first come, first
        served. Within its block, the same attempt acquires the same lock again without a round trip. Nest blocks: leave
        the inner block before the outer one. A wait counts towards a deadlock only for the leases whose blocks enclose
        it.

        Args:
            key: Which instance; empty for the resource as a whole. Redis stores it as it is; spans, logs and reports
                show a hash, unless `Settings.lock_resource_detail` is ``raw``.
            timeout: Maximum wait, 0 or longer. None waits without limit, zero tries once.
            extend_timeout: Whether the task's execution timeout grows while it waits, ten seconds at a time and by at
                most ``timeout``. It begins after one second of waiting.
            policy: The victim if this request closes a deadlock: the ``requester``, the ``youngest`` run of the cycle
                (by the time it was enqueued), or the run with the ``lowest_priority``. The victim's request fails; its
                other locks are released when the error leaves their blocks.
            on_lost: What happens if the lease is lost, because the process was paused or Redis was unreachable for
                longer than the lease. ``cancel`` cancels the block, and leaving it raises `LockLostError`; a block in a
                thread cannot be cancelled, only leaving it raises. ``flag`` only sets ``lease.is_lost``.

        Returns:
            A context manager, asynchronous and synchronous, for one use. Entering it gives a `Lease`.

        Raises:
            ConfigurationError: The timeout is negative or not a timedelta, or the key cannot be stored.

        Entering the block raises:
            LockTimeoutError: It was not granted in time. Retryable.
            DeadlockError: This run is the victim of a deadlock. Retryable.
            RedisNotConfiguredError: The client has no Redis.
            StoreUnavailableError: Redis was away or refused as long as the request could wait: for its timeout, in a
                task until a second before the attempt's timeout, else for 15 s. Retryable.
            StoreError: Redis failed in another way.

        Atomicity: one script grants or queues, and searches for a cycle. One round trip to acquire and one to release
        without contention.

        Keys and TTL: ``<prefix>:{<namespace>/locks}:locks:v1:*`` live a day after the last write or renewal. The lock
        itself lives as long as the lease, `Settings.lock_lease_seconds`, which the process renews.

        Telemetry: span ``acquire {lock}``; ``mageflow_lock_*`` and ``mageflow_deadlock*``; log events
        ``mageflow.lock.*`` and ``mageflow.deadlock.*``.
        """
        request = LockRequest.of(
            [self.key(key)], timeout=timeout, extend_timeout=extend_timeout, policy=policy, on_lost=on_lost
        )
        return LockBlock(self._acquirer, request)

    def __repr__(self) -> str:
        return f"<Resource {self.name}>"
