"""Checks that a Redis server can keep state: it is recent enough, and it does not evict keys.

Persistence and replication are the operator's choice: a worker does not check them.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Final

from mageflow.errors import MageflowError
from mageflow.store.redis.port import RedisPort
from mageflow.store.redis.scripts import Script
from mageflow.telemetry import suppressed

__all__ = ["find_unsuitable", "has_append_only_file", "problems_of", "warn_unsuitable"]

_log = logging.getLogger("mageflow.store")

SERVER: Final = Script("server", (), ())

_OLDEST_REDIS: Final = (7, 0)
"""The scripts need it. Valkey reports 7.2.4 as ``redis_version``, and its own version in another field."""


async def find_unsuitable(port: RedisPort) -> list[str]:
    """The problems of the server for signatures, flows and locks, one sentence each. One round trip.

    Raises:
        RedisNotConfiguredError: No Redis was given.
        StoreUnavailableError: The server could not be reached in time.
        StoreError: The server refused, for example because an ACL forbids ``INFO``.
    """
    return problems_of(str(await port.call(SERVER, ())))


async def has_append_only_file(port: RedisPort) -> bool:
    """Whether the server writes each change to its append-only file. One round trip.

    Raises:
        RedisNotConfiguredError: No Redis was given.
        StoreUnavailableError: The server could not be reached in time.
        StoreError: The server refused, for example because an ACL forbids ``INFO``.
    """
    return "aof_enabled:1" in str(await port.call(SERVER, ()))


def problems_of(info: str) -> list[str]:
    """The problems of a server, one sentence each, by its answer to ``INFO``."""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return [*_too_old(fields), *_evicting(fields)]


async def warn_unsuitable(port: RedisPort) -> None:
    """Log a warning for each problem of `find_unsuitable`; nothing if the server does not answer. Does not raise."""
    try:
        with suppressed():  # it belongs to no run
            problems = await find_unsuitable(port)
        for problem in problems:
            _log.warning("%s", problem)
    except MageflowError as error:
        _log.debug("the Redis server was not checked: %s", error)


def _too_old(fields: Mapping[str, str]) -> Iterator[str]:
    version = fields.get("redis_version", "")
    numbers = tuple(int(each) for each in version.split(".")[:2] if each.isdecimal())
    if numbers and numbers < _OLDEST_REDIS:
        yield f"Redis {version} is too old, signatures, flows and locks will fail: use Redis >= 7.0 or Valkey >= 7.2"


def _evicting(fields: Mapping[str, str]) -> Iterator[str]:
    policy = fields.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and fields.get("maxmemory", "0") != "0":
        yield (
            f"this Redis evicts keys when its memory is full (maxmemory-policy {policy}), flows and locks with them: "
            "set maxmemory-policy noeviction"
        )
