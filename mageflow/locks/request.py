"""One request for locks, from `Resource.acquire` to its grant.

This file owns what may be requested, and what is known of a request. It sends nothing.
"""

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, get_args

from mageflow.did_you_mean import hint
from mageflow.error_text import shown
from mageflow.errors import ConfigurationError
from mageflow.interceptors import Attempt, LockAcquire, ResourceKey
from mageflow.locks.session_lease import SessionLease
from mageflow.metadata import KEY_ENQUEUED_AT
from mageflow.store import LockClaim, LockOwner, LockVerdict, VictimPolicy

__all__ = ["LockRequest", "OnLost", "attempt_id_of", "check_resource"]

OnLost = Literal["cancel", "flag"]
"""What happens to a block when its lease is lost: ``cancel`` cancels it, ``flag`` only sets ``lease.is_lost``."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-/]{0,127}")


@dataclass(slots=True, eq=False)
class LockRequest:
    """One request: the resources, the run that requests them, and the state of the request."""

    resources: tuple[ResourceKey, ...]
    """Sorted by name, then key; without repetition."""
    timeout_seconds: float | None
    """Maximum wait: None means no limit, 0 means try once."""
    extend_timeout: bool
    policy: VictimPolicy
    on_lost: OnLost

    # Set when the block is entered.
    is_in_thread: bool = False
    """Whether the block runs in a thread, which cannot be stopped."""
    attempt: Attempt | None = None
    attempt_id: str = ""
    """``<task run id>:<attempt number>``, or a random id outside of tasks. Locks are re-entrant per attempt id."""
    enclosing_tokens: tuple[int, ...] = ()
    """Tokens of the leases whose blocks enclose this one."""
    born_ms: int = 0
    """Epoch milliseconds at which the run was enqueued. The policy ``youngest`` compares it."""
    call: LockAcquire = field(init=False)
    """The facts for interceptors. ``call.resources`` are those that no enclosing block holds already."""

    # Set each time it is sent.
    request_id: str = ""
    session_id: str = ""
    """The session it was sent in. A grant is void once that session has ended."""
    is_queued: bool = False
    """Whether Redis is known to have it in a queue."""
    is_answered: bool = False
    """Whether this process has Redis's answer to it, and has published what that reports."""
    verdict: "asyncio.Future[LockVerdict] | None" = None
    """Where the verdict on a queued request arrives."""

    @classmethod
    def of(
        cls,
        resources: Iterable[ResourceKey],
        *,
        timeout: timedelta | None,
        extend_timeout: bool,
        policy: VictimPolicy,
        on_lost: OnLost,
    ) -> "LockRequest":
        """Make a request for resources that `check_resource` has accepted.

        Raises:
            ConfigurationError: There is no resource, the timeout is negative or not a timedelta, or the policy or
                ``on_lost`` has another value.
        """
        ordered = tuple(sorted(set(resources)))
        if not ordered:
            raise ConfigurationError("name at least one resource to acquire")
        if timeout is not None and not isinstance(timeout, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance] callers may not type-check
            raise ConfigurationError(f"timeout is a timedelta, such as timedelta(seconds=5), not {timeout!r}")
        if timeout is not None and timeout < timedelta(0):
            raise ConfigurationError("timeout must not be negative; zero tries once without waiting")
        for what, word, known in (("policy", policy, get_args(VictimPolicy)), ("on_lost", on_lost, get_args(OnLost))):
            if word not in known:
                raise ConfigurationError(f"there is no {what} {shown(word)}{hint(str(word), known)}")
        seconds = None if timeout is None else timeout.total_seconds()
        return cls(ordered, seconds, extend_timeout, policy, on_lost)

    def start(self, missing: tuple[ResourceKey, ...], enclosing_tokens: tuple[int, ...]) -> LockAcquire:
        """Start the clock of the request for those resources that no enclosing block holds."""
        self.enclosing_tokens = enclosing_tokens
        self.born_ms = _born_ms(self.attempt)
        task = self.attempt.task.name if self.attempt is not None else ""
        self.call = LockAcquire(missing, task, self.attempt, self.policy, self.timeout_seconds)
        return self.call

    @property
    def remaining_seconds(self) -> float | None:
        """How much longer it may wait; None means no limit."""
        if self.timeout_seconds is None:
            return None
        return max(0.0, self.timeout_seconds - self.call.elapsed_seconds)

    @property
    def owner(self) -> LockOwner:
        """The facts about the requesting run, as reports show them."""
        fields = self.call.traceparent.split("-")
        trace_id = fields[1] if len(fields) == 4 else ""  # noqa: PLR2004 - version, trace, span, flags
        attempt = self.attempt
        if attempt is None:
            return LockOwner(run_id=self.attempt_id, trace_id=trace_id)
        return LockOwner(
            task=attempt.task.name,
            run_id=attempt.workflow_run_id,
            task_run_id=attempt.task_run_id,
            attempt=attempt.attempt_number,
            worker=attempt.worker_id,
            trace_id=trace_id,
            will_retry=attempt.attempt_number < attempt.max_attempts,
        )

    def claim(self, session_lease: SessionLease) -> LockClaim:
        """The request as the store sends it."""
        return LockClaim(
            request_id=self.request_id,
            attempt_id=self.attempt_id,
            session_id=self.session_id,
            session_is_open=session_lease.is_open,
            resources=self.call.resources,
            owner=self.owner,
            lease_seconds=session_lease.lease_seconds,
            wake_id=session_lease.wake_id,
            policy=self.policy,
            born_ms=self.born_ms,
            priority=self.attempt.priority if self.attempt is not None else 1,
            traceparent=self.call.traceparent,
            enclosing_tokens=self.enclosing_tokens,
            can_wait=self.timeout_seconds != 0,
        )

    def note_queued(self, verdict: LockVerdict) -> None:
        """Update the live facts: which resource it waits for, and who holds it."""
        self.call.waiting_for = verdict.waiting_for
        self.call.holders = (verdict.holder,) if verdict.holder else ()


def attempt_id_of(attempt: Attempt) -> str:
    """The id under which an attempt holds locks."""
    return f"{attempt.task_run_id}:{attempt.attempt_number}"


def check_resource(resource: ResourceKey) -> ResourceKey:
    """Return the resource if it can be locked.

    Raises:
        ConfigurationError: Its name or its key cannot be stored in Redis.
    """
    if not isinstance(resource.name, str) or not _NAME.fullmatch(resource.name):  # pyright: ignore[reportUnnecessaryIsInstance] callers may not type-check
        raise ConfigurationError(
            f"{shown(resource.name)} cannot name a resource: use 1 to 128 letters, digits and _ . - /, "
            "and a key for instances"
        )
    if "\0" in resource.key:
        raise ConfigurationError("a resource key must not contain NUL characters")
    try:
        resource.key.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError("a resource key must be Unicode text, without lone surrogates") from error
    return resource


def _born_ms(attempt: Attempt | None) -> int:
    """When the run was enqueued. It is the same on every attempt, so that a victim grows older with each retry."""
    if attempt is None:
        return round(time.time() * 1000)
    try:
        return round(float(str(attempt.metadata.get(KEY_ENQUEUED_AT))) * 1000)
    except (ValueError, OverflowError):
        return round((time.time() - attempt.elapsed_seconds) * 1000)
