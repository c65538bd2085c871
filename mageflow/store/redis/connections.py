"""One Redis client for several event loops, and a queue for more calls than it has connections.

The user's client is used as it is: its pool, TLS, Sentinel, Cluster, retry and socket settings stay. A synchronous
client runs in threads of its own, so that renewals of locks do not wait behind a program that fills the event loop's
threads. The connections of an asyncio client belong to one event loop; for a second loop the client is copied with the
same classes and settings. A URL becomes one client per running loop at its first use, and the client is closed when the
loop ends. Creating these objects opens no connection.

A forked child shares the sockets of its parent, so it gets connections of its own: an asyncio client is copied, the
pool of a synchronous client opens new ones, and one with a single connection is replaced by a client over its pool.

This module owns which client serves which loop. It refuses to know what is sent.
"""

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.exceptions
from redis.asyncio.connection import BlockingConnectionPool, Connection, ConnectionPool, SSLConnection, parse_url

from mageflow.forks import when_forked
from mageflow.store.redis.prompt_connection import prompt
from mageflow.store.redis.prompt_scripts import PromptScripts

__all__ = ["Connections", "LoopClient", "RedisClient"]

RedisClient = (
    redis.asyncio.Redis | redis.Redis | redis.asyncio.cluster.RedisCluster | redis.cluster.RedisCluster | str | None
)
"""Any redis-py client, a URL, or None."""

_MAX_CONNECTIONS: Final = 64
"""Connections of a client that is made from a URL, per process and loop."""
_WAIT_SECONDS: Final = 20.0
"""How long a call waits for a connection if the client's own pool has no timeout."""
_BUSY_PAUSE_SECONDS: Final = 0.01
_FULL_POOL: Final = "Too many connections"
"""The message of redis-py's pools in 5.2 and in 8.1. Only new versions raise a ``MaxConnectionsError``."""
_ONLY_ONE_SECONDS: Final = 0.05
_ATTEMPTS: Final = 3


class LoopClient:
    """The client of one event loop. Calls beyond the number of its connections wait in a queue, first in, first out.

    Args:
        client: A redis-py client.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._capacity = _capacity(client)
        self._threads: ThreadPoolExecutor | None = None
        self._send = (
            PromptScripts(client, self._capacity).execute if PromptScripts.fits(client) else client.execute_command
        )
        if isinstance(client, redis.Redis | redis.cluster.RedisCluster):
            # Threads start when they are needed, and end with this object.
            workers = min(self._capacity, _MAX_CONNECTIONS)
            self._threads = ThreadPoolExecutor(workers, thread_name_prefix="mageflow-redis")
            self._send = self._send_in_thread
        self._gate = asyncio.Semaphore(self._capacity)
        self._wait_seconds: float | None = getattr(getattr(client, "connection_pool", None), "timeout", _WAIT_SECONDS)

    async def execute(self, *command: Any) -> Any:
        """Run one command.

        Raises:
            redis.exceptions.RedisError: As redis-py does; `ConnectionError` if no connection became free in time.
        """
        gate = self._gate
        if gate.locked():
            try:
                async with asyncio.timeout(self._wait_seconds):
                    await gate.acquire()
            except TimeoutError:
                raise redis.exceptions.ConnectionError(_crowded(self._capacity)) from None
        else:
            await gate.acquire()
        try:
            return await self._execute(command)
        finally:
            gate.release()

    def close(self) -> None:
        """End the threads of a synchronous client as soon as they are idle. The client stays open."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def _send_in_thread(self, *command: Any) -> Any:
        call = partial(contextvars.copy_context().run, self.client.execute_command, *command)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def blocking_seconds(self, wanted: float) -> float:
        """For how long a blocking command may keep its connection; short if it is the only one."""
        return wanted if self._capacity > 1 else min(wanted, _ONLY_ONE_SECONDS)

    async def _execute(self, command: tuple[Any, ...]) -> Any:
        until: float | None = None
        attempts = 0
        while True:
            try:
                return await self._send(*command)
            except redis.exceptions.ConnectionError as error:
                if str(error) != _FULL_POOL:
                    raise
                # The program uses its client, too, and takes connections from the same pool.
                now = asyncio.get_running_loop().time()
                until = until or now + (_WAIT_SECONDS if self._wait_seconds is None else self._wait_seconds)
                if now >= until:
                    raise
            except AttributeError as error:
                # redis-py (8.1) drops a Cluster's connections while another call is connecting, when a third call has
                # met an error. Every script may be repeated.
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise redis.exceptions.ConnectionError(f"the driver failed: {error}") from error
            await asyncio.sleep(_BUSY_PAUSE_SECONDS)


class Connections:
    """The clients of one user's client, by event loop.

    Args:
        given: The user's redis-py client, or a URL.
    """

    def __init__(self, given: Any) -> None:
        self._given = given
        self._loop_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClient] = WeakKeyDictionary()
        self._keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncGenerator[None]] = WeakKeyDictionary()
        self._is_adopted = False
        self._is_forked = False
        self._of_parents: list[object] = []
        when_forked(self._begin_in_child)

    async def loop_client(self) -> LoopClient:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        loop_client = self._loop_clients.get(loop)
        if loop_client is None:
            client = self._client()
            loop_client = self._loop_clients[loop] = LoopClient(client)
            if (
                isinstance(client, redis.asyncio.Redis | redis.asyncio.cluster.RedisCluster)
                and client is not self._given
            ):
                keeper = self._keepers[loop] = _closing(client)
                await anext(keeper)
        return loop_client

    async def aclose(self) -> None:
        """Close the client that was made for the running loop. The user's client stays open."""
        loop = asyncio.get_running_loop()
        loop_client = self._loop_clients.pop(loop, None)
        if loop_client is not None:
            loop_client.close()
        keeper = self._keepers.pop(loop, None)
        if keeper is not None:
            # A caller that is cancelled ends at once; what it began to close is closed, and leaves no socket behind.
            await asyncio.shield(loop.create_task(_finish(keeper)))

    def _begin_in_child(self) -> None:
        """Put aside what belongs to the parent of this forked process: its threads do not run here."""
        self._of_parents.append((self._loop_clients, self._keepers))  # to end them would write to the parent's sockets
        self._is_adopted = self._is_forked = True
        self._loop_clients = WeakKeyDictionary()
        self._keepers = WeakKeyDictionary()

    def _client(self) -> Any:
        given = self._given
        if self._is_forked and _is_single(given):
            return redis.Redis(connection_pool=given.connection_pool)
        if isinstance(given, str):
            return redis.asyncio.Redis.from_pool(_pool_of(given))
        if isinstance(given, redis.Redis | redis.cluster.RedisCluster):
            return given
        if not self._is_adopted:
            self._is_adopted = True
            return given
        if isinstance(given, redis.asyncio.cluster.RedisCluster):
            return _copy_of_cluster(given)
        pool = getattr(given, "connection_pool", None)
        return redis.asyncio.Redis.from_pool(_copy_of_pool(pool)) if isinstance(pool, ConnectionPool) else given


def _capacity(client: Any) -> int:
    if getattr(client, "single_connection_client", False) or _is_single(client):
        return 1
    pool = getattr(client, "connection_pool", None)
    settings: dict[str, Any] = getattr(client, "connection_kwargs", None) or {}
    limit = getattr(pool, "max_connections", None) or settings.get("max_connections")
    return limit if isinstance(limit, int) and limit > 0 else _MAX_CONNECTIONS


def _is_single(client: Any) -> bool:
    """Whether a synchronous client keeps one connection for itself: redis-py 8.1 has no public name for the setting."""
    return isinstance(client, redis.Redis) and client.connection is not None


def _crowded(capacity: int) -> str:
    return f"none of the client's {capacity} connections became free in time; give it a larger max_connections"


def _pool_of(url: str) -> ConnectionPool:
    settings: dict[str, Any] = {"max_connections": _MAX_CONNECTIONS, **parse_url(url)}
    settings["connection_class"] = prompt(settings.get("connection_class", Connection))
    return ConnectionPool(**settings)


def _copy_of_pool(pool: ConnectionPool) -> ConnectionPool:
    settings = {name: value for name, value in pool.connection_kwargs.items() if name != "connection_pool"}
    settings |= {"connection_class": pool.connection_class, "max_connections": pool.max_connections}
    if isinstance(pool, BlockingConnectionPool):
        settings["timeout"] = pool.timeout
    if isinstance(pool, redis.asyncio.sentinel.SentinelConnectionPool):
        settings |= {"is_master": pool.is_master, "check_connection": pool.check_connection}
        return type(pool)(pool.service_name, _copy_of_sentinel(pool.sentinel_manager), **settings)
    return type(pool)(**settings)


def _copy_of_sentinel(manager: redis.asyncio.sentinel.Sentinel) -> redis.asyncio.sentinel.Sentinel:
    copy = type(manager)(
        [],
        min_other_sentinels=manager.min_other_sentinels,
        sentinel_kwargs=manager.sentinel_kwargs,
        **manager.connection_kwargs,
    )
    copy.sentinels = [redis.asyncio.Redis.from_pool(_copy_of_pool(each.connection_pool)) for each in manager.sentinels]
    return copy


def _copy_of_cluster(cluster: redis.asyncio.cluster.RedisCluster) -> redis.asyncio.cluster.RedisCluster:
    known = inspect.signature(redis.asyncio.cluster.RedisCluster.__init__).parameters
    settings = {name: value for name, value in cluster.connection_kwargs.items() if name in known}
    nodes = cluster.get_nodes() or list(cluster.nodes_manager.startup_nodes.values())
    settings |= {
        "ssl": issubclass(cluster.connection_kwargs["connection_class"], SSLConnection),
        "startup_nodes": [redis.asyncio.cluster.ClusterNode(each.host, each.port) for each in nodes],
        "retry": cluster.retry,
        "address_remap": cluster.nodes_manager.address_remap,
    }
    return type(cluster)(**settings)


async def _finish(keeper: AsyncGenerator[None]) -> None:
    await keeper.aclose()


async def _closing(client: Any) -> AsyncGenerator[None]:
    """Closes a client when its loop ends: ``asyncio.run`` finishes every asynchronous generator the loop has seen."""
    try:
        yield
    finally:
        await client.aclose()
        manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
        for each in manager.sentinels if manager is not None else ():
            await each.aclose()
