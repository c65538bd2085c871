"""One round trip to Redis, over whatever client the program has.

The client that is given is used itself: its pool, TLS, Sentinel, retry and socket settings stay as they are. A
synchronous client is driven in a worker thread. An asyncio client's connections belong to one event loop; used from
a second loop, its pool is cloned with the same pool class, connection class and settings. A URL becomes a client at
first use, one per running loop, closed when the loop ends. Nothing is opened when this object is made.

This module owns connections, the EVALSHA protocol and the translation of errors. It refuses to know what the
scripts decide.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
import redis.exceptions
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.connection import ConnectionPool as AsyncConnectionPool

from mageflow.errors import ConfigurationError, RedisNotConfiguredError, StoreError, StoreUnavailableError
from mageflow.interceptors import Interceptor, RedisCall
from mageflow.store.scripts import Script

__all__ = ["RedisClient", "RedisPort"]

RedisClient = (
    redis.asyncio.Redis | redis.Redis | redis.asyncio.cluster.RedisCluster | redis.cluster.RedisCluster | str | None
)
"""What a client may be given as: any redis-py client, a URL, or nothing."""

Argument = str | bytes | int | float

_MAX_CONNECTIONS = 64
"""Of a client made from a URL, per process and loop; more calls at once wait for a connection, up to 20 s."""

_SCHEMES = ("redis://", "rediss://", "unix://")
_UNKNOWN_SCRIPT = object()
_UNAVAILABLE = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ReadOnlyError,
    ConnectionError,
    TimeoutError,
    OSError,
)


class RedisPort:
    """Runs scripts and commands, each one round trip, each seen by the interceptor.

    Safe to use from several event loops and threads. Results come back as text (or lists of it) whether or not the
    client decodes responses.

    Args:
        client: A redis-py client, a URL, or None.
        interceptor: Told of every round trip (`Interceptor.redis`).

    Raises:
        ConfigurationError: The URL has a scheme Redis does not know, or the object is no redis-py client.
    """

    def __init__(self, client: RedisClient, interceptor: Interceptor | None = None) -> None:
        self._interceptor = interceptor or Interceptor()
        self._given = client
        self._per_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[None]] = WeakKeyDictionary()
        self._is_adopted = False
        if isinstance(client, str):
            if not client.startswith(_SCHEMES):
                scheme = client.partition("://")[0] if "://" in client else "none"
                raise ConfigurationError(f"a Redis URL starts with {', '.join(_SCHEMES)}; got the scheme {scheme!r}")
        elif client is not None and not hasattr(client, "execute_command"):
            raise ConfigurationError(f"redis_client must be a redis-py client, a URL or None, not {type(client)!r}")

    @property
    def is_configured(self) -> bool:
        """Whether there is a Redis to talk to at all."""
        return self._given is not None

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over slots, so that one call may only touch one hash tag."""
        return isinstance(self._given, redis.asyncio.cluster.RedisCluster | redis.cluster.RedisCluster)

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """Run a script in one round trip (two, once per script and server, when the server does not know it yet).

        Raises:
            RedisNotConfiguredError: No Redis was given.
            StoreUnavailableError: The server could not be reached in time.
            StoreError: The server refused or the script failed.
        """
        script.check(keys, args)
        operands: tuple[Argument, ...] = (len(keys), *keys, *args)
        reply = await self._execute(script.name, ("EVALSHA", script.sha, *operands))
        if reply is _UNKNOWN_SCRIPT:
            reply = await self._execute(script.name, ("EVAL", script.source, *operands))
        return reply

    async def command(self, *command: Argument, operation: str = "") -> Any:
        """Run one Redis command in one round trip.

        Raises:
            RedisNotConfiguredError: No Redis was given.
            StoreUnavailableError: The server could not be reached in time.
            StoreError: The server refused.
        """
        return await self._execute(operation or str(command[0]).lower(), command)

    async def aclose(self) -> None:
        """Close the clients this port made itself for the running loop; a client that was given stays open."""
        loop = asyncio.get_running_loop()
        self._per_loop.pop(loop, None)
        keeper = self._keepers.pop(loop, None)
        if keeper is not None:
            await keeper.aclose()

    async def _execute(self, operation: str, command: Sequence[Argument]) -> Any:
        execute = await self._executor(operation)
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        with self._interceptor.redis(RedisCall(operation)):
            try:
                reply = await execute(*command)
            except redis.exceptions.NoScriptError:
                # What a server that is new or was restarted answers to a hash: no failure, and none is told of.
                reply = _UNKNOWN_SCRIPT
            except _UNAVAILABLE as error:
                _end_if_cancelled(task, cancellations, error)
                raise StoreUnavailableError(operation, _reason(error)) from error
            except redis.exceptions.RedisError as error:
                _end_if_cancelled(task, cancellations, error)
                raise StoreError(operation, _reason(error)) from error
            _end_if_cancelled(task, cancellations, None)
        return _text(reply)

    async def _executor(self, operation: str) -> Callable[..., Any]:
        given = self._given
        if given is None:
            raise RedisNotConfiguredError(operation)
        if isinstance(given, redis.Redis | redis.cluster.RedisCluster):
            return partial(asyncio.to_thread, given.execute_command)
        loop = asyncio.get_running_loop()
        client = self._per_loop.get(loop)
        if client is None:
            client = self._per_loop[loop] = self._for_loop(given)
            if client is not given:
                keeper = self._keepers[loop] = _closing(client)
                await anext(keeper)
        return client.execute_command

    def _for_loop(self, given: Any) -> Any:
        if isinstance(given, str):
            pool = BlockingConnectionPool.from_url(given, max_connections=_MAX_CONNECTIONS)
            return redis.asyncio.Redis.from_pool(pool)
        pool = getattr(given, "connection_pool", None)
        if not self._is_adopted or not isinstance(pool, AsyncConnectionPool):
            self._is_adopted = True
            return given
        clone = type(pool)(
            connection_class=pool.connection_class, max_connections=pool.max_connections, **pool.connection_kwargs
        )
        return redis.asyncio.Redis.from_pool(clone)


async def _closing(client: Any) -> AsyncGenerator[None]:
    """Closes a client when its loop ends: ``asyncio.run`` finishes every asynchronous generator the loop has seen."""
    try:
        yield
    finally:
        await client.aclose()


def _end_if_cancelled(task: "asyncio.Task[Any] | None", cancellations: int, error: Exception | None) -> None:
    """Pass on a cancellation that came during a call and that redis-py (8.1) kept to itself.

    While it connects it may take one for a failure of the connection, and try again: whoever cancelled would then wait
    for a task that goes on.
    """
    if task is not None and task.cancelling() > cancellations:
        raise asyncio.CancelledError from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _text(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, list):
        return [_text(each) for each in cast("list[Any]", reply)]
    if isinstance(reply, dict):
        return {_text(name): _text(value) for name, value in cast("dict[Any, Any]", reply).items()}
    return reply
