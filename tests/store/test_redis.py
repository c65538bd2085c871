"""Round trips over every kind of client a program may have."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection

from mageflow.errors import ConfigurationError, RedisNotConfiguredError, StoreError, StoreUnavailableError
from mageflow.store import RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.store.counting import RoundTrips


async def test_a_url_becomes_a_client_at_first_use(port: RedisPort) -> None:
    """A URL opens nothing before the first command."""
    await port.command("SET", "mageflow:x", "täst", "EX", 10)
    assert await port.command("GET", "mageflow:x") == "täst"


async def test_each_command_is_one_observed_round_trip(port: RedisPort, round_trips: RoundTrips) -> None:
    """The interceptor sees each round trip under its operation."""
    await port.command("PING")
    await port.command("PING", operation="probe")
    assert round_trips.by_operation == {"ping": 1, "probe": 1}


async def test_a_given_client_is_used_itself_and_stays_open(valkey: EmbeddedValkey) -> None:
    """The user's client does the work and stays open."""
    async with redis.asyncio.Redis.from_url(valkey.url, client_name="the-callers") as client:
        port = RedisPort(client)
        assert await port.command("CLIENT", "GETNAME") == "the-callers"
        await port.aclose()
        assert await client.ping()


async def test_replies_are_text_whether_or_not_the_client_decodes(valkey: EmbeddedValkey) -> None:
    """decode_responses makes no difference."""
    for decode in (True, False):
        async with redis.asyncio.Redis.from_url(valkey.url, decode_responses=decode) as client:
            assert await RedisPort(client).command("ECHO", "ä") == "ä"


async def test_a_synchronous_client_does_not_block_the_loop(valkey: EmbeddedValkey) -> None:
    """While a synchronous client waits for the server, the loop goes on."""
    with redis.Redis.from_url(valkey.url) as client:
        port = RedisPort(client)
        blocked = asyncio.create_task(port.command("BLPOP", "mageflow:none", 1))
        ticks = 0
        while not blocked.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert await blocked is None
        assert ticks > 5


async def test_a_synchronous_client_has_threads_of_its_own(valkey: EmbeddedValkey) -> None:
    """A program that fills the threads of its event loop does not hold up a call to Redis."""

    def own_threads() -> set[threading.Thread]:
        return {each for each in threading.enumerate() if each.name.startswith("mageflow-redis")} - before

    before = set(threading.enumerate())
    finished = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    blocked = asyncio.create_task(asyncio.to_thread(finished.wait, 60))
    with redis.Redis.from_url(valkey.url) as client:
        port = RedisPort(client)
        try:
            async with asyncio.timeout(30):
                assert await port.command("ECHO", "answered") == "answered"
            assert not blocked.done()
            assert own_threads()
        finally:
            finished.set()
            await blocked
            await port.aclose()
        async with asyncio.timeout(30):
            while own_threads():
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", [redis.Redis, redis.asyncio.Redis])
async def test_a_client_with_one_connection_is_not_kept_by_a_blocking_command(
    valkey: EmbeddedValkey, kind: Any
) -> None:
    """Every other call of the program would wait for as long as it blocks."""
    client = kind.from_url(valkey.url, single_connection_client=True)
    port = RedisPort(client)
    assert await port.blocking_seconds(2.0) <= 0.1
    await port.aclose()
    if kind is redis.Redis:
        client.close()
    else:
        await client.aclose()


def test_one_client_serves_several_event_loops(valkey: EmbeddedValkey) -> None:
    """A second loop gets connections of its own with the settings of the first."""

    async def name(port: RedisPort) -> str:
        result = await port.command("CLIENT", "GETNAME")
        await port.aclose()
        return result

    client = redis.asyncio.Redis.from_url(valkey.url, client_name="shared", max_connections=3)
    port = RedisPort(client)

    async def first() -> str:
        result = await name(port)
        await client.aclose()
        return result

    assert [asyncio.run(first()), asyncio.run(name(port))] == ["shared", "shared"]


async def test_without_redis_the_operation_is_named() -> None:
    """No Redis is an error of the operation that needs it, not of the client's construction."""
    port = RedisPort(None)
    assert not port.is_configured
    with pytest.raises(RedisNotConfiguredError, match="MAGEFLOW_REDIS_URL"):
        await port.command("PING")


async def test_an_unreachable_server_is_a_retryable_typed_error() -> None:
    """A port without a listener is StoreUnavailableError with the driver's words."""
    port = RedisPort("redis://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailableError, match="check that the server runs") as caught:
        await port.command("PING")
    assert caught.value.retryable
    await port.aclose()


async def test_a_refused_command_is_a_store_error(port: RedisPort) -> None:
    """A refusal of the server is a StoreError with the server's message."""
    with pytest.raises(StoreError, match="unknown command"):
        await port.command("NONSENSE")


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379"])
def test_a_wrong_url_is_refused_at_once(url: str) -> None:
    """A URL Redis cannot understand fails when the client is made."""
    with pytest.raises(ConfigurationError, match="rediss://"):
        RedisPort(url)


def test_tls_and_sockets_of_a_url_are_kept() -> None:
    """``rediss://`` stays TLS and ``unix://`` stays a socket."""

    async def connection_class(url: str) -> type[Any]:
        port = RedisPort(url)
        return (await port._round_trips.connections.loop_client()).client.connection_pool.connection_class

    assert issubclass(asyncio.run(connection_class("rediss://host")), SSLConnection)
    assert issubclass(asyncio.run(connection_class("unix:///tmp/none.sock")), UnixDomainSocketConnection)


def test_what_was_made_for_a_loop_is_closed_with_it(valkey: EmbeddedValkey) -> None:
    """A short program leaves no open connection behind, and need not close anything."""
    port = RedisPort(valkey.url)

    async def use() -> Any:
        await port.command("CLIENT", "SETNAME", "short-program")
        return await port.command("CLIENT", "LIST")

    assert "name=short-program" in asyncio.run(use())
    with redis.Redis.from_url(valkey.url) as observer:
        assert "short-program" not in {each["name"] for each in observer.client_list()}


async def test_more_calls_than_connections_wait_for_one(port: RedisPort) -> None:
    """A burst is no failure."""
    assert await asyncio.gather(*(port.command("ECHO", str(index)) for index in range(300))) == [
        str(index) for index in range(300)
    ]


@pytest.mark.parametrize("is_sync", [False, True])
async def test_more_calls_than_connections_of_a_given_client_wait_for_one(
    valkey: EmbeddedValkey, is_sync: bool
) -> None:
    """redis-py's own pool would refuse the 101st; also while the program that gave the client uses it."""
    client = (redis.Redis if is_sync else redis.asyncio.Redis).from_url(valkey.url, max_connections=4)
    port = RedisPort(client)
    busy = [client.client() for _ in range(3)]
    if not is_sync:
        await asyncio.gather(*(each.initialize() for each in busy))
    asked = [asyncio.create_task(port.command("ECHO", str(index))) for index in range(120)]
    assert await asyncio.gather(*asked) == [str(index) for index in range(120)]
    for each in (*busy, client):
        await (asyncio.to_thread(each.close) if is_sync else each.aclose())


async def test_a_cancellation_that_meets_a_broken_connection_is_not_lost() -> None:
    """A call that is cancelled while the server stops ends cancelled, not with the server's error."""
    with EmbeddedValkey() as server:
        port = RedisPort(server.url)
        calls: list[str] = []

        async def ask() -> None:
            while True:
                calls.append(await port.command("PING"))

        asking = asyncio.create_task(ask())
        while len(calls) < 5:
            await asyncio.sleep(0)
        server.kill()
        asking.cancel()
        await asyncio.wait({asking}, timeout=60)
        assert asking.cancelled()
        await port.aclose()


@pytest.mark.parametrize("succeeds", [False, True])
async def test_a_cancellation_the_driver_swallows_is_still_one(valkey: EmbeddedValkey, succeeds: bool) -> None:
    """A call that is cancelled ends, also if the driver raised an error or tried a second time."""

    class Swallowing(redis.asyncio.Redis):
        async def execute_command(self, *args: Any, **options: Any) -> Any:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                if succeeds:
                    return "PONG"
                raise redis.exceptions.ConnectionError("closed") from None

    async with Swallowing.from_url(valkey.url) as client:
        asking = asyncio.create_task(RedisPort(client).command("PING"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_a_call_made_by_a_task_that_is_being_cancelled_is_made(port: RedisPort) -> None:
    """Cleaning up after a cancellation may use Redis: only one that comes during the call ends it."""

    async def cleans_up() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return await port.command("ECHO", "clean")
        return ""

    task = asyncio.create_task(cleans_up())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "clean"


async def test_a_close_that_is_cancelled_leaves_no_connection(valkey: EmbeddedValkey) -> None:
    """Its caller ends at once, and the server sees the connection end."""
    async with redis.asyncio.Redis.from_url(valkey.url) as operator:
        before = len(await operator.client_list())
        port = RedisPort(valkey.url)
        await port.command("PING")
        assert len(await operator.client_list()) == before + 1
        closing = asyncio.create_task(port.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with asyncio.timeout(60):
            while len(await operator.client_list()) > before:
                await asyncio.sleep(0.02)
