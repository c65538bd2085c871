"""One round trip to Redis, with the client that the program gave: synchronous or asynchronous, single or cluster.

This module contains no redis-py: `round_trips` loads it when a Redis is given. It does not know what scripts decide.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mageflow.errors import RedisNotConfiguredError, StoreUnavailableError
from mageflow.interceptors import Interceptor
from mageflow.store.redis.scripts import Script

if TYPE_CHECKING:
    from mageflow.store.redis.connections import RedisClient
    from mageflow.store.redis.round_trips import Argument, RoundTrips

__all__ = ["RedisPort"]


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

    def __init__(self, client: "RedisClient", interceptor: Interceptor | None = None) -> None:
        self._round_trips = None if client is None else _round_trips(client, interceptor or Interceptor())

    @property
    def is_configured(self) -> bool:
        """Whether a client or a URL was given."""
        return self._round_trips is not None

    @property
    def is_cluster(self) -> bool:
        """Whether keys are spread over slots. Then all keys of one call need the same hash tag."""
        return self._round_trips is not None and self._round_trips.is_cluster

    async def call(self, script: Script, keys: Sequence[str], args: "Sequence[Argument]" = ()) -> Any:
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
        return await self._sending(script.name).call(script, (len(keys), *keys, *args))

    async def command(self, *command: "Argument", operation: str = "") -> Any:
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
        operation = operation or str(command[0]).lower()
        return await self._sending(operation).execute(operation, command)

    def is_timeout(self, error: StoreUnavailableError) -> bool:
        """Whether the client's own socket timeout caused this error."""
        return self._round_trips is not None and self._round_trips.is_timeout(error)

    async def aclose(self) -> None:
        """Close the client that was made for the running loop. The user's client stays open."""
        if self._round_trips is not None:
            await self._round_trips.connections.aclose()

    async def blocking_seconds(self, wanted: float) -> float:
        """For how long a command may block; short if the client has one connection, which other calls need."""
        return (await self._sending("blocking_seconds").connections.loop_client()).blocking_seconds(wanted)

    def _sending(self, operation: str) -> "RoundTrips":
        if self._round_trips is None:
            raise RedisNotConfiguredError(operation)
        return self._round_trips


def _round_trips(client: Any, interceptor: Interceptor) -> "RoundTrips":
    from mageflow.store.redis.round_trips import RoundTrips  # noqa: PLC0415 - a worker without Redis needs no redis-py

    return RoundTrips(client, interceptor)
