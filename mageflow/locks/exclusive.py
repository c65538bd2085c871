"""A lock around the whole body of a task, requested by the decorator ``@client.exclusive``.

This file owns the request and its key. ``mageflow.invocation`` owns the decorator and enters the block.
"""

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from mageflow._frozen import frozen
from mageflow.errors import DecorationError
from mageflow.locks.block import LockBlock
from mageflow.locks.request import LockRequest, OnLost
from mageflow.locks.resource import Resource
from mageflow.locks.service import LockService
from mageflow.store import VictimPolicy

__all__ = ["ExclusiveMark", "exclusive_mark"]


@frozen
class ExclusiveMark:
    """The mark that ``@client.exclusive(...)`` records on a function."""

    locks: LockService
    resources: tuple[Resource, ...]
    key: Callable[[Any], str | int] | None
    timeout: timedelta | None
    extend_timeout: bool
    policy: VictimPolicy
    on_lost: OnLost

    def block(self, message: Any) -> LockBlock:
        """The block around one attempt's body: after the stagger, before the pooled thread.

        Enter it with ``async with`` on the event loop, for synchronous bodies too: then a waiting task occupies no
        thread. Locks the body acquires in its thread are nested inside this block.

        Args:
            message: The task's input; the key function gets it.
        """
        key = self.key(message) if self.key is not None else ""
        return self.locks.acquire(
            *(resource.key(key) for resource in self.resources),
            timeout=self.timeout,
            extend_timeout=self.extend_timeout,
            policy=self.policy,
            on_lost=self.on_lost,
        )


def exclusive_mark(
    locks: LockService,
    *resources: Resource | str,
    key: Callable[[Any], str | int] | None = None,
    timeout: timedelta | None = None,
    extend_timeout: bool = True,
    policy: VictimPolicy = "requester",
    on_lost: OnLost = "cancel",
) -> ExclusiveMark:
    """Check the arguments of ``@client.exclusive``.

    Args:
        locks: Takes the locks.
        resources: Resources or their names; at least one.
        key: Function of the task's message that gives the key; the same key is used for every resource. Without it the
            resources are locked as a whole.
        timeout: Maximum wait for all of them together; None waits without limit, zero tries once.
        extend_timeout: Whether the task's execution timeout grows while it waits.
        policy: The victim if the request closes a deadlock: ``requester``, ``youngest`` or ``lowest_priority``.
        on_lost: What happens if a lease is lost: ``cancel`` cancels the body and fails the attempt with
            `LockLostError` (a synchronous body cannot be cancelled; its attempt fails when it ends), ``flag`` does
            nothing.

    Raises:
        DecorationError: No resource is named, the decorator is used without parentheses, or ``key`` is not a function
            of one argument.
        ConfigurationError: A name cannot name a resource, the timeout is negative or not a timedelta, or ``policy`` or
            ``on_lost`` has another value.
    """
    target = ", ".join(getattr(each, "name", None) or getattr(each, "__qualname__", str(each)) for each in resources)
    if not resources:
        raise DecorationError("exclusive", "a task", 'name the resource: write @client.exclusive("orders-db")')
    if any(not isinstance(each, Resource | str) for each in resources):  # pyright: ignore[reportUnnecessaryIsInstance] as below
        raise DecorationError("exclusive", target, 'name the resource: write @client.exclusive("orders-db")')
    if key is not None:
        if not callable(key):  # pyright: ignore[reportUnnecessaryComparison] callers may not type-check
            raise DecorationError("exclusive", target, "key must be a function of the message: key=lambda msg: msg.id")
        try:
            inspect.signature(key).bind(None)
        except TypeError:
            raise DecorationError(
                "exclusive", target, "key must take one argument, the message: key=lambda msg: msg.id"
            ) from None
        except ValueError:
            pass  # a builtin that does not show its signature, such as str
    declared = tuple(locks.resource(each) if isinstance(each, str) else each for each in resources)
    # The request of each run is checked here, where the arguments are written.
    whole = [each.key() for each in declared]
    LockRequest.of(whole, timeout=timeout, extend_timeout=extend_timeout, policy=policy, on_lost=on_lost)
    return ExclusiveMark(locks, declared, key, timeout, extend_timeout, policy, on_lost)
