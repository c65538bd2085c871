"""Clients that are made from a URL write with less CPU, send the same bytes, and still wait no longer than they may."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import DataError

from mageflow.errors import StoreUnavailableError
from mageflow.store import RedisPort
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
