"""The round trips of one given Redis client: the EVALSHA protocol and the translation of redis-py's errors.

This module and those below it load redis-py, which takes a tenth of a second. `RedisPort` imports it when a Redis is
given: a worker without Redis loads none, and no attempt waits for it.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

import redis.asyncio.cluster
import redis.cluster
import redis.exceptions
from redis.asyncio.connection import parse_url

from mageflow.errors import ConfigurationError
from mageflow.interceptors import Interceptor, RedisCall
from mageflow.store.redis.connections import Connections
from mageflow.store.redis.outages import OutageWatch
from mageflow.store.redis.refusals import as_store_error
from mageflow.store.redis.scripts import Script

__all__ = ["Argument", "RoundTrips"]

Argument = str | bytes | int | float

_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_UNKNOWN_SCRIPT: Final = object()
_READY: Final = frozenset((str, int))
_TIMEOUTS: Final = (redis.exceptions.TimeoutError, TimeoutError)
_FAILURES: Final = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError)


class RoundTrips:
    """Sends commands with the connections of one client. It opens no connection before the first of them.

    Args:
        client: A redis-py client, or a URL.
        interceptor: Observes every round trip (`Interceptor.redis`).

    Raises:
        ConfigurationError: The URL is wrong or has a scheme Redis does not know, or the object is no redis-py client.
    """

    def __init__(self, client: Any, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self._outages = OutageWatch(interceptor)
        self.connections = Connections(client)
        self.is_cluster = isinstance(client, redis.asyncio.cluster.RedisCluster | redis.cluster.RedisCluster)
        if isinstance(client, str):
            if not client.startswith(_SCHEMES):
                scheme = client.partition("://")[0] if "://" in client else "none"
                raise ConfigurationError(f"a Redis URL starts with {', '.join(_SCHEMES)}; got the scheme {scheme!r}")
            try:
                parse_url(client)
            except ValueError as error:
                raise ConfigurationError(f"the Redis URL is wrong: {error}") from error
        elif not hasattr(client, "execute_command"):
            raise ConfigurationError(f"redis_client must be a redis-py client, a URL or None, not {type(client)!r}")

    async def call(self, script: Script, operands: tuple[Argument, ...]) -> Any:
        """Run a script in one round trip; two if the server does not know the script yet."""
        reply = await self.execute(script.name, ("EVALSHA", script.sha, *operands))
        if reply is _UNKNOWN_SCRIPT:
            reply = await self.execute(script.name, ("EVAL", script.source, *operands))
        return reply

    async def execute(self, operation: str, command: Sequence[Argument]) -> Any:
        """Send one command.

        Raises:
            StoreError: As `RedisPort.command` raises it.
        """
        loop_client = await self.connections.loop_client()
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

    @staticmethod
    def is_timeout(error: BaseException) -> bool:
        """Whether the client's own socket timeout caused this error."""
        return isinstance(error.__cause__, _TIMEOUTS)


def _is_idle_wait(command: Sequence[Argument], error: Exception) -> bool:
    """Whether a blocking command met the client's own socket timeout: nothing happened, and Redis is not away."""
    return command[0] == "BLMPOP" and isinstance(error, _TIMEOUTS)


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
        elements = cast("list[Any]", reply)
        try:
            # Most elements need no call of their own.
            return [
                each.decode() if type(each) is bytes else each if type(each) in _READY else _text(each)
                for each in elements
            ]
        except UnicodeDecodeError:
            return [_text(each) for each in elements]
    if isinstance(reply, dict):
        return {_text(name): _text(value) for name, value in cast("dict[Any, Any]", reply).items()}
    return reply
