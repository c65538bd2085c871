"""The usual case of a lock: free, then released before another run wants it. A short script of its own answers it."""

import asyncio
import json
import re
from collections.abc import Awaitable
from typing import Any, cast

import pytest
import redis.asyncio

from mageflow.errors import StoreError
from mageflow.interceptors import ResourceKey
from mageflow.store import Keys, LockClaim, LockOwner, LockStore
from mageflow.store.locks import store as declarations
from mageflow.store.locks.replies import parse_reply
from mageflow.store.redis.scripts import Script
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.conftest import Services

KEYS = Keys("mageflow", "tests")
MAX_COMMANDS = 30
"""Commands of Redis within the two scripts of a lock."""


def claim(request_id: str, attempt_id: str, *resources: str, key: str = "key/ü:1") -> LockClaim:
    """A request with everything that is stored of it; the texts need escapes in JSON."""
    return LockClaim(
        request_id=request_id,
        attempt_id=attempt_id,
        session_id="process.0",
        session_is_open=False,
        resources=tuple(ResourceKey(each, key) for each in resources),
        owner=LockOwner('price"order', "run-1", "task-1", 2, "worker\n1", "0" * 32, will_retry=True),
        lease_seconds=60.0,
        wake_id="process",
        born_ms=1700000000123,
        priority=3,
        traceparent=f"00-{'0' * 31}1-{'0' * 15}1-01",
    )


def without_first_part(script: Script) -> str:
    """The source of a script as it answers everything but the usual case."""
    return script.source[script.source.index("-- The keys that lib_lock wants") :]


async def state(client: "redis.asyncio.Redis[Any]") -> tuple[dict[str, Any], dict[str, bool]]:
    """What is stored, with the clock and the tokens blanked; and whether each key lives a long time."""
    stored: dict[str, Any] = {}
    lives: dict[str, bool] = {}
    for key in sorted(await client.keys("*")):
        lives[key] = await client.pttl(key) > 50_000
        kind = await client.type(key)
        if kind == "hash":
            stored[key] = {name: _document(text) for name, text in (await client.hgetall(key)).items()}
        elif kind == "zset":
            stored[key] = await client.zrange(key, 0, -1)
        elif kind == "list":
            stored[key] = await client.lrange(key, 0, -1)
        else:
            stored[key] = await client.get(key)
    return json.loads(blanked(json.dumps(stored))), lives


def _document(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


def blanked(text: str) -> str:
    """Text without clock and tokens."""
    return re.sub(r"\b1[789]\d{11}(?!\d)|\b1[789]\d{14}\b", "0", text)


@pytest.mark.parametrize("key", ["key/ü:1", 'key/"ü"\\', "line\n"])
async def test_the_usual_case_is_stored_as_every_other(valkey: EmbeddedValkey, key: str) -> None:
    """A release of one version of the scripts and a request of another fit together: the records are the same.

    The release of a key that needs escapes in JSON is left to the whole script.
    """
    escapes = json.dumps(key, ensure_ascii=False) != f'"{key}"'
    acquire, release = declarations._ACQUIRE, declarations._RELEASE
    assert "-- FIRST    lock_take lock_keys" in acquire.source
    assert "-- FIRST    lock_give lock_keys" in release.source
    seen: list[list[Any]] = []
    answers: list[str] = []
    async with redis.asyncio.Redis.from_url(valkey.url, decode_responses=True) as client:
        for sources in (
            (acquire.source, release.source),
            (without_first_part(acquire), without_first_part(release)),
        ):
            await client.flushall()
            steps: list[Any] = []

            async def call(source: str, *args: str | int, steps: list[Any] = steps) -> None:
                reply = await cast("Awaitable[str]", client.eval(source, 1, KEYS.lock("locks"), *args))
                answers.append(reply)
                steps.append((parse_reply(blanked(reply), "lock"), await state(client)))

            lock = claim("r1", "a:1", "db", key=key).arguments()[-1]
            await call(sources[0], *claim("r1", "a:1", "db", key=key).arguments())
            await call(sources[1], "r1", "end", lock)
            await call(sources[1], "r1", "end", lock)
            seen.append(steps)
    assert seen[0] == seen[1]
    assert [each[0].verdict.kind for each in seen[0]] == ["granted", "ended", "ended"]
    assert [each.startswith("{") for each in answers] == [False, escapes, True, True, True, True], (
        "the usual case is text"
    )
    assert all(all(lives.values()) for _, (_, lives) in seen[0])


async def test_the_usual_case_takes_few_commands(store: LockStore, valkey: EmbeddedValkey) -> None:
    """Commands within both scripts are counted by the server. A nested lock is not the usual case, and takes more."""
    resource = ResourceKey("db", "key/ü:1")

    async def commands(number: int) -> int:
        async with redis.asyncio.Redis.from_url(valkey.url) as client:
            await client.config_resetstat()
            granted = await store.acquire(claim(f"r{number}", "a:1", "db"))
            released = await store.release(f"r{number}", (resource,))
            assert (granted.verdict.kind, released.verdict.released) == ("granted", 1)
            stats = await client.info("commandstats")
        own = {"cmdstat_evalsha", "cmdstat_eval", "cmdstat_config|resetstat", "cmdstat_client|setinfo", "cmdstat_hello"}
        return sum(each["calls"] for name, each in stats.items() if name not in own)

    await commands(1)
    assert 10 < await commands(2) <= MAX_COMMANDS
    await store.acquire(claim("outer", "a:1", "outer"))
    assert await commands(3) > MAX_COMMANDS


async def test_a_damaged_record_of_a_lock_is_a_typed_error(store: LockStore, valkey: EmbeddedValkey) -> None:
    """The answer to a request of its holder repeats the token, which is no number."""
    await store.acquire(claim("r1", "a:1", "db"))
    name = claim("r1", "a:1", "db").arguments()[-1]
    async with redis.asyncio.Redis.from_url(valkey.url, decode_responses=True) as client:
        record = json.loads(await cast("Awaitable[str]", client.hget(KEYS.lock("locks"), name)))
        damaged = json.dumps({**record, "token": {"a": 1}})
        await cast("Awaitable[int]", client.hset(KEYS.lock("locks"), name, damaged))
    with pytest.raises(StoreError, match="cannot be read"):
        await store.acquire(claim("r2", "a:1", "db"))


async def test_tokens_grow_when_the_clock_went_back(store: LockStore, valkey: EmbeddedValkey) -> None:
    """The last token may be ahead of the clock; the usual case leaves it to the whole script."""
    ahead = 9_000_000_000_000_000
    async with redis.asyncio.Redis.from_url(valkey.url, decode_responses=True) as client:
        await client.set(KEYS.lock("fence"), str(ahead))
    assert (await store.acquire(claim("r1", "a:1", "db"))).verdict.tokens == (ahead + 1,)


async def test_a_free_lock_needs_no_task(services: Services) -> None:
    """Neither the scripts, which are repeated or undone when a caller goes, nor the driver's writes have one."""
    resource = services().resource("orders")
    made: list[str] = []

    def note(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> "asyncio.Task[Any]":
        made.append(getattr(work, "__qualname__", ""))
        return asyncio.Task(work, loop=loop, **options)

    async with resource.acquire():  # connects, and starts the renewals
        pass
    loop = asyncio.get_running_loop()
    async with resource.acquire("renewed meanwhile"):
        loop.set_task_factory(cast("Any", note))
        try:
            async with resource.acquire("eu"):
                pass
        finally:
            loop.set_task_factory(None)

    assert made == []
