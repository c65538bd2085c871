"""One round trip to Redis, with the client that the program gave: synchronous or asynchronous, single or cluster.

This module contains the EVALSHA protocol and the translation of errors. It does not know what the scripts decide.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import redis.asyncio.cluster
import redis.cluster
import redis.exceptions
from redis.asyncio.connection import parse_url

from mageflow.errors import ConfigurationError, RedisNotConfiguredError
from mageflow.interceptors import Interceptor, RedisCall
from mageflow.store.redis.connections import Connections, RedisClient
from mageflow.store.redis.outages import OutageWatch
from mageflow.store.redis.refusals import as_store_error
from mageflow.store.redis.scripts import Script

__all__ = ["RedisClient", "RedisPort"]

Argument = str | bytes | int | float

_SCHEMES = ("redis://", "rediss://", "unix://")
_UNKNOWN_SCRIPT = object()
_FAILURES = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError)


class RedisPort:
    """Runs scripts and commands, each in one round trip.

    Safe to use from several event loops and threads. Replies are text, or lists of text, whether or not the client
    decodes responses. A byte that is not UTF-8 is shown as an escape, as Python writes it. That is no JSON.

    Args:
        client: A redis-py client, a URL, or None.
        interceptor: Observes every round trip (`Interceptor.redis`).

    Raises:
        ConfigurationError: The URL is wrong or has a scheme Redis does not know, or the object is no redis-py client.
    """

    def __init__(self, client: RedisClient, interceptor: Interceptor | None = None) -> None:
        self._interceptor = interceptor or Interceptor()
        self._given = client
        self._connections = Connections(client)
        self._outages = OutageWatch(self._interceptor)
        if isinstance(client, str):
            if not client.startswith(_SCHEMES):
                scheme = client.partition("://")[0] if "://" in client else "none"
                raise ConfigurationError(f"a Redis URL starts with {', '.join(_SCHEMES)}; got the scheme {scheme!r}")
            try:
                parse_url(client)
            except ValueError as error:
                raise ConfigurationError(f"the Redis URL is wrong: {error}") from error
        elif client is not None and not hasattr(client, "execute_command"):
            raise ConfigurationError(f"redis_client must be a redis-py client, a URL or None, not {type(client)!r}")

    @property
    def is_configured(self) -> bool:
        """Whether a client or a URL was given."""
        return self._given is not None

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over slots. Then all keys of one call need the same hash tag."""
        return isinstance(self._given, redis.asyncio.cluster.RedisCluster | redis.cluster.RedisCluster)

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """Run a script in one round trip; two if the server does not know the script yet.

        Args:
            script: The script.
            keys: Its keys, in the declared order.
            args: Its arguments, in the declared order.

        Raises:
            RedisNotConfiguredError: No Redis was given.
            StoreUnavailableError: The server could not be reached in time, or refuses for now.
            StoreRefusedError: The server refuses until a person changes something.
            StoreError: The script failed.
        """
        script.check(keys, args)
        operands: tuple[Argument, ...] = (len(keys), *keys, *args)
        reply = await self._execute(script.name, ("EVALSHA", script.sha, *operands))
        if reply is _UNKNOWN_SCRIPT:
            reply = await self._execute(script.name, ("EVAL", script.source, *operands))
        return reply

    async def command(self, *command: Argument, operation: str = "") -> Any:
        """Run one Redis command in one round trip.

        Args:
            command: The command and its arguments.
            operation: Its name in telemetry; the command's own name by default.

        Raises:
            RedisNotConfiguredError: No Redis was given.
            StoreUnavailableError: The server could not be reached in time, or refuses for now.
            StoreRefusedError: The server refuses until a person changes something.
            StoreError: The command failed.
        """
        return await self._execute(operation or str(command[0]).lower(), command)

    async def aclose(self) -> None:
        """Close the client that was made for the running loop. The user's client stays open."""
        await self._connections.aclose()

    async def blocking_seconds(self, wanted: float) -> float:
        """For how long a command may block; short if the client has one connection, which other calls need."""
        return (await self._connections.loop_client()).blocking_seconds(wanted)

    async def _execute(self, operation: str, command: Sequence[Argument]) -> Any:
        if self._given is None:
            raise RedisNotConfiguredError(operation)
        loop_client = await self._connections.loop_client()
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        with self._interceptor.redis(RedisCall(operation)):
            try:
                reply = await loop_client.execute(*command)
            except redis.exceptions.NoScriptError:
                # A new or restarted server does not know the hash. This is no failure, so no interceptor sees an error.
                reply = _UNKNOWN_SCRIPT
            except UnicodeEncodeError as error:
                raise ConfigurationError(
                    f"{operation}: Redis stores Unicode text, and a given text has lone surrogates: {error}"
                ) from error
            except _FAILURES as error:
                _end_if_cancelled(task, cancellations, error)
                failure = as_store_error(operation, error)
                if not _is_idle_wait(command, error):
                    self._outages.failed(failure)
                raise failure from error
            _end_if_cancelled(task, cancellations, None)
        if reply is not _UNKNOWN_SCRIPT:
            self._outages.answered(operation)
        return _text(reply)


def _is_idle_wait(command: Sequence[Argument], error: Exception) -> bool:
    """Whether a blocking command met the client's own socket timeout: nothing happened, and Redis is not away."""
    return command[0] == "BLMPOP" and isinstance(error, redis.exceptions.TimeoutError | TimeoutError)


def _end_if_cancelled(task: "asyncio.Task[Any] | None", cancellations: int, error: Exception | None) -> None:
    """Re-raise a cancellation that redis-py 8.1 swallowed while connecting.

    It may take the cancellation for a failure of the connection and retry. Then the task would continue, and its
    canceller would wait.
    """
    if task is not None and task.cancelling() > cancellations:
        raise asyncio.CancelledError from error


def _text(reply: Any) -> Any:
    if isinstance(reply, bytes):
        return reply.decode(errors="backslashreplace")
    if isinstance(reply, list):
        return [_text(each) for each in cast("list[Any]", reply)]
    if isinstance(reply, dict):
        return {_text(name): _text(value) for name, value in cast("dict[Any, Any]", reply).items()}
    return reply
