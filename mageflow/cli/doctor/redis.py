"""Redis as a worker would use it: version, eviction, persistence, rights, latency, clock."""

import secrets
import statistics
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from mageflow.cli.doctor.findings import Finding, failure, fine, skipped, warning
from mageflow.errors import ConfigurationError, MageflowError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from mageflow.config import Settings
    from mageflow.store import RedisPort

__all__ = ["examine_redis"]

_TIMES: Final = 9
_SLOW_SECONDS: Final = 0.02
_SKEW_SECONDS: Final = 1.0

_READS: Final[tuple[tuple[str, ...], ...]] = (
    ("EVAL", "return 1", "0"),
    ("EXISTS", "KEY"),
    ("GET", "KEY"),
    ("HEXISTS", "KEY", "f"),
    ("HGET", "KEY", "f"),
    ("HGETALL", "KEY"),
    ("HKEYS", "KEY"),
    ("HLEN", "KEY"),
    ("HMGET", "KEY", "f"),
    ("HSCAN", "KEY", "0"),
    ("HSTRLEN", "KEY", "f"),
    ("LLEN", "KEY"),
    ("LPOS", "KEY", "v"),
    ("LRANGE", "KEY", "0", "0"),
    ("PTTL", "KEY"),
    ("TIME",),
    ("ZCARD", "KEY"),
    ("ZLEXCOUNT", "KEY", "-", "+"),
    ("ZRANGE", "KEY", "0", "0"),
    ("ZRANGEBYLEX", "KEY", "-", "+"),
    ("ZRANGEBYSCORE", "KEY", "0", "0"),
    ("ZSCORE", "KEY", "m"),
)
_WRITES: Final[tuple[tuple[str, ...], ...]] = (
    ("SET", "KEY", "v", "PX", "10000"),
    ("DEL", "KEY"),
    ("HSET", "KEY", "f", "v"),
    ("EXPIRE", "KEY", "10"),
    ("PEXPIRE", "KEY", "10000"),
    ("HDEL", "KEY", "f"),
    ("LPUSH", "KEY", "v"),
    ("RPUSH", "KEY", "v"),
    ("PEXPIRE", "KEY", "10000"),
    ("LREM", "KEY", "1", "v"),
    ("BLMPOP", "0.01", "1", "KEY", "LEFT"),
    ("LTRIM", "KEY", "1", "0"),
    ("ZADD", "KEY", "0", "m"),
    ("PEXPIRE", "KEY", "10000"),
    ("ZREM", "KEY", "m"),
    ("ZREMRANGEBYSCORE", "KEY", "0", "0"),
    ("DEL", "KEY"),
)
"""Every command of the ACL in ``mageflow/store/keys.py``, in an order that leaves no key behind."""


async def examine_redis(url: str | None, settings: "Settings") -> AsyncIterator[Finding]:
    """Everything about Redis. Writes one key with a TTL of 10 s and deletes it."""
    from mageflow.store import RedisPort, find_unsuitable

    found = url or settings.resolved_redis_url()
    if found is None:
        yield skipped(
            "redis",
            "No Redis is named: plain tasks run, signatures, flows and locks do not.",
            "set MAGEFLOW_REDIS_URL, or write --redis-url redis://HOST:6379",
        )
        return
    try:
        port = RedisPort(found)
    except ConfigurationError as error:
        yield failure("redis", f"{error}.", "correct MAGEFLOW_REDIS_URL")
        return
    try:
        try:
            problems = await find_unsuitable(port)
            yield fine("redis", "Redis answers.")
            for problem in problems:
                statement, _, mend = problem.rpartition(": ")
                yield failure("redis-server", f"{statement}.", mend)
            if not problems:
                yield fine("redis-server", "Its version is new enough, and it evicts no keys.")
        except StoreUnavailableError as error:
            if error.outage != "forbidden":
                yield failure("redis", f"Redis does not answer: {error.reason}.", error.advice)
                return
            yield skipped("redis-server", "The ACL forbids INFO, so version and eviction are unknown.", "allow +info")
        except MageflowError as error:
            yield failure("redis", f"{error}.", "check MAGEFLOW_REDIS_URL, its user and its password")
            return
        yield await _rights(port, settings.key_prefix)
        yield await _persistence(port)
        async for each in _times(port):
            yield each
    finally:
        await port.aclose()


async def _rights(port: "RedisPort", prefix: str) -> Finding:
    key = f"{prefix}:{{doctor}}:{secrets.token_hex(8)}"
    refused: dict[str, None] = {}
    for command in (*_READS, *_WRITES):
        try:
            await port.command(*(key if part == "KEY" else part for part in command))
        except StoreUnavailableError as error:
            refused[command[0].lower() if error.outage == "forbidden" else error.reason] = None
        except StoreError as error:
            refused[error.reason] = None
    if refused:
        return failure(
            "redis-rights",
            f"Redis refuses what mageflow needs: {', '.join(refused)}.",
            "give the user the rights of the ACL line in docs/storage.md, and connect to a primary",
        )
    return fine("redis-rights", "Every command that mageflow uses is allowed on its keys.")


async def _persistence(port: "RedisPort") -> Finding:
    from mageflow.store import has_append_only_file

    try:
        is_kept = await has_append_only_file(port)
    except StoreError:
        return skipped("redis-persistence", "The ACL forbids INFO, so persistence is unknown.", "allow +info")
    if is_kept:
        return fine("redis-persistence", "The append-only file is on: flows survive a restart of Redis.")
    return warning(
        "redis-persistence",
        "The append-only file is off: a restart of Redis loses what came after the last snapshot.",
        "set appendonly yes in production; development needs none",
    )


async def _times(port: "RedisPort") -> AsyncIterator[Finding]:
    took: list[float] = []
    skews: list[float] = []
    try:
        for _ in range(_TIMES):
            began = time.time()
            seconds, microseconds = await port.command("TIME")
            ended = time.time()
            took.append(ended - began)
            skews.append((began + ended) / 2 - int(seconds) - int(microseconds) / 1e6)
    except StoreError:
        return
    median, skew = statistics.median(took), statistics.median(skews)
    if median > _SLOW_SECONDS:
        yield warning(
            "redis-latency",
            f"A round trip to Redis takes {median * 1000:.0f} ms, and a step of a flow makes at least two.",
            "run workers nearer to Redis",
        )
    else:
        yield fine("redis-latency", f"A round trip to Redis takes {median * 1000:.1f} ms.")
    if abs(skew) > _SKEW_SECONDS:
        side = "ahead of" if skew > 0 else "behind"
        yield warning(
            "redis-clock",
            f"The clock of this machine is {abs(skew):.1f} s {side} that of Redis: "
            "ages in reports are wrong by that, and queue waits on this machine.",
            "synchronise both clocks (NTP)",
        )
    else:
        yield fine("redis-clock", "The clocks of this machine and of Redis agree within 1 s.")
