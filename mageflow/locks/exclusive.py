"""A lock around the whole body of a task, asked for by a decorator.

This file owns the request and its key; the decorator's mark and the place around the body belong to
``mageflow.invocation``. It refuses to wrap functions.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mageflow.errors import DecorationError
from mageflow.locks.block import LockBlock, OnLost
from mageflow.locks.resource import Resource
from mageflow.locks.service import LockService
from mageflow.store import VictimPolicy

__all__ = ["ExclusiveMark", "exclusive_mark"]


@dataclass(frozen=True, slots=True)
class ExclusiveMark:
    """What ``@client.exclusive(...)`` records on a function."""

    locks: LockService
    resources: tuple[Resource, ...]
    key: Callable[[Any], str | int] | None
    timeout: timedelta | None
    extend_timeout: bool
    policy: VictimPolicy
    on_lost: OnLost

    def block(self, message: Any) -> LockBlock:
        """The block to enter around one attempt's body: after the stagger, before the pooled thread.

        Enter it with ``async with`` on the event loop for synchronous bodies too: then a waiting task holds no thread.
        What the body acquires inside its thread still counts as inside this block.

        Args:
            message: The task's input, given to the key function.
        """
        key = self.key(message) if self.key is not None else ""
        return self.locks.acquire(
            *(resource.key(key) for resource in self.resources),
            timeout=self.timeout,
            extend_timeout=self.extend_timeout,
            policy=self.policy,
            on_lost=self.on_lost,
        ).around_body()


def exclusive_mark(
    locks: LockService,
    *resources: Resource | str,
    key: Callable[[Any], str | int] | None = None,
    timeout: timedelta | None = None,
    extend_timeout: bool = True,
    policy: VictimPolicy = "requester",
    on_lost: OnLost = "cancel",
) -> ExclusiveMark:
    """Check what the decorator was given; see `Resource.acquire` for the arguments.

    Raises:
        DecorationError: No resource is named, the decorator stands without parentheses, or ``key`` is no function of
            one argument.
        ConfigurationError: A name cannot name a resource.
    """
    target = ", ".join(getattr(each, "name", None) or getattr(each, "__qualname__", str(each)) for each in resources)
    if not resources:
        raise DecorationError("exclusive", "a task", 'name the resource: write @client.exclusive("orders-db")')
    if any(not isinstance(each, Resource | str) for each in resources):  # pyright: ignore[reportUnnecessaryIsInstance]
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
    return ExclusiveMark(locks, declared, key, timeout, extend_timeout, policy, on_lost)
