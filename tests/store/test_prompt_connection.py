"""Clients that are made from a URL write with less CPU, send the same bytes, and still wait no longer than they may."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
import redis.asyncio
from redis.asyncio.connection import Connection
from redis.exceptions import DataError

from mageflow.errors import StoreError, StoreUnavailableError
from mageflow.store import RedisPort
from mageflow.store.records.declarations import LEAD
from mageflow.store.redis.connections import _pool_of
from mageflow.testing.valkey import EmbeddedValkey


@pytest.fixture
def stopped() -> Iterator[EmbeddedValkey]:
    """A server that can be stopped."""
    with EmbeddedValkey() as server:
        yield server
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("size", [10, 40_000_000], ids=["read", "write"])
async def test_a_server_that_stands_still_is_given_up(stopped: EmbeddedValkey, size: int) -> None:
    """A small command waits for its answer, a large one for the room to write it. The next call is served again."""
    open_sockets = cast("Any", asyncio.get_running_loop())._selector.get_map()
    others = len(open_sockets)
    port = RedisPort(f"{stopped.url}?socket_timeout=1")
    await port.command("SET", "key", "before")
    os.kill(stopped.pid, signal.SIGSTOP)
    started_at = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        async with asyncio.timeout(60):
            await port.command("SET", "key", "x" * size)
    assert time.monotonic() - started_at > 0.9
    os.kill(stopped.pid, signal.SIGCONT)
    assert await port.command("GET", "other") is None
    await port.aclose()
    async with asyncio.timeout(60):  # the connection that was given up closes when its bytes are written
        while len(open_sockets) > others:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("size", [10, 30_000, 40_000, 5_000_000])
async def test_commands_of_any_size_arrive(valkey: EmbeddedValkey, size: int) -> None:
    """Below and above the bound between the two ways to write; small ones start no task."""
    port = RedisPort(valkey.url)
    await port.command("PING")
    made: list[str] = []

    def note(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> "asyncio.Task[Any]":
        made.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    asyncio.get_running_loop().set_task_factory(cast("Any", note))
    try:
        await port.command("SET", "mageflow:large", "x" * size, "EX", 60)
        assert size > 30_000 or made == []
        assert await port.command("STRLEN", "mageflow:large") == size
    finally:
        asyncio.get_running_loop().set_task_factory(None)
        await port.aclose()


def test_options_of_the_url_come_before_our_own() -> None:
    """Such as the number of connections."""
    pool = _pool_of("redis://localhost?max_connections=3&socket_timeout=2.5")
    assert pool.max_connections == 3
    assert pool.connection_kwargs["socket_timeout"] == 2.5


@pytest.mark.parametrize(
    "command",
    [
        ("PING",),
        ("EVALSHA", "0" * 40, 2, "{a}:k", "{a}:l", 0, -7, 1.5, "", "text, \u00e4 \U0001f9d9", "1"),
        ("SET", "key", b"\xff", "EX", 1.5),
        ("CONFIG GET", "maxmemory"),
        (b"SET", "key", memoryview(b"value")),
        ("SET", "key", "x" * 20_000, "EX", 60),
        ("SET", "key", bytearray(b"value")),
    ],
    ids=["name alone", "script", "one of bytes", "two words", "bytes", "large", "array"],
)
def test_a_command_has_the_bytes_that_redis_py_writes(command: tuple[Any, ...]) -> None:
    """However it is put together."""
    usual = Connection().pack_command(*command)
    own = _pool_of("redis://localhost").make_connection().pack_command(*command)
    assert b"".join(own) == b"".join(usual)


def test_a_script_is_one_piece_of_bytes() -> None:
    """Its arguments are joined once, and not one after another."""
    connection = _pool_of("redis://localhost").make_connection()
    [packed] = connection.pack_command("EVALSHA", "0" * 40, 20, *[f"{{a}}:{each}" * 100 for each in range(20)], 1, "")
    assert packed.count(b"\r\n") == 2 * 25 + 1


@pytest.mark.parametrize("value", [True, None, object()])
def test_a_value_that_redis_py_refuses_is_refused(value: Any) -> None:
    """A bool is no number."""
    with pytest.raises(DataError):
        _pool_of("redis://localhost").make_connection().pack_command("SET", "key", value)


def test_text_that_is_no_unicode_is_refused() -> None:
    """As everywhere: `RedisPort` says which operation had it."""
    with pytest.raises(UnicodeEncodeError):
        _pool_of("redis://localhost").make_connection().pack_command("SET", "key", "\ud800")


async def lead(port: RedisPort, lease: str = "{a}:lease", owner: str = "me") -> Any:
    """Send a script with a short answer: whether this owner leads, and the server's clock."""
    return (await port.call(LEAD, [lease], (owner, 60_000)))[0]


@pytest.fixture
async def port(valkey: EmbeddedValkey) -> AsyncIterator[RedisPort]:
    """Of a client with three connections."""
    port = RedisPort(f"{valkey.url}?max_connections=3&socket_timeout=20")
    yield port
    await port.aclose()


async def taken(port: RedisPort, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What will be taken from the pool of redis-py from now on."""
    pool = (await cast("Any", port)._round_trips.connections.loop_client()).client.connection_pool
    found: list[object] = []
    get_connection = pool.get_connection

    async def note(*names: Any) -> Any:
        found.append(await get_connection(*names))
        return found[-1]

    monkeypatch.setattr(pool, "get_connection", note)
    return found


async def test_a_script_uses_the_connection_of_the_last_one(port: RedisPort, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the way through the pool of redis-py. An error of a script is an answer, and keeps the connection."""
    found = await taken(port, monkeypatch)
    for _ in range(5):
        assert await lead(port) == 0
    await port.command("SADD", "{a}:wrong", "x")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await lead(port, "{a}:wrong")
    assert await lead(port) == 0
    assert len(found) <= 4  # the first script, its text for EVAL, SADD


async def test_more_calls_than_connections(port: RedisPort) -> None:
    """Scripts and commands share three connections, after calls of either kind."""
    for _ in range(3):
        async with asyncio.timeout(60):
            assert await asyncio.gather(*(lead(port) for _ in range(20))) == [0] * 20
            commands = [port.command("BLMPOP", 0.01, 1, "{a}:none", "LEFT") for _ in range(12)]
            assert await asyncio.gather(*commands) == [None] * 12
            both = [lead(port) if number % 2 else port.command("GET", "{a}:none") for number in range(20)]
            assert await asyncio.gather(*both) == [None, 0] * 10


async def test_a_cancelled_script_leaves_no_answer_to_the_next(stopped: EmbeddedValkey) -> None:
    """Its connection is closed."""
    port = RedisPort(stopped.url)
    assert await lead(port, "{a}:one") == 0
    os.kill(stopped.pid, signal.SIGSTOP)
    other = asyncio.create_task(lead(port, "{a}:one", "another"))
    await asyncio.sleep(0.1)
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other
    os.kill(stopped.pid, signal.SIGCONT)
    assert await lead(port, "{a}:two") == 0
    assert await lead(port, "{a}:one", "another") > 0
    await port.aclose()


async def test_a_script_waits_as_long_as_it_may(stopped: EmbeddedValkey) -> None:
    """Not less because another script began to wait before it."""
    port = RedisPort(f"{stopped.url}?socket_timeout=2")
    await lead(port)
    await asyncio.sleep(1.2)
    await lead(port)
    os.kill(stopped.pid, signal.SIGSTOP)
    started_at = time.monotonic()
    with pytest.raises(StoreUnavailableError) as failed:
        async with asyncio.timeout(60):
            await lead(port)
    assert time.monotonic() - started_at > 1.9
    assert port.is_timeout(failed.value)
    os.kill(stopped.pid, signal.SIGCONT)
    assert await lead(port) == 0
    await port.aclose()


async def test_a_lost_connection_costs_no_script(port: RedisPort, valkey: EmbeddedValkey) -> None:
    """One that the server has closed meanwhile is opened again, as redis-py does."""
    await lead(port)
    async with redis.asyncio.Redis.from_url(valkey.url) as other:
        await other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.2)
    assert await lead(port) == 0


async def test_an_instrumentation_of_redis_py_sees_scripts(port: RedisPort, monkeypatch: pytest.MonkeyPatch) -> None:
    """It puts something of its own around the call of redis-py, and may do so at any time."""
    await lead(port)
    seen: list[str] = []
    execute_command = redis.asyncio.Redis.execute_command

    class Around:
        def __get__(self, client: Any, owner: object = None) -> Any:
            async def execute(*command: Any, **options: Any) -> Any:
                seen.append(command[0])
                return await execute_command(client, *command, **options)

            return execute if client is not None else self

    monkeypatch.setattr(redis.asyncio.Redis, "execute_command", Around())
    await lead(port)
    assert seen == ["EVALSHA"]


async def test_the_metrics_of_redis_py_count_scripts(port: RedisPort, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are recorded on redis-py's own way, through its pool."""
    observability = pytest.importorskip("redis.observability")
    await lead(port)
    found = await taken(port, monkeypatch)
    await lead(port)
    assert found == []
    observed = observability.get_observability_instance()
    observed.init(observability.OTelConfig())
    try:
        await lead(port)
    finally:
        observed.shutdown()
    assert len(found) == 1
