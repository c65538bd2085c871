"""Scripts of a client that is made from a URL: their connections stay with them from one call to the next.

redis-py takes a connection from its pool for each command, checks it, and gives it back; that, and what it counts
meanwhile, costs more than the round trip itself. Here a script is sent over a connection that the last script has left.
All else is left to redis-py: commands, connections that are new or lost, and programs that instrument it.
"""

import inspect
from types import FunctionType
from typing import Any, cast

import redis.asyncio
from redis.asyncio.connection import ConnectionPool

from mageflow.store.redis.prompt_connection import PromptConnection

try:
    from redis.observability import get_observability_instance
except ImportError:  # redis-py before 7.2
    get_observability_instance = None

__all__ = ["PromptScripts"]

_NAMES_ITS_COMMAND = "command_name" in {
    each.name
    for each in inspect.signature(ConnectionPool.get_connection).parameters.values()
    if each.default is inspect.Parameter.empty
}
"""Whether redis-py (before 5.3) is given a command with the request for a connection."""


class PromptScripts:
    """Runs the scripts of one client, over connections that it keeps.

    Args:
        client: Made from a URL, by `redis.asyncio.Redis.from_pool`, so that closing it closes the kept ones too.
        capacity: Connections of its pool. No more calls run at once.
    """

    def __init__(self, client: redis.asyncio.Redis, capacity: int) -> None:
        self._client = client
        self._pool = client.connection_pool
        self._capacity = capacity
        self._running = 0
        self._kept: list[PromptConnection] = []

    @staticmethod
    def fits(client: Any) -> bool:
        """Whether a client's connections are those of this package, and redis-py repeats none of its commands."""
        pool = getattr(client, "connection_pool", None)
        return (
            isinstance(pool, ConnectionPool)
            and issubclass(pool.connection_class, PromptConnection)
            and not any(name.startswith("retry") for name in pool.connection_kwargs)
        )

    async def execute(self, *command: Any) -> Any:
        """Run one command.

        Raises:
            redis.exceptions.RedisError: As redis-py does.
        """
        self._running += 1
        try:
            if command[0] == "EVALSHA" and not _is_observed():
                return await self._ask(command)
            return await self._leave(command)
        finally:
            self._running -= 1

    async def _ask(self, command: tuple[Any, ...]) -> Any:
        names = ("EVALSHA",) if _NAMES_ITS_COMMAND else ()
        connection = self._kept.pop() if self._kept else await self._pool.get_connection(*names)
        connection = cast("PromptConnection", connection)
        if not connection.is_ready():
            if not connection.health_check_interval:
                # Closed by the server. The pool of redis-py 8.1 would use it again, and the command would fail.
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)
            return await self._leave(command)
        try:
            return await connection.ask(command)
        finally:
            if connection.is_used_up():
                await self._pool.release(connection)
            else:
                self._kept.append(connection)

    async def _leave(self, command: tuple[Any, ...]) -> Any:
        """Leave a command to redis-py, with room for it in the pool."""
        while self._kept and self._running + len(self._kept) > self._capacity:
            await self._pool.release(self._kept.pop())
        return await self._client.execute_command(*command)


def _is_observed() -> bool:
    """Whether the program has switched on the metrics of redis-py, or has instrumented it."""
    if get_observability_instance is not None and get_observability_instance().is_enabled():
        return True
    # An instrumentation puts an object of its own in the place of this function.
    return type(redis.asyncio.Redis.execute_command) is not FunctionType
