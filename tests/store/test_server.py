"""A server that would lose state is reported when a worker starts, not when state is lost."""

import logging

import pytest

from mageflow.store import RedisPort, find_unsuitable, warn_unsuitable
from mageflow.store.redis.server import problems_of
from mageflow.testing.valkey import EmbeddedValkey


async def problems(**options: str) -> list[str]:
    """What is found about a real server with these options."""
    with EmbeddedValkey(options={name.replace("_", "-"): value for name, value in options.items()}) as server:
        port = RedisPort(server.url)
        try:
            return await find_unsuitable(port)
        finally:
            await port.aclose()


async def test_a_server_that_evicts_keys_is_named() -> None:
    """A policy that drops keys matters if there is a memory limit; the message names the setting."""
    assert await problems() == []
    assert await problems(maxmemory_policy="allkeys-lru") == []
    (said,) = await problems(maxmemory_policy="volatile-ttl", maxmemory="64mb")
    assert "maxmemory-policy volatile-ttl" in said
    assert "set maxmemory-policy noeviction" in said


@pytest.mark.parametrize(
    ("said", "is_suitable"),
    [
        ("redis_version:6.2.14", False),  # as Redis 6.2.14 says it
        ("redis_version:7.0.15", True),
        ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.0.0", True),
        ("redis_version:255.255.255", True),  # an unreleased build
        ("# Server", True),
    ],
)
def test_a_server_that_is_too_old_is_named(said: str, *, is_suitable: bool) -> None:
    """The scripts need Redis 7; a server without a version in its answer passes."""
    found = problems_of(f"# Server\r\n{said}\r\n# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n")
    assert ("too old" in "".join(found)) is not is_suitable


async def test_a_server_that_cannot_be_asked_is_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    """If INFO is forbidden or no server answers, nothing is logged above debug and nothing is raised."""
    with EmbeddedValkey(options={"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}) as server:
        port = RedisPort(server.url)
        with caplog.at_level(logging.INFO, "mageflow.store"):
            await warn_unsuitable(port)
            assert [each.levelname for each in caplog.records] == ["WARNING"]
            caplog.clear()
            await port.command("ACL", "SETUSER", "default", "-info")
            await warn_unsuitable(port)
            server.stop()
            await warn_unsuitable(port)
        await port.aclose()
    assert caplog.records == []
