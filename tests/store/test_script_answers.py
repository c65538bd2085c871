"""Answers to scripts over connections that stay: large ones, errors, messages of RESP3, and none at all."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from mageflow.errors import StoreError, StoreUnavailableError
from mageflow.store import RedisPort
from mageflow.testing.valkey import EmbeddedValkey


@pytest.fixture
async def port(valkey: EmbeddedValkey) -> AsyncIterator[RedisPort]:
    """With answers of RESP3, which has messages that no command has asked for."""
    port = RedisPort(f"{valkey.url}?socket_timeout=30&protocol=3")
    yield port
    await port.aclose()


async def loaded(port: RedisPort, text: str) -> str:
    """The hash of a script that the server knows, with a connection that has run one."""
    await port.command("EVALSHA", await port.command("SCRIPT", "LOAD", "return 0"), 0)
    return await port.command("SCRIPT", "LOAD", text)


async def test_a_large_answer_comes_in_pieces(port: RedisPort) -> None:
    """More than one read of the socket gives."""
    sha = await loaded(port, "return {string.rep('x', 3000000), 'end'}")
    for _ in range(3):
        assert await port.command("EVALSHA", sha, 0) == ["x" * 3_000_000, "end"]


@pytest.mark.parametrize("answer", ["redis.error_reply('LOADING soon')", "{redis.error_reply('LOADING soon')}"])
async def test_an_error_of_the_server_is_raised(port: RedisPort, answer: str) -> None:
    """As redis-py raises it, also from within a list. The next script is served."""
    sha = await loaded(port, f"return {answer}")
    with pytest.raises(StoreUnavailableError, match="soon"):
        await port.command("EVALSHA", sha, 0)
    assert await port.command("EVALSHA", await loaded(port, "return 7"), 0) == 7


@pytest.mark.parametrize("url", ["", "?decode_responses=True"], ids=["bytes", "text"])
async def test_types_of_an_answer(valkey: EmbeddedValkey, url: str) -> None:
    """Each arrives as redis-py reads it."""
    port = RedisPort(f"{valkey.url}{url}")
    sha = await loaded(port, "return {1, 'text', {'inner', false}, redis.status_reply('OK')}")
    assert await port.command("EVALSHA", sha, 0) == [1, "text", ["inner", None], "OK"]
    assert await port.command("EVALSHA", await loaded(port, "return false"), 0) is None
    with pytest.raises(StoreError, match="MINE"):
        await port.command("EVALSHA", await loaded(port, "return redis.error_reply('MINE x')"), 0)
    await port.aclose()


async def test_a_message_that_no_command_has_asked_for_is_no_answer(port: RedisPort) -> None:
    """Such as the news that a tracked key has changed, here by the script itself."""
    sha = await loaded(port, "redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]")
    scripts = (await cast("Any", port)._round_trips.connections.loop_client())._send.__self__
    [connection] = scripts._kept
    assert await connection.ask(("CLIENT", "TRACKING", "ON", "BCAST")) == b"OK"
    for number in range(50):
        assert await port.command("EVALSHA", sha, 1, "{a}:tracked", str(number)) == str(number)


async def test_a_server_that_dies_ends_the_wait() -> None:
    """At once, and not after the socket's timeout."""
    with EmbeddedValkey() as server:
        port = RedisPort(f"{server.url}?socket_timeout=600")
        sha = await loaded(port, "return 1")
        os.kill(server.pid, signal.SIGSTOP)
        call = asyncio.create_task(port.command("EVALSHA", sha, 0))
        await asyncio.sleep(0.2)
        os.kill(server.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            with pytest.raises(StoreUnavailableError):
                await call
        await port.aclose()
